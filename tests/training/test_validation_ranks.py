"""Validation while two processes train (gloo, on CPU): what they log is what one process logs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from torch import distributed

from tiny_ranks import run_ranks
from tiny_runs import recipe, train_recipe, write_corpus

if TYPE_CHECKING:
    from mint.config import Recipe

GLOBAL_BATCH = 4
RANKS = 2
HELD_OUT = ("low1", "high2", "middle1", "middle2", "middle3", "middle5", "middle6")
"""7 items in stage 1, in batches of 3 and 4; 14 in stage 2, in batches of 3 and 4."""


def wanted(stage: int, manifest: Path, ranks: int) -> Recipe:
    """Four steps without dropout, the third of stage 1 over what an epoch leaves, and the figures after each."""
    made = recipe(
        stage,
        manifest,
        max_steps=4,
        eval_strategy="steps",
        eval_steps=1,
        per_device_train_batch_size=GLOBAL_BATCH // ranks,
        per_device_eval_batch_size=GLOBAL_BATCH // ranks,
        **({"ddp_backend": "gloo"} if ranks > 1 else {}),
    )
    return replace(made, bridge=replace(made.bridge, dropout=0.0))


def work(rank: int, folder: Path) -> None:
    """What each of the two processes does."""
    for stage in (1, 2):
        train_recipe(wanted(stage, folder / "held_out.jsonl", RANKS), folder / f"two{stage}")
        if rank == 0:
            assert distributed.get_world_size() == RANKS


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages trained by one process (`one1`, `one2`) and by two (`two1`, `two2`)."""
    folder = tmp_path_factory.mktemp("runs")
    lines = [json.loads(line) for line in write_corpus(folder, clips=6).read_text().splitlines()]
    for line in lines:
        line["split"] = "validation" if line["id"] in HELD_OUT else "train"
    (folder / "held_out.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINT_CACHE", str(folder / "cache"))
        for stage in (1, 2):
            train_recipe(wanted(stage, folder / "held_out.jsonl", ranks=1), folder / f"one{stage}")
        run_ranks(work, folder, RANKS)
    return folder


def records(run: Path, kind: str) -> list[dict[str, float]]:
    return [line for line in json.loads((run / "history.json").read_text()) if kind in line]


@pytest.mark.parametrize("stage", [1, 2])
def test_two_ranks_log_what_one_process_logs(runs: Path, stage: int) -> None:
    one, two = (records(runs / f"{count}{stage}", "eval_loss") for count in ("one", "two"))
    assert [record["step"] for record in two] == [record["step"] for record in one] == [1, 2, 3, 4]
    figures = {
        1: {"loss", "alc", "alm", "atg"}
        | {f"{way}_recall@{k}" for way in ("text_to_audio", "audio_to_text") for k in (1, 5, 10)},
        2: {"loss", "accuracy"},
    }[stage]
    for ours, expected in zip(two, one, strict=True):
        assert {f"eval_{name}" for name in figures} <= ours.keys() == expected.keys()
        for name in figures:
            assert ours[f"eval_{name}"] == pytest.approx(expected[f"eval_{name}"], rel=1e-4), name
    assert one[0]["eval_loss"] != one[1]["eval_loss"]


@pytest.mark.parametrize("stage", [1, 2])
def test_two_ranks_train_what_one_process_trains(runs: Path, stage: int) -> None:
    one, two = ([record["loss"] for record in records(runs / f"{count}{stage}", "loss")] for count in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-4)
