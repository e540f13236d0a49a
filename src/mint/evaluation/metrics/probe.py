"""Baselines beside the model: chance, the majority class, and a linear probe on the same frozen features.

The probe answers "what does the frozen encoder alone know?": logistic regression on the mean over time of its features,
each feature standardised, the strength of the penalty chosen on the validation split. Nothing here is random: the loss
of a penalised logistic regression has one minimum, and Newton's method goes all the way to it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
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
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from mint.evaluation.metrics.classification import Bools, Floats

STRENGTHS = tuple(10.0**power for power in range(-5, 4))
"""Inverse strengths of the penalty (scikit-learn's C) that are tried, the strongest penalty first.

At the first the probe knows little more than the mean of each class, at the last there is hardly a penalty left.
"""
TOLERANCE = 1e-5
"""The fit ends where no derivative of the mean loss is larger."""
MAX_ITERATIONS = 1000
"""Newton needs about ten iterations; a fit that has not ended after so many is no candidate."""


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
        """Return the log-probability of each class [N, C], of mean-pooled features [N, D]."""
        scaled = self.scaler.transform(_features(features))
        if len(self.models) == 1:
            scores = np.full((len(scaled), self.classes), -np.inf)  # a class that was never seen is never chosen
            scores[:, self.models[0].classes_] = self.models[0].predict_log_proba(scaled)
            return scores

        columns = []
        for model in self.models:
            # Column 1 is the class True; a float stands for a class that all training clips answer alike.
            constant = isinstance(model, float)
            columns.append(np.full(len(scaled), model) if constant else model.predict_log_proba(scaled)[:, 1])
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

    fits = _fit_all(scaled, wanted)
    candidates = [Probe(scaler, [model], classes, strength) for strength, model in fits.items()]
    return _best(candidates, lambda probe: float(accuracy(probe.scores(validation), validation_labels)))


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

    columns = []
    for class_positive, class_listened in zip(positive.T, listened.T, strict=True):
        columns.append(_fit_class(scaled, class_positive, class_listened))
    candidates = []
    for strength in STRENGTHS:
        # One penalty for all classes, and so one at which all of them converged.
        if all(strength in fits for fits in columns):
            candidates.append(Probe(scaler, [fits[strength] for fits in columns], positive.shape[1], strength))

    def precision(probe: Probe) -> float:
        return float(mean_average_precision(probe.scores(validation), validation_truth, validation_known))

    return _best(candidates, precision)


def majority_scores(labels: ArrayLike, clips: int, classes: int) -> Floats:
    """Return the scores [clips, C] of always answering the most frequent training label (the first of equals)."""
    wanted = np.asarray(labels)
    if wanted.size == 0:
        raise MintError("the training split is empty; there is no majority class")
    scores = np.zeros((clips, classes))
    scores[:, np.bincount(wanted, minlength=classes).argmax()] = 1.0
    return scores


def chance_accuracy(classes: int) -> float:
    """Return the accuracy of guessing: 1/C."""
    return 1 / classes


def chance_average_precision(truth: ArrayLike, known: ArrayLike | None = None) -> float:
    """Return the mean average precision of guessing on these very clips: the exact average over all orders.

    Of n clips with p positives it is ((p - 1)/(n - 1) (n - H) + H)/n with H = 1 + 1/2 + ... + 1/n. It comes down to the
    share of positives, p/n, only where there are many: on 150 clips with 20 positives guessing has 16.0 %, not 13.3 %.
    """
    scored = scored_classes(truth, known)
    if not scored.any():
        raise MintError("no class has a known positive in this split; the prior does not exist")
    positive = np.asarray(truth, dtype=np.float64)
    listened = ~np.isnan(positive) if known is None else np.asarray(known, dtype=bool) & ~np.isnan(positive)

    values = []
    for class_positive, class_listened in zip(positive.T[scored], listened.T[scored], strict=True):
        count = np.count_nonzero(class_listened)
        positives = class_positive[class_listened].sum()
        harmonic = (1 / np.arange(1, count + 1)).sum()
        # Above a positive at rank k stand (k - 1) others, of which so large a share is positive.
        others = (positives - 1) / max(1, count - 1)
        values.append((others * (count - harmonic) + harmonic) / count)
    return float(np.mean(values))


def _scaled(features: ArrayLike) -> tuple[Any, Floats]:
    # The penalty holds for all features alike, whatever their units.
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


def _best(candidates: Sequence[Probe], quality: Callable[[Probe], float]) -> Probe:
    """Return the probe that is best on the validation split; of equals that with the strongest penalty."""
    if not candidates:
        raise MintError(
            f"the probe did not converge in {MAX_ITERATIONS} iterations at any penalty; check the encoder's output"
        )
    # `max` gives the first of equals, and they come in the order of `STRENGTHS`.
    return max(candidates, key=quality)


def _fit_class(scaled: Floats, positive: Bools, listened: Bools) -> dict[float, Any]:
    """Return a model of one class for each strength, or its constant score where the clips show one answer only."""
    rows = np.flatnonzero(listened)
    if len(np.unique(positive[rows])) == 2:
        return _fit_all(scaled[rows], positive[rows])
    return dict.fromkeys(STRENGTHS, 0.0 if len(rows) and positive[rows[0]] else -np.inf)


def _fit_all(scaled: Floats, labels: Any) -> dict[float, Any]:
    """Return the model of each strength; a strength at which the fit does not converge is left out."""
    fitted: dict[float, Any] = {}
    start: Any = None
    for strength in STRENGTHS:
        model = LogisticRegression(
            C=strength, solver="newton-cg", tol=TOLERANCE, max_iter=MAX_ITERATIONS, warm_start=True
        )
        if start is not None:  # from the solution under the stronger penalty it is not far
            model.coef_, model.intercept_ = start.coef_.copy(), start.intercept_.copy()

        # One thread is faster on matrices of this size, and the result does not depend on the number of cores.
        with threadpool_limits(1), warnings.catch_warnings():
            # scikit-learn only warns of a fit that did not converge, and gives its coefficients all the same.
            warnings.simplefilter("error", ConvergenceWarning)
            warnings.filterwarnings("error", "Line Search failed")
            try:
                fitted[strength] = start = model.fit(scaled, labels)
            except (ConvergenceWarning, UserWarning):
                continue
    return fitted
