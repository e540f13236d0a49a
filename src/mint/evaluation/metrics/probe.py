"""Baselines beside the model: chance, the majority class, and a linear probe on the same frozen features.

The probe answers "what does the frozen encoder alone know?": logistic regression on the mean over time of its features,
each feature standardised, the strength of the penalty chosen on the validation split. Nothing here is random.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from mint.evaluation.metrics.classification import accuracy, mean_average_precision, scored_classes
from mint.types import MintError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from mint.evaluation.metrics.classification import Bools, Floats

STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""Inverse strengths of the penalty (scikit-learn's C) that are tried, the strongest penalty first."""
MAX_ITERATIONS = 500


@dataclass(frozen=True)
class Probe:
    """A fitted linear probe."""

    scaler: Any
    models: Sequence[Any]
    """One model of all classes, or one for each class; a float where the training data show one answer only."""
    classes: int
    strength: float
    """The C that did best on the validation split."""

    def scores(self, features: ArrayLike) -> Floats:
        """Log-probability of each class [N, C], of mean-pooled features [N, D]."""
        scaled = self.scaler.transform(_features(features))
        if len(self.models) == 1:
            scores = np.full((len(scaled), self.classes), -np.inf)  # a class that was never seen is never chosen
            scores[:, self.models[0].classes_] = self.models[0].predict_log_proba(scaled)
            return scores
        columns = [
            np.full(len(scaled), model) if isinstance(model, float) else model.predict_log_proba(scaled)[:, 1]
            for model in self.models
        ]
        return np.stack(columns, axis=1)


def fit_probe(
    features: ArrayLike,
    labels: ArrayLike,
    validation: ArrayLike,
    validation_labels: ArrayLike,
    classes: int,
) -> Probe:
    """Fit a probe of one label for each clip.

    Args:
        features: [N, D] of the training split, the mean over the real frames.
        labels: [N] int.
        validation: [V, D]; accuracy on it chooses the penalty, the strongest one of several that are equally good.
        validation_labels: [V] int.
        classes: C.

    Raises:
        MintError: an empty split, features that are not finite, fewer than two classes in training.
    """
    scaler, scaled = _scaled(features)
    wanted = np.asarray(labels)
    if len(np.unique(wanted)) < 2:
        raise MintError(f"all {len(wanted)} training clips have one label; a probe needs at least two")
    fitted = [Probe(scaler, [_fit(scaled, wanted, strength)], classes, strength) for strength in STRENGTHS]
    return max(fitted, key=lambda probe: float(accuracy(probe.scores(validation), validation_labels)))


def fit_multilabel_probe(
    features: ArrayLike,
    truth: ArrayLike,
    validation: ArrayLike,
    validation_truth: ArrayLike,
    known: ArrayLike | None = None,
    validation_known: ArrayLike | None = None,
) -> Probe:
    """Fit one probe for each class, on the clips that are known for it; mean average precision chooses the penalty.

    Args:
        features: [N, D] of the training split, the mean over the real frames.
        truth: [N, C] bool.
        validation: [V, D].
        validation_truth: [V, C] bool.
        known: [N, C] bool; None: all.
        validation_known: [V, C] bool; None: all.

    Raises:
        MintError: as `fit_probe`, or no class with a positive in the validation split.
    """
    scaler, scaled = _scaled(features)
    positive = np.asarray(truth, dtype=bool)
    listened = np.ones_like(positive) if known is None else np.asarray(known, dtype=bool)
    if positive.ndim != 2 or len(positive) != len(scaled) or positive.shape[1] < 2:
        raise MintError(f"truth has shape {positive.shape} for {len(scaled)} clips; it must be [clips, two or more]")
    fitted = []
    for strength in STRENGTHS:
        models = [_fit_class(scaled, *column, strength) for column in zip(positive.T, listened.T, strict=True)]
        fitted.append(Probe(scaler, models, positive.shape[1], strength))

    def precision(probe: Probe) -> float:
        return float(mean_average_precision(probe.scores(validation), validation_truth, validation_known))

    return max(fitted, key=precision)


def majority_scores(labels: ArrayLike, clips: int, classes: int) -> Floats:
    """Scores [clips, C] of always answering the most frequent label of the training split (the first of equals)."""
    wanted = np.asarray(labels)
    if wanted.size == 0:
        raise MintError("the training split is empty; there is no majority class")
    scores = np.zeros((clips, classes))
    scores[:, np.bincount(wanted, minlength=classes).argmax()] = 1.0
    return scores


def chance_accuracy(classes: int) -> float:
    """Accuracy of guessing: 1/C."""
    return 1 / classes


def chance_average_precision(truth: ArrayLike, known: ArrayLike | None = None) -> float:
    """Mean average precision of guessing, in the limit of many clips: each class's share of positives, averaged."""
    scored = scored_classes(truth, known)
    if not scored.any():
        raise MintError("no class has a known positive in this split; the prior does not exist")
    positive = np.asarray(truth, dtype=np.float64)
    listened = ~np.isnan(positive) if known is None else np.asarray(known, dtype=bool) & ~np.isnan(positive)
    found = np.where(listened, positive, 0.0).sum(axis=0)
    return float((found[scored] / listened.sum(axis=0)[scored]).mean())


def _scaled(features: ArrayLike) -> tuple[Any, Floats]:
    values = _features(features)
    scaler = StandardScaler().fit(values)
    return scaler, scaler.transform(values)


def _features(features: ArrayLike) -> Floats:
    values = np.asarray(features, dtype=np.float64)
    if values.ndim != 2 or len(values) == 0:
        raise MintError(f"probe features have shape {values.shape}; they must be [clips, width] with at least one clip")
    if not np.isfinite(values).all():
        raise MintError("the probe's features hold NaN or infinite values; check the encoder's output")
    return values


def _fit_class(scaled: Floats, positive: Bools, listened: Bools, strength: float) -> Any:
    rows = np.flatnonzero(listened)
    if len(np.unique(positive[rows])) == 2:
        return _fit(scaled[rows], positive[rows], strength)
    return 0.0 if len(rows) and positive[rows[0]] else -np.inf


def _fit(scaled: Floats, labels: Any, strength: float) -> Any:
    model = LogisticRegression(C=strength, max_iter=MAX_ITERATIONS)
    with threadpool_limits(1), warnings.catch_warnings():
        # One thread is faster on matrices of this size, and the result does not depend on the number of cores. A weak
        # penalty may still creep on separable data when the iterations end; the ranking has long settled.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(scaled, labels)
