"""What a recipe would do: `mint train --dry-run`. The models are built, and nothing is trained.

A plan may be made anywhere: without the accelerators and the other ranks that the recipe is for, and before its stage 1
is trained.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from mint.config import Recipe
from mint.data.features.prepare import launched_rank
from mint.model.freeze import count_by_module
from mint.run_folder import is_finished
from mint.training.dry_run.costs import Costs, estimate_costs
from mint.training.notes import notes_of
from mint.training.train import describe_start, prepare, split
from mint.types import AudioEncoder, Example, MintError


@dataclass(frozen=True)
class Plan:
    """What a run would do, with the models built and nothing trained."""

    parameters: list[tuple[str, int, int]]
    """Module, its trained and its frozen parameters."""
    draws_per_epoch: int
    steps_per_epoch: int
    steps: int
    start: str
    """What Bridge-Net starts from."""
    costs: Costs | None
    """The cost of a step; None: that of the language model is not known."""
    notes: list[str]
    """What may not be as it was meant."""


def plannable(recipe: Recipe, ranks: int) -> tuple[Recipe, list[str]]:
    """Return a recipe as it can be built here, and notes on what it is built without.

    Args:
        recipe: the recipe as it would be trained.
        ranks: the number of ranks that would train it.
    """
    training, notes = dict(recipe.training), []
    # Recipes for accelerators are planned on laptops: what the Trainer would refuse without one is left out.
    if not training.get("use_cpu") and not torch.accelerator.is_available():
        training = {**training, "use_cpu": True, "tf32": None}
        notes.append("there is no accelerator here: planned on the CPU")

    # Sharding can be built by as many processes as there are, and a plan is one.
    for key in ("fsdp", "deepspeed"):
        if ranks > launched_rank()[1] and training.pop(key, None):
            notes.append(f"the memory is that of whole weights on each rank, without training.{key}")

    start = recipe.start
    if start is not None and not is_finished(Path(start)):
        notes.append(f"start: {start} holds no finished run yet; planned without it")
        start = None
    return replace(recipe, training=training, start=start), notes


def plan(recipe: Recipe, examples: Sequence[Example], encoder: AudioEncoder, ranks: int = 1) -> Plan:
    """Return what training a recipe would do.

    Of the language model only sizes and tokenizer are read; the checkpoint that Bridge-Net starts from is read whole.

    Args:
        recipe: the recipe, `plannable` here.
        examples: all examples.
        encoder: the frozen encoder, which may be weightless.
        ranks: the number of ranks that would train it.

    Raises:
        MintError: the recipe cannot be trained.
    """
    learnt, held = split(examples)
    # The Trainer makes its folder at once, and a plan shall leave none.
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(recipe, Path(folder), learnt, held, _no_features, encoder, weightless=True)
    trainer = prepared.trainer

    parameters = list(count_by_module(prepared.model))
    frozen_models = {"audio encoder": encoder, "language model": getattr(prepared.language, "model", None)}
    for name, module in frozen_models.items():
        if isinstance(module, nn.Module):
            frozen = sum(parameter.numel() for parameter in module.parameters() if not parameter.requires_grad)
            parameters.append((name, 0, frozen))

    steps_per_epoch, steps = trainer.steps(ranks)
    on_device = sum(frozen for name, _, frozen in parameters if name != "audio encoder")  # its features are cached
    trained = sum(count for _, count, _ in parameters)
    models = (recipe, prepared.model, prepared.language, encoder, prepared.tokenizer)
    notes = notes_of(recipe, trainer.args, steps, trainer.dataset.items, ranks)
    if len(learnt) < trainer.args.train_batch_size * ranks:
        notes.append(f"the {len(learnt)} training examples do not fill one batch")

    costs = None
    try:
        costs = estimate_costs(*models, trainer.args, trained, on_device, ranks)
    except MintError as error:
        # A language family that the cost model does not know is no reason to withhold the rest of the plan.
        notes.append(f"no costs: {error}")
    if trainer.args.deepspeed:
        notes.append("the memory is that without DeepSpeed, which spreads the moments and, in stage 2, the gradients")
    draws, start = len(trainer.mixture_sampler), describe_start(recipe, prepared.report)
    return Plan(parameters, draws, steps_per_epoch, steps, start, costs, notes)


def _no_features(example: Example, number: int) -> Tensor:
    raise AssertionError("a plan reads no features")
