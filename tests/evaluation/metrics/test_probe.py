"""Baselines: the probe learns what is linear, is deterministic and quiet; chance and majority are what they say."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from mint.evaluation.metrics import probe
from mint.evaluation.metrics.classification import accuracy, mean_average_precision
from mint.evaluation.metrics.probe import (
    chance_accuracy,
    chance_average_precision,
    fit_multilabel_probe,
    fit_probe,
    majority_scores,
)
from mint.types import MintError


def blobs(clips: int, seed: int, noise: float = 0.3) -> tuple[Any, Any]:
    centres = np.random.default_rng(99).normal(size=(4, 12))
    generator = np.random.default_rng(seed)
    labels = generator.integers(4, size=clips)
    return centres[labels] * 50 + 7 + 50 * noise * generator.normal(size=(clips, 12)), labels


def test_probe_learns_separable_classes_and_repeats_itself() -> None:
    (train, labels), (validation, wanted), (test, answers) = blobs(120, 0), blobs(40, 1), blobs(40, 2)
    first = fit_probe(train, labels, validation, wanted, 4)
    assert float(accuracy(first.scores(test), answers)) > 0.95
    np.testing.assert_allclose(np.exp(first.scores(test)).sum(axis=1), 1.0)
    second = fit_probe(train, labels, validation, wanted, 4)
    np.testing.assert_array_equal(first.scores(test), second.scores(test))


def test_penalty_is_the_best_on_validation() -> None:
    (train, labels), (validation, wanted) = blobs(60, 0, noise=2.0), blobs(200, 1, noise=2.0)
    chosen = fit_probe(train, labels, validation, wanted, 4)
    best = {}
    for strength in probe.STRENGTHS:
        scaler, scaled = probe._scaled(train)
        one = probe.Probe(scaler, [probe._fit(scaled, labels, strength)], 4, strength)
        best[strength] = float(accuracy(one.scores(validation), wanted))
    assert best[chosen.strength] == max(best.values())
    assert len(set(best.values())) > 1


def test_a_class_that_was_never_seen_is_never_chosen() -> None:
    train, labels = blobs(60, 0)
    kept = labels != 2
    fitted = fit_probe(train[kept], labels[kept], train, labels, 4)
    scores = fitted.scores(train)
    assert scores.shape == (60, 4)
    assert (scores.argmax(axis=1) != 2).all()
    assert not np.isnan(scores).any()


def test_multilabel_probe_ignores_what_is_unknown() -> None:
    train, labels = blobs(200, 0)
    test, answers = blobs(60, 2)
    truth, wanted = np.eye(4, dtype=bool)[labels], np.eye(4, dtype=bool)[answers]
    known = np.random.default_rng(0).random(truth.shape) < 0.5
    fitted = fit_multilabel_probe(train, truth, test, wanted, known)
    assert float(mean_average_precision(fitted.scores(test), wanted)) > 0.95
    flipped = fit_multilabel_probe(train, truth ^ ~known, test, wanted, known)
    np.testing.assert_array_equal(flipped.scores(test), fitted.scores(test))


def test_multilabel_probe_with_a_class_of_one_answer() -> None:
    train, labels = blobs(60, 0)
    truth = np.eye(4, dtype=bool)[labels]
    truth[:, 1], truth[:, 3] = False, True
    scores = fit_multilabel_probe(train, truth, train, truth).scores(train)
    assert (scores[:, 1] == -np.inf).all()
    assert (scores[:, 3] == 0).all()


def test_no_warning_reaches_the_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "MAX_ITERATIONS", 1)
    train, labels = blobs(60, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_probe(train, labels, train, labels, 4)


def test_majority_always_answers_the_most_frequent_label() -> None:
    scores = majority_scores([2, 0, 2, 1], 5, 4)
    assert float(accuracy(scores, [2, 2, 0, 1, 3])) == pytest.approx(0.4)


def test_chance_of_a_random_ranking() -> None:
    assert chance_accuracy(11) == pytest.approx(1 / 11)
    generator = np.random.default_rng(0)
    truth, known = generator.random((4000, 5)) < [0.05, 0.2, 0.3, 0.6, 0], generator.random((4000, 5)) < 0.7
    guessed = float(mean_average_precision(generator.random((4000, 5)), truth, known))
    assert chance_average_precision(truth, known) == pytest.approx(guessed, abs=0.02)
    expected = np.mean([truth[known[:, c], c].mean() for c in range(4)])  # the last class has no positive
    assert chance_average_precision(truth, known) == pytest.approx(expected)
    holes = np.where(known, truth, np.nan)
    assert chance_average_precision(holes) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fit_probe(np.zeros((0, 3)), [], np.zeros((1, 3)), [0], 2), r"shape \(0, 3\)"),
        (lambda: fit_probe([[0.0], [np.inf]], [0, 1], [[0.0]], [0], 2), "NaN or infinite"),
        (lambda: fit_probe([[0.0], [1.0]], [1, 1], [[0.0]], [0], 2), "all 2 training clips have one label"),
        (lambda: fit_multilabel_probe([[0.0]], [[True]], [[0.0]], [[True]]), r"truth has shape \(1, 1\)"),
        (lambda: majority_scores([], 3, 2), "training split is empty"),
        (lambda: chance_average_precision(np.zeros((3, 2))), "no class has a known positive"),
    ],
)
def test_mistakes_are_named(call: Any, words: str) -> None:
    with pytest.raises(MintError, match=words):
        call()
