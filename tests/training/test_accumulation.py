"""Accumulated negatives: loss, gradients and negatives are those of the whole batch, memory is a micro-batch's."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from mint.builders.encoder import build_encoder
from mint.config import Recipe, recipe_from_dict
from mint.data.features.prepare import read_examples
from mint.model.stage1 import Stage1
from mint.training.accumulation import micro_batches_of, seeded
from mint.training.dry_run.plan import plan
from mint.types import MintError
from tiny_models import DEC, randomise, tiny_batch, tiny_bridge
from tiny_ranks import run_ranks
from tiny_runs import recipe, recipe_values, train_recipe, write_corpus

SIZES = {"1": (16,), "2": (8, 8), "4": (4, 4, 4, 4), "ragged": (5, 1, 8, 2)}
"""Of the micro-batches of a batch of 16."""
OBJECTIVES: dict[str, dict[str, bool]] = {
    "all": {},
    "ALC": {"alm": False, "atg": False},
    "ALC and ATG": {"alm": False},
    "ALC and ALM": {"atg": False},
    "ALM": {"alc": False, "atg": False},
}
RANKS = {"even": ((4, 4), (4, 4)), "ragged": ((5, 4), (1, 6))}
"""Micro-batches of each of two ranks."""


def tiny_stage(dtype: torch.dtype = torch.float64, dropout: float = 0.0, **objectives: bool) -> Stage1:
    stage = Stage1(bridge=tiny_bridge(dropout=dropout), dec_token=DEC, shared_width=8, **objectives)
    temperature = stage.temperature.detach().clone()
    randomise(stage, seed=5)
    stage.temperature.data.copy_(temperature)
    return stage.to(dtype).train()


def whole_batch(dtype: torch.dtype = torch.float64, rows: int = 16) -> dict[str, Tensor]:
    """Captions 3 and 12, of different micro-batches, are the same."""
    batch = tiny_batch(rows, frames=9, tokens=8, dtype=dtype)
    for name in ("text_ids", "text_mask"):
        batch[name][12] = batch[name][3].clone()
    return batch


def cut(batch: dict[str, Tensor], sizes: tuple[int, ...]) -> list[dict[str, Tensor]]:
    """Micro-batches, each cut to its own longest clip and text."""
    parts = []
    for first, size in zip(torch.tensor([0, *sizes]).cumsum(0).tolist(), sizes, strict=False):
        part = {name: tensor[first : first + size] for name, tensor in batch.items()}
        for mask in ("audio_mask", "text_mask"):
            longest = int(part[mask].sum(dim=1).max())
            part |= {name: part[name][:, :longest] for name in part if name.split("_")[0] == mask.split("_")[0]}
        parts.append(part)
    return parts


def accumulated(stage: Stage1, batches: list[dict[str, Tensor]], model: Any = None) -> dict[str, Tensor]:
    """Mean losses over the parts; the gradients are in the stage."""
    sums: dict[str, Tensor] = {}
    parts = micro_batches_of(stage, batches, nullcontext)
    for index, batch in enumerate(batches):
        part, seed = next(parts)
        last = index == len(batches) - 1
        with seeded(seed), model.no_sync() if model is not None and not last else nullcontext():
            losses = (model or stage)(**batch, micro_batch=part)
            (losses["loss"] / len(batches)).backward()
        for name, value in losses.items():
            sums[name] = sums.get(name, torch.zeros(())) + value.detach() / len(batches)
    return sums


def gradients(stage: Stage1) -> dict[str, Tensor]:
    return {name: tensor.grad.clone() for name, tensor in stage.named_parameters() if tensor.grad is not None}


def in_one(stage: Stage1, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses and gradients of the whole batch at once."""
    losses = stage(**batch)
    losses["loss"].backward()
    expected = gradients(stage)
    stage.zero_grad()
    return {name: loss.detach() for name, loss in losses.items()}, expected


def equal(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, atol=tolerance, rtol=tolerance, msg=f"{name}: {found[name]} is not {tensor}"
        )


@pytest.mark.parametrize("objectives", OBJECTIVES)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_losses_and_gradients_are_those_of_the_whole_batch(
    objectives: str, sizes: str, dtype: torch.dtype, tolerance: float
) -> None:
    stage, batch = tiny_stage(dtype, **OBJECTIVES[objectives]), whole_batch(dtype)
    losses, expected = in_one(stage, batch)
    equal(accumulated(stage, cut(batch, SIZES[sizes])), losses, tolerance)
    equal(gradients(stage), expected, tolerance)
    assert max(float(tensor.abs().max()) for tensor in expected.values()) > 1e-2


def test_contrast_within_micro_batches_is_something_else() -> None:
    stage, batch = tiny_stage(), whole_batch()
    _, expected = in_one(stage, batch)
    for part in cut(batch, SIZES["4"]):
        (stage(**part)["loss"] / 4).backward()
    apart = (gradients(stage)["bridge.queries"] - expected["bridge.queries"]).abs().max()
    assert apart > 0.1 * expected["bridge.queries"].abs().max()


@pytest.mark.parametrize("sizes", SIZES)
def test_negatives_are_those_of_the_whole_batch(sizes: str) -> None:
    stage, batch = tiny_stage(), whole_batch()
    scores = stage.scores(
        stage.embed_audio(batch["audio_features"], batch["audio_mask"]),
        stage.embed_text(batch["text_ids"], batch["text_mask"]),
    )
    expected = stage.negatives(*scores, batch["text_ids"], batch["text_mask"], batch["draws"])
    mined = [part.alm for part, _ in micro_batches_of(stage, cut(batch, SIZES[sizes]), nullcontext)]
    assert torch.equal(torch.cat([alm.negatives.clips for alm in mined if alm]), expected.clips)
    assert torch.equal(torch.cat([alm.negatives.wrong_captions for alm in mined if alm]), expected.wrong_captions)
    assert torch.equal(torch.cat([alm.negatives.valid for alm in mined if alm], dim=1), expected.valid)
    own = [row for size in SIZES[sizes] for row in range(size)]
    assert sizes == "1" or any(len(alm.wrong_audio[0]) < 16 for alm in mined if alm)
    assert expected.clips.tolist() != own


def test_dropout_draws_the_same_in_both_passes() -> None:
    """The gradients are those of one graph over all micro-batches, embedded under the seeds that were drawn."""
    stage, batches = tiny_stage(dropout=0.4, alm=False, atg=False), cut(whole_batch(), SIZES["ragged"])
    torch.manual_seed(3)
    losses = accumulated(stage, batches)
    found = gradients(stage)
    stage.zero_grad()
    torch.manual_seed(3)
    seeds = torch.randint(1 << 62, (4,)).tolist()
    clips: list[torch.Tensor] = []
    texts: list[torch.Tensor] = []
    for seed, batch in zip(seeds, batches, strict=True):
        with seeded(seed):
            audio = stage.bridge.project_audio(batch["audio_features"], batch["audio_mask"])
            output = stage.represent(audio, batch["text_ids"], batch["text_mask"], contrast=True)
        for rows, embedded in zip((clips, texts), stage.shared(output), strict=True):
            rows.append(embedded)
    loss = stage.contrast(*stage.scores(torch.cat(clips), torch.cat(texts)))
    loss.backward()
    torch.testing.assert_close(losses["alc"], loss.detach())
    equal(found, gradients(stage), 1e-6)
    torch.manual_seed(4)
    assert accumulated(stage, batches)["alc"] != losses["alc"]


class Kept:
    """Numbers that are kept for the backward pass at a time; each holder is gone when its graph is."""

    now = 0
    most = 0

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        Kept.now += tensor.numel()
        Kept.most = max(Kept.most, Kept.now)

    def __del__(self) -> None:
        Kept.now -= self.tensor.numel()

    def unpack(self) -> Tensor:
        return self.tensor


def most_kept(run: Any) -> int:
    Kept.now = Kept.most = 0
    with torch.autograd.graph.saved_tensors_hooks(Kept, Kept.unpack):
        run()
    assert Kept.now == 0
    return Kept.most


def test_what_is_kept_for_the_backward_pass_is_one_micro_batchs() -> None:
    """Besides the embeddings of the whole, which are few."""
    stage, batch = tiny_stage(), tiny_batch(32, frames=9, tokens=8, dtype=torch.float64)
    small = tiny_batch(4, frames=9, tokens=8, dtype=torch.float64)
    at_once = most_kept(lambda: in_one(stage, batch))
    alone = most_kept(lambda: in_one(stage, small))
    in_parts = most_kept(lambda: accumulated(stage, cut(batch, (4,) * 8)))
    assert at_once > 5 * alone
    assert in_parts < 1.5 * alone


def accumulation(corpus: Path, steps: int, batch: int, negatives: bool = True, **training: Any) -> Recipe:
    """Nearly two epochs of nine clips, the last step of each with one clip; no dropout, plain gradient steps."""
    made = recipe(
        1,
        corpus,
        max_steps=5,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=steps,
        **{"optim": "sgd", "learning_rate": 0.05, **training},
    )
    return replace(made, bridge=replace(made.bridge, dropout=0.0), accumulate_negatives=negatives)


def history(run: Path) -> list[dict[str, float]]:
    return [line for line in json.loads((run / "history.json").read_text()) if "loss" in line]


@pytest.mark.parametrize(("steps", "batch"), [(2, 2), (4, 1)])
def test_a_run_in_parts_is_a_run_with_the_whole_batch(steps: int, batch: int, corpus: Path, tmp_path: Path) -> None:
    train_recipe(accumulation(corpus, 1, 4), tmp_path / "whole")
    train_recipe(accumulation(corpus, steps, batch), tmp_path / "parts")
    train_recipe(accumulation(corpus, steps, batch, negatives=False), tmp_path / "apart")
    whole, parts, apart = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts", "apart"))
    equal(parts, whole, 1e-5)
    assert not torch.allclose(apart["bridge.queries"], whole["bridge.queries"], atol=1e-4)
    for ours, expected in zip(history(tmp_path / "parts"), history(tmp_path / "whole"), strict=True):
        for name in ("loss", "alc", "alm", "atg", "grad_norm"):
            assert ours[name] == pytest.approx(expected[name], rel=1e-4), name
    assert len(history(tmp_path / "parts")) == 5


def test_a_run_goes_on_after_an_interruption(corpus: Path, tmp_path: Path) -> None:
    """To the bit, with dropout; the seeds of the parts follow from the state that checkpoints hold."""
    made = accumulation(corpus, 2, 2, save_steps=1, save_total_limit=9, optim="adamw_torch", learning_rate=3e-3)
    made = replace(made, bridge=replace(made.bridge, dropout=0.1))
    train_recipe(made, tmp_path / "whole")
    for step in (1, 3):
        output = tmp_path / str(step)
        shutil.copytree(tmp_path / "whole" / f"checkpoint-{step}", output / f"checkpoint-{step}")
        train_recipe(made, output)
        ours, whole = (load_file(path / "model.safetensors") for path in (output, tmp_path / "whole"))
        assert all(torch.equal(tensor, whole[name]) for name, tensor in ours.items())


def test_parts_with_autocast(corpus: Path, tmp_path: Path) -> None:
    train_recipe(accumulation(corpus, 2, 2, bf16=True), tmp_path / "parts")
    train_recipe(accumulation(corpus, 1, 4, bf16=True), tmp_path / "whole")
    for ours, expected in zip(history(tmp_path / "parts"), history(tmp_path / "whole"), strict=True):
        assert ours["loss"] == pytest.approx(expected["loss"], rel=0.02)


def work(rank: int, folder: Path) -> None:
    """What each of two processes does."""
    distributed.init_process_group("gloo")
    results = {}
    for name, sizes in RANKS.items():
        stage = tiny_stage()
        batches = cut(whole_batch(), (*sizes[0], *sizes[1]))
        own = batches[: len(sizes[0])] if rank == 0 else batches[len(sizes[0]) :]
        losses = accumulated(stage, own, DistributedDataParallel(stage))
        results[name] = {"losses": losses, "gradients": gradients(stage)}
    torch.save(results, folder / f"{rank}.pt")


def test_two_ranks_of_two_parts(tmp_path: Path) -> None:
    run_ranks(work, tmp_path, 2)
    losses, expected = in_one(tiny_stage(), whole_batch())
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name in RANKS:
        equal(
            {key: (ranks[0][name]["losses"][key] + ranks[1][name]["losses"][key]) / 2 for key in losses}, losses, 1e-6
        )
        for rank in ranks:
            equal(rank[name]["gradients"], expected, 1e-6)


def full_batches(corpus: Path, steps: int, batch: int, **training: Any) -> Recipe:
    """Two steps over full batches: a whole one has no part for each micro-batch in what an epoch leaves over."""
    made = accumulation(corpus, steps, batch, **training)
    return replace(made, training={**made.training, "max_steps": 2})


def train_in_parts(rank: int, folder: Path) -> None:
    """What each of two processes does."""
    train_recipe(full_batches(folder / "corpus.jsonl", 2, 1, ddp_backend="gloo"), folder / "ranks")


def test_a_run_of_two_ranks_in_parts_is_a_run_with_the_whole_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    manifest = write_corpus(tmp_path).rename(tmp_path / "corpus.jsonl")
    run_ranks(train_in_parts, tmp_path, 2)
    train_recipe(full_batches(manifest, 1, 4), tmp_path / "whole")
    ranks, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("ranks", "whole"))
    equal(ranks, whole, 1e-5)
    for ours, expected in zip(history(tmp_path / "ranks"), history(tmp_path / "whole"), strict=True):
        for name in ("loss", "alc", "alm", "atg", "grad_norm"):
            assert ours[name] == pytest.approx(expected[name], rel=1e-4), name


def test_the_plan(corpus: Path) -> None:
    plans = {}
    for steps, negatives in ((1, True), (1, False), (4, True), (4, False)):
        wanted = accumulation(corpus, steps, 2, negatives)
        plans[steps, negatives] = plan(wanted, read_examples([corpus]), build_encoder(wanted.encoder), 1)
    assert plans[1, True].notes == [
        "accumulate_negatives has no effect while training.gradient_accumulation_steps is 1",
        *plans[1, False].notes,
    ]
    assert len(plans[4, True].notes) + 1 == len(plans[4, False].notes)
    assert "each of the 4 micro-batches of a step is contrasted alone, with fewer negatives" in plans[4, False].notes[0]
    works = {key: made.costs.work for key, made in plans.items() if made.costs}
    assert works[1, True] == works[1, False] == works[4, False]
    assert works[4, True].forward > 1.2 * works[4, False].forward
    assert works[4, True].backward < 1.2 * works[4, False].backward


def test_mistakes(corpus: Path) -> None:
    with pytest.raises(MintError, match=r"`accumulate_negatives` belongs to stage 1; remove it or set `stage: 1`"):
        recipe_from_dict({**recipe_values(2, corpus), "accumulate_negatives": True})
    off = {"objectives": {"alc": False, "alm": False}}
    with pytest.raises(MintError, match=r"is true, but no objective has negatives; switch alc or alm on"):
        recipe_from_dict({**recipe_values(1, corpus), "accumulate_negatives": True, **off})
