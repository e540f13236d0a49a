"""What is trained on, and in which order: a mixture of tasks as a pure function of (seed, epoch).

A task's share is the square root of its size unless the recipe weighs it otherwise (InstructBLIP; the paper is silent).
Within a task every item comes once before any comes twice, also across epochs. Each draw carries a number of its own,
from which the caption, the crop and the hard negatives of that draw follow, so that a run that is resumed in mid-epoch,
or spread over other ranks, sees the same data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from mint.types import CAPTION_PROMPT, Example, MintError

Draw = tuple[int, int]
"""Index of an item, and the number of this draw of it."""


BATCHES_SORTED = 16
"""Batches among which items are sorted by size."""


@dataclass(frozen=True)
class Item:
    """Something to learn: what to say about a clip when asked."""

    example: Example
    task: str
    prompt: str
    answers: tuple[str, ...]
    """One is drawn each time."""


def caption_items(examples: Sequence[Example]) -> list[Item]:
    """Stage 1: every clip with its captions, and its prompt with its answer as one text more.

    The latter is ours (the paper's stage 1 has captions alone): it is the text by which similarity ranking asks.
    """
    items = []
    for example in examples:
        question = (f"{example.prompt} {example.answer}",) if example.prompt and example.answer else ()
        if texts := example.captions + question:
            items.append(Item(example, example.task, CAPTION_PROMPT, texts))
    return items


def instruction_items(examples: Sequence[Example]) -> list[Item]:
    """Stage 2: the question of each clip's task and its answer, and, for clips with captions, captioning."""
    items = []
    for example in examples:
        if example.prompt and example.answer:
            items.append(Item(example, example.task, example.prompt, (example.answer,)))
        if example.captions:
            items.append(Item(example, "captioning", CAPTION_PROMPT, example.captions))
    return items


class ItemDataset(Dataset[dict[str, object]]):
    """Items with their audio features; indexed by draws.

    Args:
        items: what may be drawn.
        features: (example, number of the draw) to a window of frozen features [T, D].
    """

    def __init__(self, items: Sequence[Item], features: Callable[[Example, int], Tensor]) -> None:
        self.items = items
        self.features = features

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, draw: Draw) -> dict[str, object]:
        """Features, prompt, answer and number of one draw."""
        index, number = draw
        item = self.items[index]
        return {
            "features": self.features(
                item.example, number // len(item.answers)
            ),  # the window regardless of the caption
            "prompt": item.prompt,
            "answer": item.answers[number % len(item.answers)],
            "draw": number,
        }


class MixtureSampler(Sampler[Draw]):
    """Draws of an epoch, by the tasks' weights.

    Args:
        tasks: task of each item.
        weights: of the tasks that the recipe names; the others have the square root of their size.
        length: draws an epoch; None: the number of items.
        seed: of the order.
        sizes: about how long each item's text is; given, batches hold items of like size, which saves padding.
        batch_size: of the global batch; read only with `sizes`.

    Raises:
        MintError: a weight names no task, or is negative, or nothing is left to draw, or the epoch is empty.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        weights: Mapping[str, float],
        length: int | None = None,
        seed: int = 0,
        *,
        sizes: Sequence[int] | None = None,
        batch_size: int = 1,
    ) -> None:
        self.groups = {task: np.flatnonzero([other == task for other in tasks]) for task in dict.fromkeys(tasks)}
        unknown = sorted(set(weights) - set(self.groups))
        if unknown:
            raise MintError(
                f"data.mixture names {unknown[0]!r}; the manifests have {', '.join(self.groups) or 'nothing'}"
            )
        shares = {task: float(weights.get(task, math.sqrt(len(group)))) for task, group in self.groups.items()}
        if min(shares.values(), default=0.0) < 0 or not sum(shares.values()):
            raise MintError(f"data.mixture gives {shares}; weights must not be negative, and one must be positive")
        self.length = len(tasks) if length is None else length
        if self.length < 1:
            raise MintError(f"data.examples_per_epoch is {length}; it must be at least 1")
        self.counts = _apportion(shares, self.length)
        self.seed = seed
        self.sizes = None if sizes is None else np.asarray(sizes)
        self.batch_size = batch_size
        self.epoch = 0

    def __len__(self) -> int:
        return self.length

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Draw]:
        """The draws of the current epoch."""
        chosen = np.concatenate([self._draw_task(task) for task in self.groups])
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(self.length)
        numbers = generator.integers(0, 1 << 62, self.length)
        if self.sizes is not None:
            order = self._group_by_size(order, self.sizes[chosen], generator)
        yield from zip(chosen[order].tolist(), numbers.tolist(), strict=True)

    def _group_by_size(self, order: np.ndarray, sizes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Sort within stretches of some batches, and shuffle each stretch's batches."""
        stretch = self.batch_size * BATCHES_SORTED
        batches: list[np.ndarray] = []
        for first in range(0, len(order), stretch):
            part = order[first : first + stretch]
            part = part[np.argsort(sizes[part], kind="stable")]
            whole = len(part) // self.batch_size
            cut = [part[index * self.batch_size : (index + 1) * self.batch_size] for index in range(whole)]
            batches += [cut[index] for index in generator.permutation(whole)]
            batches.append(part[whole * self.batch_size :])
        return np.concatenate(batches)

    def _draw_task(self, task: str) -> np.ndarray:
        """The task's part of the epoch: a stretch of an endless series of its permutations."""
        group, count = self.groups[task], self.counts[task]
        positions = np.arange(self.epoch * count, (self.epoch + 1) * count)
        rounds = positions // len(group)
        permutations = {
            int(r): np.random.default_rng([self.seed, int(r), len(task), *task.encode()]).permutation(group)
            for r in np.unique(rounds)
        }
        return np.array(
            [permutations[int(r)][p % len(group)] for r, p in zip(rounds, positions, strict=True)], dtype=int
        )


def _apportion(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers in proportion to the shares that add up to the total (largest remainder)."""
    whole = sum(shares.values())
    exact = {task: total * share / whole for task, share in shares.items()}
    counts = {task: int(value) for task, value in exact.items()}
    by_remainder = sorted(exact, key=lambda task: (counts[task] - exact[task], task))
    for task in by_remainder[: total - sum(counts.values())]:
        counts[task] += 1
    return counts
