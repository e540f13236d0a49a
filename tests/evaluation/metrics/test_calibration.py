"""Reliability diagrams against their definition and scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from mint.evaluation.metrics.calibration import calibrate
from mint.types import MintError

GENERATOR = np.random.default_rng(0)
SCORES, LABELS = GENERATOR.normal(size=(300, 4)) * 2, GENERATOR.integers(4, size=300)


def softmax(scores: Any) -> Any:
    return np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)


def test_bins_equal_scikit_learns() -> None:
    found = calibrate(SCORES, LABELS, bins=8)
    confidence, right = softmax(SCORES).max(axis=1), SCORES.argmax(axis=1) == LABELS
    accuracy, mean = calibration_curve(right, confidence, n_bins=8)
    np.testing.assert_allclose(found.accuracy, accuracy)
    np.testing.assert_allclose(found.confidence, mean)
    assert sum(found.clips) == 300


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_error_is_its_definition(temperature: float) -> None:
    beliefs, right = softmax(SCORES / temperature), SCORES.argmax(axis=1) == LABELS
    confidence, total = beliefs.max(axis=1), 0.0
    for low in np.arange(10) / 10:
        inside = (confidence >= low) & (confidence < low + 0.1 + (low == 0.9))
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert calibrate(SCORES, LABELS, temperature=temperature).error == pytest.approx(total, abs=1e-12)


def test_a_model_that_means_what_it_says_has_a_small_error() -> None:
    generator = np.random.default_rng(1)
    scores = generator.normal(size=(20_000, 3)) * 2
    drawn = (softmax(scores).cumsum(axis=1) < generator.random((20_000, 1))).sum(axis=1)
    assert calibrate(scores, drawn).error < 0.02
    assert calibrate(scores * 5, drawn).error > 0.1


def test_large_scores_do_not_overflow_and_the_order_of_labels_does_not_matter() -> None:
    found = calibrate(np.array([[-4000.0, -5000.0], [-100.0, -90.0]]), [0, 0])
    assert found.clips == (2,)
    assert found.error == pytest.approx(0.5, abs=1e-4)
    order = np.array([2, 0, 3, 1])
    shuffled = calibrate(SCORES[:, order], np.argsort(order)[LABELS])
    assert shuffled.error == pytest.approx(calibrate(SCORES, LABELS).error, abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "labels", "options", "words"),
    [
        (np.zeros((0, 2)), np.zeros(0, dtype=int), {}, "split is empty"),
        (np.zeros((2, 1)), [0, 0], {}, "only one class"),
        ([[np.nan, 0.0]], [0], {}, "are NaN"),
        ([[-np.inf, 0.0]], [0], {}, "infinite"),
        ([[1.0, 0.0]], [0], {"temperature": 0.0}, "temperature is 0.0"),
    ],
)
def test_mistakes_are_named(scores: Any, labels: Any, options: Any, words: str) -> None:
    with pytest.raises(MintError, match=words):
        calibrate(scores, labels, **options)
