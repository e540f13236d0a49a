"""95 % intervals over clips: how much a figure depends on the clips that happened to be tested.

Means (accuracy, recall, caption scores) have percentile bootstrap intervals. A resample of N clips is a row of N
weights, so a metric sees all resamples as one matrix [R, N]. Where each clip has one label, the resampling is
stratified by it: every resample has the test split's own class sizes, as the published splits are balanced by design.
Of n clips of a class, n - 1 are drawn and count n/(n - 1) times each, which gives their mean its unbiased variance;
plain resampling gives only (n - 1)/n of it, too narrow an interval where classes are small (Rao and Wu 1988). Classes
with a single clip, which would never vary, are resampled as one class.

Areas under curves (average precision, ROC) have jackknife intervals: the figure is computed again without each clip,
and what that changes gives its bias and its standard error. A bootstrap fails here: a clip that is drawn twice stands
beside itself, which makes every resample's average precision too high. And the figure is itself too high on few clips,
which the jackknife takes off the interval; the interval is then widened to hold the figure where it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.stats import t as student

from mint.evaluation.metrics.classification import AREAS
from mint.types import MintError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from mint.evaluation.metrics.classification import Floats, Metric

    Indices = NDArray[np.int64]

LEVEL = (2.5, 97.5)
"""Percentiles of the interval's ends."""
CELLS = 4_000_000
"""The largest number of weights held at a time."""


class Interval(NamedTuple):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


def interval(
    metric: Metric, *arrays: Any, strata: ArrayLike | None = None, seed: int = 0, resamples: int = 1000
) -> Interval:
    """Compute a metric on all clips, and its interval.

    Args:
        metric: one of `mint.evaluation.metrics.classification`, or a mean that is a callable of the same form.
        arrays: its arguments; each is indexed by clip.
        strata: [N]; clips are exchanged only with clips of the same value; for means alone. None: with all.
        seed: the same seed gives the same interval, to the last digit.
        resamples: number of resamples; for areas the largest number of groups of clips that are left out in turn.

    Raises:
        MintError: no clips, or a metric that no resample has.
    """
    return _interval(
        lambda weights: metric(*arrays, weights=weights), len(arrays[0]), metric in AREAS, strata, seed, resamples
    )


def difference(
    metric: Metric,
    first: Sequence[Any],
    second: Sequence[Any],
    *,
    strata: ArrayLike | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> Interval:
    """Compute the metric of `first` minus that of `second` on the same clips (paired: both see the same resamples).

    An interval that excludes 0 says that the two runs differ on clips like these; intervals of the two runs that
    overlap do not say that they agree.

    Raises:
        MintError: as `interval`, or runs over different numbers of clips.
    """
    if len(first[0]) != len(second[0]):
        raise MintError(f"the runs have {len(first[0])} and {len(second[0])} clips; compare them on the same clips")

    def gap(weights: Floats) -> Floats:
        return np.asarray(metric(*first, weights=weights) - metric(*second, weights=weights))

    return _interval(gap, len(first[0]), metric in AREAS, strata, seed, resamples)


def _interval(
    statistic: Callable[[Floats], Floats],
    clips: int,
    area: bool,
    strata: ArrayLike | None,
    seed: int,
    resamples: int,
) -> Interval:
    if clips == 0:
        raise MintError("the split is empty: no clips to measure; check the manifest's split names")
    if area and strata is not None:
        raise MintError("strata are for means; an area under a curve is resampled over all clips")

    # The figure itself is that of all clips, each counted once.
    value = float(statistic(np.ones(clips)))
    if clips == 1:
        return Interval(value, value, value)

    generator = np.random.default_rng(seed)
    if area:
        low, high = _jackknife(statistic, value, clips, min(clips, resamples), generator)
    else:
        low, high = _percentiles(statistic, _groups(clips, strata), clips, resamples, generator)
    # Resamples of very few clips may all lie on one side of it.
    return Interval(value, min(low, value), max(high, value))


def _percentiles(
    statistic: Callable[[Floats], Floats],
    groups: Sequence[Indices],
    clips: int,
    resamples: int,
    generator: np.random.Generator,
) -> tuple[float, float]:
    """Return the ends of the bootstrap interval."""
    values = _in_chunks(statistic, resamples, clips, lambda rows: _weights(groups, clips, len(rows), generator))
    low, high = np.nanpercentile(values, LEVEL)
    return float(low), float(high)


def _jackknife(
    statistic: Callable[[Floats], Floats], value: float, clips: int, count: int, generator: np.random.Generator
) -> tuple[float, float]:
    """Return the ends of the interval of Student's t about the figure without its bias.

    Args:
        statistic: weights [R, N] -> values [R].
        value: that of all clips.
        clips: N.
        count: clips are left out in so many groups, one clip each where it is N.
        generator: shares the clips out to the groups.
    """
    group = np.arange(clips) if count == clips else generator.permutation(clips) % count
    values = _in_chunks(statistic, count, clips, lambda rows: (group != rows[:, None]).astype(np.float64))
    # A group whose clips are the only positives of a label leaves no figure.
    values = values[~np.isnan(values)]

    shift = (len(values) - 1) * (values.mean() - value)
    error = np.sqrt((len(values) - 1) * values.var())
    margin = student.ppf(LEVEL[1] / 100, max(1, len(values) - 1)) * error
    return float(value - shift - margin), float(value - shift + margin)


def _in_chunks(
    statistic: Callable[[Floats], Floats], count: int, clips: int, weights: Callable[[Indices], Floats]
) -> Floats:
    """Compute the statistic for `count` rows of weights, some rows at a time [count]."""
    # A thousand rows of weights for a hundred thousand clips would be 800 MB.
    at_once = max(1, CELLS // clips)
    values = []
    for start in range(0, count, at_once):
        values.append(statistic(weights(np.arange(start, min(start + at_once, count)))))

    together = np.concatenate(values)
    if np.isnan(together).all():
        raise MintError(f"none of {count} resamples of {clips} clips has this figure; the split is too small")
    return together


def _groups(clips: int, strata: ArrayLike | None) -> list[Indices]:
    """Return the clips of each stratum; strata of one clip are put together, with one more where only one is left."""
    if strata is None:
        return [np.arange(clips)]
    _, stratum = np.unique(np.asarray(strata), return_inverse=True)
    if len(stratum) != clips:
        raise MintError(f"{len(stratum)} strata for {clips} clips; give one for each clip")

    groups = [np.flatnonzero(stratum == index) for index in range(stratum.max() + 1)]
    single = [group for group in groups if len(group) == 1]
    larger = sorted((group for group in groups if len(group) > 1), key=len)
    if len(single) == 1 and larger:
        single.append(larger.pop(0))
    return [*larger, np.concatenate(single)] if single else larger


def _weights(groups: Sequence[Indices], clips: int, rows: int, generator: np.random.Generator) -> Floats:
    """Return how much each clip counts in each of `rows` resamples [rows, N]; a group of n clips counts n."""
    weights = np.zeros((rows, clips))
    for group in groups:
        size = len(group)
        draws = max(1, size - 1)
        # The cells of a row follow those of the row before, so that one count serves all rows.
        cells = generator.integers(size, size=(rows, draws)) + np.arange(rows)[:, None] * size
        counts = np.bincount(cells.ravel(), minlength=rows * size).reshape(rows, size)
        weights[:, group] = counts * (size / draws)
    return weights
