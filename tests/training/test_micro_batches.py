"""Gradient accumulation: a step of several micro-batches is the step of the one batch that they make."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mint.config import ObjectivesConfig, Recipe
from mint.model.stage1 import Stage1
from mint.training.accumulation import weighed, weights_of
from tiny_models import DEC, tiny_batch, tiny_bridge
from tiny_ranks import run_ranks
from tiny_runs import recipe, train_recipe, write_corpus

CUTS = [(2, 2), (1, 4)]
"""Micro-batch and how many of them, in place of one batch of 4."""
STEPS = {1: 6, 2: 10}
"""Two epochs, of 9 clips and of 18 items: the last step of each has one or two."""


def accumulation(stage: int, corpus: Path, batch: int, micro_batches: int, **training: Any) -> Recipe:
    """Two epochs of plain gradient steps without dropout; in stage 1 ATG alone, which has no negatives."""
    made = recipe(
        stage,
        corpus,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=micro_batches,
        **{"max_steps": STEPS[stage], "optim": "sgd", "learning_rate": 0.05, **training},
    )
    made = replace(made, bridge=replace(made.bridge, dropout=0.0))
    return replace(made, objectives=ObjectivesConfig(alc=False, alm=False)) if stage == 1 else made


def history(run: Path) -> list[dict[str, float]]:
    return [line for line in json.loads((run / "history.json").read_text()) if "loss" in line]


def same_run(ours: Path, expected: Path) -> None:
    """Losses, norms of the gradients and weights."""
    assert len(history(ours)) == len(history(expected)) > 1
    for mine, whole in zip(history(ours), history(expected), strict=True):
        for name in {"loss", "grad_norm", "atg"} & whole.keys():
            assert mine[name] == pytest.approx(whole[name], rel=1e-4), (whole["step"], name)
    found, wanted = (load_file(run / "model.safetensors") for run in (ours, expected))
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("logging", [1, 3])
@pytest.mark.parametrize("stage", [1, 2])
def test_a_run_in_micro_batches_is_a_run_in_whole_ones(stage: int, logging: int, corpus: Path, tmp_path: Path) -> None:
    train_recipe(accumulation(stage, corpus, 4, 1, logging_steps=logging), tmp_path / "whole")
    for batch, count in CUTS:
        train_recipe(accumulation(stage, corpus, batch, count, logging_steps=logging), tmp_path / str(count))
        same_run(tmp_path / str(count), tmp_path / "whole")


def test_batches_of_like_length_are_the_whole_ones(corpus: Path, tmp_path: Path) -> None:
    for batch, count in ((4, 1), *CUTS):
        made = accumulation(2, corpus, batch, count)
        train_recipe(replace(made, data=replace(made.data, group_by_length=True)), tmp_path / str(count))
        same_run(tmp_path / str(count), tmp_path / "1")


def train_ranks(rank: int, folder: Path) -> None:
    """What each of two processes does."""
    for stage in (1, 2):
        train_recipe(accumulation(stage, folder / "corpus.jsonl", 1, 2, ddp_backend="gloo"), folder / f"two{stage}")


def test_two_ranks_in_micro_batches_are_a_run_in_whole_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their last micro-batches are left out in stage 1, where they are of one clip; ten clips leave none."""
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    lines = write_corpus(tmp_path, clips=4).read_text().splitlines()
    (tmp_path / "corpus.jsonl").write_text("\n".join([line for line in lines if '"train"' in line][:10]))
    run_ranks(train_ranks, tmp_path, 2)
    for stage in (1, 2):
        train_recipe(accumulation(stage, tmp_path / "corpus.jsonl", 4, 1), tmp_path / f"one{stage}")
        same_run(tmp_path / f"two{stage}", tmp_path / f"one{stage}")


def test_the_parts_of_the_loss_in_the_log_add_up(corpus: Path, tmp_path: Path) -> None:
    """Over two steps, of which the second has fewer micro-batches than the first."""
    made = replace(accumulation(1, corpus, 2, 3, logging_steps=2, max_steps=2), objectives=ObjectivesConfig())
    train_recipe(made, tmp_path)
    (record,) = history(tmp_path)
    assert record["loss"] == pytest.approx(record["alc"] + record["alm"] + record["atg"], rel=1e-5)


def test_every_pair_and_every_token_of_a_step_counts_alike() -> None:
    """Stage 1 without accumulated negatives: micro-batches of 6 and 2 pairs, each contrasted alone."""
    stage = Stage1(bridge=tiny_bridge(), dec_token=DEC, shared_width=8)
    batches = [tiny_batch(6, tokens=9, seed=1), tiny_batch(2, tokens=4, seed=2)]
    losses = [stage(**batch) for batch in batches]
    parts = [weighed(one, weights) for one, weights in zip(losses, weights_of(stage, batches), strict=True)]
    tokens = [int(batch["text_mask"][:, 1:].sum()) for batch in batches]
    for name, counts in {"alc": (6, 2), "alm": (6, 2), "atg": tokens}.items():
        expected = sum(count * one[name] for count, one in zip(counts, losses, strict=True)) / sum(counts)
        torch.testing.assert_close((parts[0][name] + parts[1][name]) / 2, expected)
    for part in parts:
        torch.testing.assert_close(part["loss"], part["alc"] + part["alm"] + part["atg"])
