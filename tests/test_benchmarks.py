"""The benchmarks compare like with like, and still run."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = ("stage1_step", "stage2_step", "ranking", "inference", "audio", "loader", "roofline", "growth", "startup")


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


@pytest.mark.slow
def test_every_benchmark_runs_at_its_smallest(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--quick", "--rounds", "1", "--output", str(tmp_path)]
    subprocess.run(command, check=True)
    for name in NAMES:
        content = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
        assert content["rows"]
        assert content["quick"]
