"""The benchmarks compare like with like, and still run."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = (
    *("stage1_step", "stage2_step", "ranking", "inference", "audio", "loader", "roofline", "serve"),
    *("growth", "startup", "batches"),
)


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the folder."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module


@pytest.mark.parametrize("stage", ["stage1_step", "stage2_step"])
def test_the_published_recipes_compute_what_ours_computes(benchmark: Any, stage: str) -> None:
    shape = benchmark("shapes").TINY
    benchmark(stage).check(shape, "cpu")


def test_a_step_that_computes_something_else_is_not_timed(benchmark: Any) -> None:
    steps = benchmark("steps")
    with pytest.raises(SystemExit, match=r"alc is 1\.0, but 1\.0010"):
        steps.check_equal({"alc": torch.tensor(1.0)}, {"alc": torch.tensor(1.001)}, "a peer")
    with pytest.raises(SystemExit, match="gradients differ"):
        steps.check_gradients(torch.ones(3), torch.tensor([1.0, 1.0, 1.01]), "a peer")
    with pytest.raises(SystemExit, match="the ranking is not that of a peer"):
        benchmark("ranking").check_ranking(torch.tensor([1.0, 1.0001]), torch.tensor([1.0001, 1.0]), "a peer")


def test_ratios_say_how_many_times_better(benchmark: Any) -> None:
    row = benchmark("common").Row
    assert row("", "", "s", 2.0, "a peer", 3.0).ratio == 1.5
    assert row("", "", "s of audio/s", 2.0, "a peer", 3.0, more_is_better=True).ratio == pytest.approx(2 / 3)
    assert row("", "", "s", 2.0).ratio is None


def test_the_tables_of_the_page_on_scale_are_those_that_its_script_writes(benchmark: Any) -> None:
    scale = benchmark("scale_tables")
    page = scale.PAGE.read_text(encoding="utf-8")
    made = scale.tables()
    assert scale.filled(page, made) == page, "run `python benchmarks/scale_tables.py`"
    assert scale.filled(page, {**made, "steps": "| other |\n"}) != page


def test_the_measurement_on_a_gpu_can_be_rehearsed(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu_scale = benchmark("gpu_scale")
    path = tmp_path / "gpu_scale.json"
    monkeypatch.setattr(sys, "argv", ["gpu_scale.py", "--rehearse", "--steps", "2", "--output", str(path)])
    monkeypatch.setattr(gpu_scale, "PEAKS", {"cpu": 1e12})
    assert gpu_scale.main() == 0
    record = json.loads(path.read_text(encoding="utf-8"))
    assert json.loads(capsys.readouterr().out) == record
    assert set(record["cases"]) == {"encoder", "stage 1", "stage 2"}
    assert all(record["cases"]["encoder"][name]["clips_a_second"] > 0 for name in ("float32", "bf16"))
    for case in ("stage 1", "stage 2"):
        step = record["cases"][case]
        assert step["utilisation"] == pytest.approx(step["flop_a_step"] / step["seconds_a_step"] / 1e12)
        assert math.isfinite(step["last_loss"])
    for found in record["agreement"]:
        assert found["agrees"]
        assert found["relative_differences"]["float32"] == found["relative_differences"]["gradients"] == 0  # one device
        assert found["relative_differences"]["bf16"] > 0


def test_a_gpu_that_computes_something_else_fails_the_measurement(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_scale = benchmark("gpu_scale")
    device = torch.device("cpu")
    assert gpu_scale.agreement(1, device)["agrees"]
    honest = gpu_scale.losses_and_gradients
    results: list[Any] = []

    def other(*arguments: Any) -> Any:
        """The second of two results is another."""
        losses, gradients = honest(*arguments)
        results.append(gradients)
        return losses, gradients * (1.01 if len(results) == 2 else 1.0)

    monkeypatch.setattr(gpu_scale, "losses_and_gradients", other)
    assert not gpu_scale.agreement(1, device)["agrees"]


@pytest.mark.slow
def test_every_benchmark_runs_at_its_smallest(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--quick", "--rounds", "1", "--output", str(tmp_path)]
    subprocess.run(command, check=True)
    for name in NAMES:
        content = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
        assert content["rows"]
        assert content["quick"]
