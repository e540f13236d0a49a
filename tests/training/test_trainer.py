"""What the subclass of the Trainer and its callbacks add."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState

from mint.data.batches.sampler import MixtureSampler
from mint.data.features.prepare import read_examples
from mint.training.arguments import training_arguments
from mint.training.progress import EpochOfSampler
from mint.training.train import prepare
from mint.training.trainer import checkpoint_blocks
from tiny_models import tiny_bridge
from tiny_runs import recipe, train_recipe

if TYPE_CHECKING:
    from torch import Tensor

    from mint.types import Example


class Width:
    """As much of an encoder as building the models needs."""

    width = 16


def no_features(example: Example, number: int) -> Tensor:
    raise AssertionError


def test_decay(corpus: Path, tmp_path: Path) -> None:
    prepared = prepare(recipe(1, corpus), tmp_path, read_examples([corpus]), [], no_features, Width())  # type: ignore[arg-type]
    decayed = set(prepared.trainer.get_decay_parameter_names(prepared.model))
    assert "bridge.blocks.0.attention.query.weight" in decayed
    kept = {name for name, parameter in prepared.model.named_parameters() if parameter.ndim < 2} | {"bridge.queries"}
    assert not decayed & kept
    assert decayed | kept == {name for name, _ in prepared.model.named_parameters()}


@pytest.mark.parametrize(("progress", "epoch"), [(0.0, 0), (0.5, 0), (1.0, 1), (3 + 2 / 7, 3)])
def test_the_sampler_knows_its_epoch(progress: float, epoch: int, corpus: Path, tmp_path: Path) -> None:
    sampler = MixtureSampler(["notes"] * 3, {})
    sampler.set_epoch(9)
    state = TrainerState(epoch=progress)
    EpochOfSampler(sampler).on_epoch_begin(training_arguments(recipe(1, corpus), tmp_path), state, TrainerControl())
    assert sampler.epoch == epoch


def test_the_trainer_draws_from_the_mixture(corpus: Path, tmp_path: Path) -> None:
    prepared = prepare(recipe(2, corpus), tmp_path, read_examples([corpus]), [], no_features, Width())  # type: ignore[arg-type]
    batches: Any = prepared.trainer.get_train_dataloader().batch_sampler
    assert batches.sampler is prepared.trainer.mixture_sampler


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_gradients_are_clipped_to_their_norm(micro_batches: int, corpus: Path, tmp_path: Path) -> None:
    """One plain step, against the norm of the whole step's gradients as a step without clipping shows them."""

    def step(rate: float, limit: float) -> tuple[dict[str, Tensor], float]:
        output = tmp_path / f"{rate}-{limit}"
        accumulation = {"per_device_train_batch_size": 4 // micro_batches, "gradient_accumulation_steps": micro_batches}
        made = recipe(2, corpus, max_steps=1, optim="sgd", learning_rate=rate, max_grad_norm=limit, **accumulation)
        train_recipe(made, output)
        weights = {name: tensor.double() for name, tensor in load_file(output / "model.safetensors").items()}
        return weights, json.loads((output / "history.json").read_text())[0]["grad_norm"]

    start, free = step(0.0, 0.0)[0], step(1.0, 0.0)[0]
    gradients = {name: start[name] - free[name] for name in start}
    norm = float(torch.stack([gradient.square().sum() for gradient in gradients.values()]).sum().sqrt())
    for limit in (0.5, 2 * norm):
        clipped, logged = step(1.0, limit)
        assert logged == pytest.approx(norm, rel=1e-4)
        for name, gradient in gradients.items():
            expected = start[name] - gradient * min(1.0, limit / norm)
            torch.testing.assert_close(clipped[name], expected, rtol=1e-4, atol=1e-6, msg=name)
    assert norm > 1


@pytest.mark.parametrize("stage", [1, 2])
def test_activation_checkpointing_gives_the_same_weights(stage: int, corpus: Path, tmp_path: Path) -> None:
    """Bit for bit, dropout included."""
    weights = []
    for name, on in (("with", True), ("without", False)):
        train_recipe(recipe(stage, corpus, activation_checkpointing=on), tmp_path / name)
        weights.append(load_file(tmp_path / name / "model.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(tensor, weights[1][key]) for key, tensor in weights[0].items())


@pytest.mark.parametrize("stage", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_compiled_model_learns_the_same(stage: int, corpus: Path, tmp_path: Path) -> None:
    """By a backend that traces and compiles nothing; clips and texts vary in length."""
    compiled = {"torch_compile": True, "torch_compile_backend": "aot_eager"}
    for name, training in (("compiled", compiled), ("eager", {})):
        made = recipe(stage, corpus, max_steps=3, optim="sgd", learning_rate=0.05, **training)
        made = replace(made, bridge=replace(made.bridge, dropout=0.0, num_layers=1))
        train_recipe(made, tmp_path / name)
    weights, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("compiled", "eager"))
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    losses = [
        [line["loss"] for line in json.loads((tmp_path / name / "history.json").read_text()) if "loss" in line]
        for name in ("compiled", "eager")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_activation_checkpointing_keeps_less() -> None:
    kept = []
    for on in (True, False):
        bridge = tiny_bridge(num_layers=6).train()
        if on:
            checkpoint_blocks(bridge)
        sizes: list[int] = []

        def keep(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            bridge.encode_text(torch.ones(4, 9, dtype=torch.long), torch.ones(4, 9, dtype=torch.bool))
        kept.append(sum(sizes))
    assert kept[0] < kept[1] / 3
