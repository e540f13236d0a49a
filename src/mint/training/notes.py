"""Notes on a recipe that can be trained, but perhaps not as it was meant: for `--dry-run`, and when a run begins."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from transformers import TrainingArguments

from mint.config import Recipe
from mint.data.batches.items import Item


def notes_of(
    recipe: Recipe, arguments: TrainingArguments, steps: int, items: Sequence[Item], ranks: int = 1
) -> list[str]:
    """Return what may not be as it was meant, a line each.

    Args:
        recipe: the run.
        arguments: its arguments of training.
        steps: the optimiser steps of the whole run.
        items: what is learnt.
        ranks: the number of ranks that train it.
    """
    notes = _notes_of_micro_batches(recipe, arguments)
    notes += _notes_of_negatives(recipe, arguments, items, ranks)
    # The Trainer's own rule: a share of the run below 1, a number of steps from 1 on.
    warmup = arguments.get_warmup_steps(steps)
    if warmup >= steps:
        notes.append(f"the warm-up of {warmup:,} steps is as long as the run of {steps:,}")
    return notes


def _notes_of_micro_batches(recipe: Recipe, arguments: TrainingArguments) -> list[str]:
    """Return what gradient accumulation does to the contrast, if anything."""
    objectives, count = recipe.objectives, arguments.gradient_accumulation_steps
    notes = []
    if recipe.accumulate_negatives and count == 1:
        notes.append("accumulate_negatives has no effect while training.gradient_accumulation_steps is 1")
    contrasts = objectives is not None and (objectives.alc or objectives.alm)
    if contrasts and count > 1 and not recipe.accumulate_negatives:
        notes.append(
            f"each of the {count} micro-batches of a step is contrasted alone, with fewer negatives than the batch "
            "has; `accumulate_negatives: true` contrasts them all"
        )
    return notes


def _notes_of_negatives(recipe: Recipe, arguments: TrainingArguments, items: Sequence[Item], ranks: int) -> list[str]:
    """Return what keeps ALC and ALM from learning, or makes their negatives easy."""
    objectives = recipe.objectives
    if objectives is None:
        return []
    # ATG needs no negatives: it learns from each pair by itself.
    names = [name for name in ("alc", "alm") if getattr(objectives, name)]
    notes = []

    # Without negatives there is nothing to tell a pair from.
    if names:
        learn = f"{' and '.join(names)} {'learns' if len(names) == 1 else 'learn'} nothing"
        contrasted = arguments.train_batch_size * ranks
        # Other ranks are contrasted with anyway, the micro-batches of a step only where the recipe says so.
        if recipe.accumulate_negatives:
            contrasted *= arguments.gradient_accumulation_steps

        if contrasted == 1:
            notes.append(f"a batch of 1 has no negatives: {learn}; raise training.per_device_train_batch_size")
        # Generators: of a million items that differ, two are read.
        if _are_equal((item.example.audio, item.example.start, item.example.duration) for item in items):
            notes.append(f"there is one training clip alone, so that there are no negatives: {learn}")
        elif _are_equal(answer for item in items for answer in item.answers):
            notes.append(f"all training captions are the same, so that there are no negatives: {learn}")

    if objectives.alm and not objectives.alc:
        notes.append(
            "without alc nothing trains the similarities by which alm draws its negatives: they are those of random "
            "projections, and hardly harder than chance"
        )
    if recipe.data.group_by_length:
        notes.append("data.group_by_length makes texts of like length each other's negatives; it is meant for stage 2")
    return notes


def _are_equal(values: Iterable[Hashable]) -> bool:
    """Return whether all values are equal; reading stops at the first that differs."""
    values = iter(values)
    first = next(values, None)
    return all(value == first for value in values)
