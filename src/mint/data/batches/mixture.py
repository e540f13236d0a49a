"""What is trained on, and in which order: a mixture of tasks as a pure function of (seed, epoch).

A task's share is the square root of its size unless the recipe weighs it otherwise (InstructBLIP; the paper is silent).
A recipe may weigh a corpus by itself where several share a task, as those of captions do, or a task's part of a corpus
(`groups_of`).
Within a task every item comes once before any comes twice, also across epochs. Each draw carries a number of its own,
from which the caption, the crop and the hard negatives of that draw follow, so that a run that is resumed in mid-epoch,
or spread over other ranks, sees the same data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from mint.data.manifests.index import Lines
from mint.types import CAPTION_PROMPT, Example, MintError

Draw = tuple[int, int]
"""Index of an item, and the number of this draw of it."""


DRAWS_AT_ONCE = 1 << 16
"""Draws of an epoch that are Python's numbers at a time."""
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


def caption_items(examples: Sequence[Example]) -> Sequence[Item]:
    """Stage 1: every clip with its captions, and its prompt with its answer as one text more.

    The latter is ours (the paper's stage 1 has captions alone): it is the text by which similarity ranking asks.
    """
    if isinstance(examples, Lines):
        has_text = (examples.rows["captions"] > 0) | (examples.rows["question"] > 0)
        return LineItems(examples, has_text.astype(int), _captions_of)
    return [item for example in examples for item in _captions_of(example)]


def instruction_items(examples: Sequence[Example]) -> Sequence[Item]:
    """Stage 2: the question of each clip's task and its answer, and, for clips with captions, captioning."""
    if isinstance(examples, Lines):
        counts = (examples.rows["captions"] > 0).astype(int) + (examples.rows["question"] > 0)
        return LineItems(examples, counts, _instructions_of)
    return [item for example in examples for item in _instructions_of(example)]


def _captions_of(example: Example) -> list[Item]:
    question = (f"{example.prompt} {example.answer}",) if example.prompt and example.answer else ()
    texts = example.captions + question
    return [Item(example, example.task, CAPTION_PROMPT, texts)] if texts else []


def _instructions_of(example: Example) -> list[Item]:
    items = []
    if example.prompt and example.answer:
        items.append(Item(example, example.task, example.prompt, (example.answer,)))
    if example.captions:
        items.append(Item(example, "captioning", CAPTION_PROMPT, example.captions))
    return items


class LineItems(Sequence[Item]):
    """The items of indexed manifests, each made when it is asked for; they equal those of the examples themselves.

    Args:
        lines: the examples.
        counts: items of each, [N].
        make: an example to its items.
    """

    def __init__(self, lines: Lines, counts: NDArray[np.int64], make: Callable[[Example], list[Item]]) -> None:
        self.lines = lines
        self.make = make
        self.rows = np.repeat(np.arange(len(lines), dtype=np.int32), counts)
        self.places = (np.arange(len(self.rows)) - np.repeat(np.cumsum(counts) - counts, counts)).astype(np.int8)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return self.make(self.lines[int(self.rows[index])])[self.places[index]]

    def questions(self) -> NDArray[np.bool_]:
        """Which items are a prompt and its answer, [N]; the others are captions, and in stage 1 all are."""
        return (self.places == 0) & (self.lines.rows["question"] > 0)[self.rows] & (self.make is _instructions_of)

    def tasks(self) -> list[str]:
        """Task of each."""
        names = (*self.lines.tasks, "captioning")
        captions = (self.make is _instructions_of) & ~self.questions()
        numbers = np.where(captions, len(names) - 1, self.lines.rows["task"][self.rows])
        return [names[number] for number in numbers.tolist()]

    def corpora(self) -> list[str]:
        """Corpus of each."""
        return [self.lines.corpora[number] for number in self.lines.rows["corpus"][self.rows].tolist()]

    def sizes(self) -> NDArray[np.int64]:
        """Characters of each one's prompt and first text."""
        lines = self.lines.rows
        question, caption = lines["question"][self.rows], lines["caption"][self.rows]
        has_captions = (lines["captions"] > 0)[self.rows]
        spoken = len(CAPTION_PROMPT) + np.where(has_captions, caption, question + 1)
        return np.where(self.questions(), question, spoken)


def questions_of(items: Sequence[Item]) -> Sequence[int]:
    """Indices of the items that ask for something else than a caption."""
    if isinstance(items, LineItems):
        return np.flatnonzero(items.questions() & items.lines.rows["asks"][items.rows]).tolist()
    return [index for index, item in enumerate(items) if item.prompt != CAPTION_PROMPT]


def tasks_of(items: Sequence[Item]) -> list[str]:
    """Task of each item."""
    return items.tasks() if isinstance(items, LineItems) else [item.task for item in items]


def groups_of(items: Sequence[Item], weights: Mapping[str, float]) -> list[str]:
    """What each item is weighed as.

    That is `TASK/CORPUS` where the weights name it, else its corpus where they name that and no task is called so, else
    its task.
    """
    tasks = tasks_of(items)
    named = set(weights) - set(tasks)
    if not named:
        return tasks
    corpora = items.corpora() if isinstance(items, LineItems) else [item.example.corpus for item in items]
    return [
        next((name for name in (f"{task}/{corpus}", corpus) if name in named), task)
        for task, corpus in zip(tasks, corpora, strict=True)
    ]


def sizes_of(items: Sequence[Item]) -> Sequence[int] | NDArray[np.int64]:
    """About how long the text of each item is: characters of its prompt and first text."""
    if isinstance(items, LineItems):
        return items.sizes()
    return [len(item.prompt) + len(item.answers[0]) for item in items]


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
        batch_size: of the global batch of a step; read only with `sizes`.

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
        sizes: Sequence[int] | NDArray[np.int64] | None = None,
        batch_size: int = 1,
    ) -> None:
        numbers = {task: number for number, task in enumerate(dict.fromkeys(tasks))}
        task_numbers = np.fromiter((numbers[task] for task in tasks), np.int32, len(tasks))
        self.groups = {task: np.flatnonzero(task_numbers == number) for task, number in numbers.items()}
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
        for first in range(0, self.length, DRAWS_AT_ONCE):
            part = slice(first, first + DRAWS_AT_ONCE)
            yield from zip(chosen[order[part]].tolist(), numbers[part].tolist(), strict=True)

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
        drawn = np.empty(count, dtype=int)
        rounds = positions // len(group)
        for number in np.unique(rounds).tolist():
            generator = np.random.default_rng([self.seed, number, len(task), *task.encode()])
            here = rounds == number
            drawn[here] = generator.permutation(group)[positions[here] % len(group)]
        return drawn


class RankBatches(Sampler[list[Draw]]):
    """One rank's part of each global batch: together the ranks draw what one process would, and nothing twice.

    The last batch of an epoch is shared evenly too. If it has fewer draws than there are ranks, it is left out.

    Args:
        sampler: of all draws of an epoch.
        batch_size: of the global batch.
        rank: this one.
        ranks: how many there are.
        drop_last: leave out a last batch that is not full.
    """

    def __init__(
        self, sampler: MixtureSampler, batch_size: int, rank: int = 0, ranks: int = 1, drop_last: bool = False
    ) -> None:
        self.sampler = sampler
        self.batch_size, self.rank, self.ranks = batch_size, rank, ranks
        self.least = batch_size if drop_last else ranks
        """Draws that a batch must have."""

    def __len__(self) -> int:
        whole, left = divmod(len(self.sampler), self.batch_size)
        return whole + (left >= self.least)

    def __iter__(self) -> Iterator[list[Draw]]:
        """The batches of the sampler's epoch."""
        draws = iter(self.sampler)
        while len(batch := list(islice(draws, self.batch_size))) >= self.least:
            yield batch[len(batch) * self.rank // self.ranks : len(batch) * (self.rank + 1) // self.ranks]


def _apportion(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers in proportion to the shares that add up to the total (largest remainder)."""
    whole = sum(shares.values())
    exact = {task: total * share / whole for task, share in shares.items()}
    counts = {task: int(value) for task, value in exact.items()}
    by_remainder = sorted(exact, key=lambda task: (counts[task] - exact[task], task))
    for task in by_remainder[: total - sum(counts.values())]:
        counts[task] += 1
    return counts
