"""95 % percentile bootstrap intervals over clips.

A resample of N clips is a row of N counts, so a metric sees all resamples as one matrix of weights [R, N]. Where each
clip has one label, the resampling is stratified by it: every resample has the test split's own class sizes, as the
published splits are balanced by design. A class with a single clip then never varies, and the interval leaves that out.
Average precision of a resample is biased upwards (a clip drawn twice stands beside itself), so the percentiles can miss
the figure itself near chance; the interval is then widened to hold it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mint.types import MintError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

    from mint.evaluation.metrics.classification import Floats, Metric

LEVEL = (2.5, 97.5)
"""Percentiles of the interval's ends."""
CELLS = 4_000_000
"""Largest matrix of weights held at a time."""


class Interval(NamedTuple):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


def interval(
    metric: Metric, *arrays: Any, strata: ArrayLike | None = None, seed: int = 0, resamples: int = 1000
) -> Interval:
    """A metric on all clips, and the interval that resampling the clips gives.

    Args:
        metric: one of `mint.evaluation.metrics.classification`, or any callable of the same form.
        arrays: its arguments; each is indexed by clip.
        strata: [N]; clips are exchanged only with clips of the same value. None: with all.
        seed: the same seed gives the same interval, to the last digit.
        resamples: number of resamples.

    Raises:
        MintError: no clips, or a metric that no resample has.
    """
    return _percentiles(lambda weights: metric(*arrays, weights=weights), len(arrays[0]), strata, seed, resamples)


def difference(
    metric: Metric,
    first: Sequence[Any],
    second: Sequence[Any],
    *,
    strata: ArrayLike | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> Interval:
    """Metric of `first` minus metric of `second` on the same clips (paired: both see the same resamples).

    An interval that excludes 0 says that the two runs differ on clips like these; intervals of the two runs that
    overlap do not say that they agree.

    Raises:
        MintError: as `interval`, or runs over different numbers of clips.
    """
    if len(first[0]) != len(second[0]):
        raise MintError(f"the runs have {len(first[0])} and {len(second[0])} clips; compare them on the same clips")

    def gap(weights: Floats) -> Floats:
        return np.asarray(metric(*first, weights=weights) - metric(*second, weights=weights))

    return _percentiles(gap, len(first[0]), strata, seed, resamples)


def _percentiles(
    statistic: Callable[[Floats], Floats], clips: int, strata: ArrayLike | None, seed: int, resamples: int
) -> Interval:
    if clips == 0:
        raise MintError("the split is empty: no clips to measure; check the manifest's split names")
    value = float(statistic(np.ones(clips)))
    groups = _groups(clips, strata)
    generator = np.random.default_rng(seed)
    rows = max(1, CELLS // clips)
    drawn = [
        statistic(_counts(groups, clips, min(rows, resamples - start), generator))
        for start in range(0, resamples, rows)
    ]
    values = np.concatenate(drawn)
    if np.isnan(values).all():
        raise MintError(f"none of {resamples} resamples of {clips} clips has this figure; the split is too small")
    low, high = np.nanpercentile(values, LEVEL)
    return Interval(value, min(float(low), value), max(float(high), value))


def _groups(clips: int, strata: ArrayLike | None) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    if strata is None:
        return [np.arange(clips)]
    _, group = np.unique(np.asarray(strata), return_inverse=True)
    if len(group) != clips:
        raise MintError(f"{len(group)} strata for {clips} clips; give one for each clip")
    return [np.flatnonzero(group == one) for one in range(group.max() + 1)]


def _counts(
    groups: list[np.ndarray[Any, np.dtype[np.int64]]], clips: int, rows: int, generator: np.random.Generator
) -> Floats:
    """How often each clip is drawn in each of `rows` resamples [rows, N]."""
    counts = np.zeros((rows, clips))
    for group in groups:
        cells = generator.integers(len(group), size=(rows, len(group))) + np.arange(rows)[:, None] * len(group)
        counts[:, group] = np.bincount(cells.ravel(), minlength=rows * len(group)).reshape(rows, len(group))
    return counts
