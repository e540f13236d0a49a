"""Metrics of closed-set tasks, computed for many weightings of the clips at once.

Accuracy, mean average precision (PR-AUC in the paper's Table 2) and ROC-AUC are scikit-learn's, ties and sample weights
included; the tests hold them equal. They are written out here because a bootstrap needs each of them for a thousand
weightings of the same clips, which one cumulative sum answers and a thousand calls of scikit-learn do not.

Conventions: `scores [N, C]` float, higher is better; `labels [N]` int, or `truth [N, C]` bool with `known [N, C]` bool
(False: nobody listened, as in OpenMIC; a NaN in a float `truth` says the same). `weights [..., N]` says how often each
clip counts; a result has the shape `...`, so that `float(accuracy(scores, labels))` is the plain figure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import log_softmax

from mint.types import MintError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]


PAIRS_AT_ONCE = 4_000_000
"""Weights of pairs of clip and class that are held at a time."""
Metric = Callable[..., "Floats"]
"""A figure that exists for every weighting of the clips: metric(*arrays, weights=[..., N]) -> [...]."""


def accuracy(scores: ArrayLike, labels: ArrayLike, *, weights: Floats | None = None) -> Floats:
    """Return the share of clips whose label scores strictly above every other; a tie for the first is a mistake.

    Counting ties as mistakes makes the figure independent of the order of the labels: constant scores give 0.

    Raises:
        MintError: no clips, fewer than two classes, NaN scores, or a label outside the classes.
    """
    return mean(hits(scores, labels), weights=weights)


def hits(scores: ArrayLike, labels: ArrayLike) -> Floats:
    """Return 1.0 for each clip that `accuracy` counts as right, else 0.0 [N]."""
    values, wanted = _scores(scores), _labels(labels)
    if len(wanted) != len(values):
        raise MintError(f"{len(values)} rows of scores but {len(wanted)} labels; give one label for each clip")
    outside = wanted[(wanted < 0) | (wanted >= values.shape[1])]
    if outside.size:
        raise MintError(f"label {outside[0]} is outside the {values.shape[1]} classes; labels count from 0")

    # Exactly one score at least as high as the label's: its own.
    score_of_label = np.take_along_axis(values, wanted[:, None], axis=1)  # [N, 1]
    return np.asarray((values >= score_of_label).sum(axis=1) == 1, dtype=np.float64)


def mean_average_precision(
    scores: ArrayLike, truth: ArrayLike, known: ArrayLike | None = None, *, weights: Floats | None = None
) -> Floats:
    """Return the average precision over the clips known for a class, averaged over the classes with a positive.

    Raises:
        MintError: no clips, fewer than two classes, NaN scores, shapes that differ, or no class with a positive.
    """
    return _macro(_average_precision, scores, truth, known, weights, negatives=False)


def roc_auc(
    scores: ArrayLike, truth: ArrayLike, known: ArrayLike | None = None, *, weights: Floats | None = None
) -> Floats:
    """Return the area under the ROC curve of a class, averaged over the classes with a positive and a negative.

    Raises:
        MintError: as `mean_average_precision`.
    """
    return _macro(_area_under_roc, scores, truth, known, weights, negatives=True)


def micro_average_precision(
    scores: ArrayLike, truth: ArrayLike, known: ArrayLike | None = None, *, weights: Floats | None = None
) -> Floats:
    """Return the average precision over all known pairs of clip and class together: frequent classes count more.

    Raises:
        MintError: as `mean_average_precision`, or no known positive.
    """
    return _micro(_average_precision, scores, truth, known, weights)


def micro_roc_auc(
    scores: ArrayLike, truth: ArrayLike, known: ArrayLike | None = None, *, weights: Floats | None = None
) -> Floats:
    """Return the area under the ROC curve over all known pairs of clip and class, ranked together.

    Raises:
        MintError: as `mean_average_precision`, or no known positive or no known negative.
    """
    return _micro(_area_under_roc, scores, truth, known, weights)


AREAS: frozenset[Metric] = frozenset({mean_average_precision, roc_auc, micro_average_precision, micro_roc_auc})
"""Metrics that are areas under curves, in contrast to means over clips: their intervals are computed otherwise."""


def among_labels(scores: ArrayLike) -> Floats:
    """Return the log-probability of each label among the labels that were given [N, C], from log-likelihoods [N, C].

    The log-likelihood of a text is not comparable between clips: some clips make all texts less likely. Where clips are
    ranked by one label, as average precision ranks them, its share among the labels is what counts: the paper restricts
    the vocabulary to the candidates. The order of a clip's labels stays the same.

    Raises:
        MintError: as `mean_average_precision`.
    """
    return np.asarray(log_softmax(_scores(scores), axis=1))


def scored_classes(truth: ArrayLike, known: ArrayLike | None = None, *, negatives: bool = False) -> Bools:
    """Return which classes enter a macro average [C]: those with a known positive (and, if asked, a negative)."""
    positive, listened = _truth(truth, known)
    scored = (positive & listened).any(axis=0)
    return np.asarray(scored & (~positive & listened).any(axis=0) if negatives else scored)


def mean(values: ArrayLike, *, weights: Floats | None = None) -> Floats:
    """Return the mean of one value for each clip [N]: recalls, caption scores."""
    return ratio(values, np.ones(len(np.asarray(values))), weights=weights)


def ratio(sums: ArrayLike, counts: ArrayLike, *, weights: Floats | None = None) -> Floats:
    """Return the mean of several values for each clip, given their sum [N] and number [N]."""
    total, number = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    if total.size == 0:
        raise MintError("the split is empty: no clips to measure; check the manifest's split names")
    if np.isnan(total).any():
        raise MintError(f"{np.isnan(total).sum()} of {len(total)} values are NaN; no figure can be given")
    # Weights of many resamples [..., N] give as many means in one product.
    weights = np.ones(len(total)) if weights is None else weights
    return np.asarray(weights @ total / (weights @ number))


def _macro(
    area: Any,
    scores: ArrayLike,
    truth: ArrayLike,
    known: ArrayLike | None,
    weights: Floats | None,
    *,
    negatives: bool,
) -> Floats:
    values, positive, listened = _checked(scores, truth, known)
    classes = np.flatnonzero(scored_classes(positive, listened, negatives=negatives))
    if classes.size == 0:
        raise MintError(
            f"none of the {values.shape[1]} classes has a known positive{' and negative' if negatives else ''} "
            f"in these {len(values)} clips; the figure does not exist"
        )

    weights = np.ones(len(values)) if weights is None else weights
    of_classes = []
    for index in classes.tolist():
        of_classes.append(area(*_cumulated(values, positive, listened, weights, index)))
    areas = np.stack(of_classes)  # [C, ...]

    # A resample may lack a class, which then does not count in it; one that lacks all is NaN.
    exists = ~np.isnan(areas)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(exists, areas, 0.0).sum(axis=0) / exists.sum(axis=0))


def _micro(area: Any, scores: ArrayLike, truth: ArrayLike, known: ArrayLike | None, weights: Floats | None) -> Floats:
    """Return the area of a single class whose members are the known pairs of all classes."""
    values, positive, listened = _checked(scores, truth, known)
    clips, classes = np.nonzero(listened)
    right = positive[clips, classes]
    if not right.any() or (area is _area_under_roc and right.all()):
        raise MintError(
            f"the {right.size} known pairs of clip and class are all {'positive' if right.any() else 'negative'}; "
            "the figure does not exist"
        )

    # [P, 1] each, for P pairs.
    one_class = values[clips, classes][:, None], right[:, None], np.ones((len(clips), 1), dtype=bool)
    weights = np.ones(len(values)) if weights is None else weights
    resamples = weights.reshape(-1, len(values))

    # Some resamples at a time: each holds a weight for every pair.
    at_once = max(1, PAIRS_AT_ONCE // len(clips))
    areas = []
    for first in range(0, len(resamples), at_once):
        pair_weights = resamples[first : first + at_once][:, clips]
        areas.append(area(*_cumulated(*one_class, pair_weights, 0)))
    return np.asarray(np.concatenate(areas).reshape(weights.shape[:-1]))


def _checked(scores: ArrayLike, truth: ArrayLike, known: ArrayLike | None) -> tuple[Floats, Bools, Bools]:
    """Return scores, truth and what is known, all [N, C]."""
    values = _scores(scores)
    positive, listened = _truth(truth, known)
    if positive.shape != values.shape:
        raise MintError(f"scores have shape {values.shape} but truth {positive.shape}; both must be [clips, classes]")
    return values, positive, listened


def _cumulated(scores: Floats, positive: Bools, listened: Bools, weights: Floats, index: int) -> tuple[Floats, Floats]:
    """Return the weight of positives and negatives at or above each distinct score of a class, highest first [..., K].

    The class is the one at `index`.
    """
    # Clips that nobody listened to for this class are in neither count.
    rows = np.flatnonzero(listened[:, index])
    rows = rows[np.argsort(-scores[rows, index], kind="stable")]

    # Equal scores enter together, so that their order does not matter.
    ranked = scores[rows, index]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))

    counted, right = weights[..., rows], positive[rows, index]
    return np.cumsum(counted * right, axis=-1)[..., ends], np.cumsum(counted * ~right, axis=-1)[..., ends]


def _average_precision(positives: Floats, negatives: Floats) -> Floats:
    # The precision at each distinct score counts for the positives that enter with it.
    entered = np.diff(positives, axis=-1, prepend=0.0)
    total = positives + negatives
    precision = np.divide(positives, total, out=np.zeros_like(total), where=total > 0)
    return _share((entered * precision).sum(axis=-1), positives[..., -1])


def _area_under_roc(positives: Floats, negatives: Floats) -> Floats:
    # Trapezia: a positive and a negative of equal score count one half.
    width = np.diff(negatives, axis=-1, prepend=0.0)
    height = positives - np.diff(positives, axis=-1, prepend=0.0) / 2
    return _share((width * height).sum(axis=-1), positives[..., -1] * negatives[..., -1])


def _share(part: Floats, whole: Floats) -> Floats:
    """Return part / whole, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _scores(scores: ArrayLike) -> Floats:
    """Return scores [N, C], refusing what no metric can use."""
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2:
        raise MintError(f"scores have shape {values.shape}; they must be [clips, classes]")
    if len(values) == 0:
        raise MintError("the split is empty: no clips to measure; check the manifest's split names")
    if values.shape[1] < 2:
        raise MintError("there is only one class; give at least two labels to choose from")
    if np.isnan(values).any():
        rows = np.flatnonzero(np.isnan(values).any(axis=1))
        raise MintError(f"the scores of {len(rows)} of {len(values)} clips are NaN, the first in row {rows[0]}")
    return values


def _labels(labels: ArrayLike) -> NDArray[np.int64]:
    """Return labels [N], refusing what is not one integer for each clip."""
    wanted = np.asarray(labels)
    if wanted.ndim != 1 or not np.issubdtype(wanted.dtype, np.integer):
        raise MintError(f"labels have shape {wanted.shape} and type {wanted.dtype}; they must be [clips] integers")
    return wanted.astype(np.int64)


def _truth(truth: ArrayLike, known: ArrayLike | None) -> tuple[Bools, Bools]:
    """Return truth and what is known [N, C]; a NaN in the truth is unknown."""
    values = np.asarray(truth)
    unknown = np.isnan(values) if np.issubdtype(values.dtype, np.floating) else np.zeros(values.shape, dtype=bool)
    listened = np.ones(values.shape, dtype=bool) if known is None else np.asarray(known, dtype=bool)

    if listened.shape != values.shape:
        raise MintError(f"truth has shape {values.shape} but known {listened.shape}; they must be the same")
    return np.where(unknown, 0, values).astype(bool), listened & ~unknown
