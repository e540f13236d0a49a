"""In which order items are drawn: a mixture of tasks as a pure function of (seed, epoch), and each rank's batches.

A task's share is the square root of its size unless the recipe weighs it otherwise (InstructBLIP; the paper is silent).
A recipe may weigh a corpus by itself where several share a task, as those of captions do, or a task's part of a corpus
(`Items.groups`). Within a task every item comes once before any comes twice, also across epochs. Each draw carries a
number of its own, from which the caption, the crop and the hard negatives of that draw follow. So a run that is resumed
in mid-epoch, or spread over other ranks, sees the same data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from mint.data.batches.items import Draw
from mint.types import MintError

DRAWS_AT_ONCE = 1 << 16
"""Draws of an epoch that are Python's numbers at a time."""
BATCHES_SORTED = 16
"""Batches among which items are sorted by size."""


class MixtureSampler(Sampler[Draw]):
    """The draws of an epoch, by the weights of the tasks.

    Args:
        tasks: task of each item, or whatever else it is weighed by.
        weights: weights of the tasks that the recipe names; the others have the square root of their size.
        length: draws in an epoch; None: the number of items.
        seed: the seed of the order.
        sizes: about how long each item's text is; if given, batches hold items of like size, which saves padding.
        batch_size: size of the global batch of a step; used only with `sizes`.

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
        # The indices of the items of each task. Numbers are compared, as a million texts would take long.
        numbers = {task: number for number, task in enumerate(dict.fromkeys(tasks))}
        task_numbers = np.fromiter(map(numbers.__getitem__, tasks), np.int32, len(tasks))  # [N]
        self.groups = {task: np.flatnonzero(task_numbers == number) for task, number in numbers.items()}

        unknown = sorted(set(weights) - set(self.groups))
        if unknown:
            raise MintError(
                f"data.mixture names {unknown[0]!r}; the manifests have {', '.join(self.groups) or 'nothing'}"
            )

        shares: dict[str, float] = {}
        for task, group in self.groups.items():
            shares[task] = float(weights.get(task, math.sqrt(len(group))))
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
        """Yield the draws of the current epoch."""
        chosen = np.concatenate(list(map(self._draw_task, self.groups)))  # [length]
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(self.length)
        numbers = generator.integers(0, 1 << 62, self.length)
        if self.sizes is not None:
            order = self._group_by_size(order, self.sizes[chosen], generator)

        # Arrays become Python's numbers in stretches: all at once, a million draws would take 100 MB.
        for first in range(0, self.length, DRAWS_AT_ONCE):
            stretch = slice(first, first + DRAWS_AT_ONCE)
            yield from zip(chosen[order[stretch]].tolist(), numbers[stretch].tolist(), strict=True)

    def _group_by_size(
        self, order: NDArray[np.int64], sizes: NDArray[np.int64], generator: np.random.Generator
    ) -> NDArray[np.int64]:
        """Sort within stretches of some batches, and shuffle the batches of each stretch."""
        num_sorted = self.batch_size * BATCHES_SORTED
        batches: list[NDArray[np.int64]] = []
        for first in range(0, len(order), num_sorted):
            stretch = order[first : first + num_sorted]
            stretch = stretch[np.argsort(sizes[stretch], kind="stable")]

            # Shuffled batches, so that training does not go from short texts to long ones.
            num_whole = len(stretch) // self.batch_size
            whole = stretch[: num_whole * self.batch_size].reshape(num_whole, self.batch_size)
            batches.extend(whole[generator.permutation(num_whole)])
            batches.append(stretch[num_whole * self.batch_size :])  # the last batch of an epoch may be smaller
        return np.concatenate(batches)

    def _draw_task(self, task: str) -> NDArray[np.int64]:
        """Return the task's part of the epoch: a stretch of an endless series of its permutations."""
        group, num_draws = self.groups[task], self.counts[task]
        positions = np.arange(self.epoch * num_draws, (self.epoch + 1) * num_draws)
        drawn = np.empty(num_draws, dtype=int)

        # Each round draws every item once, in an order of its own.
        rounds = positions // len(group)
        for number in np.unique(rounds).tolist():
            generator = np.random.default_rng([self.seed, number, len(task), *task.encode()])
            in_round = rounds == number
            drawn[in_round] = generator.permutation(group)[positions[in_round] % len(group)]
        return drawn


class RankBatches(Sampler[list[Draw]]):
    """One rank's part of each global batch: together the ranks draw what one process would, and nothing twice.

    The last batch of an epoch is shared evenly too. If it has fewer draws than there are ranks, it is left out.

    Args:
        sampler: all draws of an epoch.
        batch_size: size of the global batch.
        rank: this process's rank.
        ranks: number of ranks.
        drop_last: leave out a last batch that is not full.
    """

    def __init__(
        self, sampler: MixtureSampler, batch_size: int, rank: int = 0, ranks: int = 1, drop_last: bool = False
    ) -> None:
        self.sampler = sampler
        self.batch_size, self.rank, self.ranks = batch_size, rank, ranks
        self.min_draws = batch_size if drop_last else ranks

    def __len__(self) -> int:
        num_whole, rest = divmod(len(self.sampler), self.batch_size)
        return num_whole + (rest >= self.min_draws)

    def __iter__(self) -> Iterator[list[Draw]]:
        """Yield the batches of the sampler's epoch."""
        draws = iter(self.sampler)
        while len(batch := list(islice(draws, self.batch_size))) >= self.min_draws:
            yield batch[len(batch) * self.rank // self.ranks : len(batch) * (self.rank + 1) // self.ranks]


def _apportion(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Return whole numbers in proportion to the shares that add up to the total (largest remainder)."""
    sum_of_shares = sum(shares.values())
    # Rounded down first; then those that lost most get one more each, those of equal loss by their names.
    exact = {task: total * share / sum_of_shares for task, share in shares.items()}
    counts = {task: int(value) for task, value in exact.items()}
    by_remainder = sorted(exact, key=lambda task: (counts[task] - exact[task], task))
    for task in by_remainder[: total - sum(counts.values())]:
        counts[task] += 1
    return counts
