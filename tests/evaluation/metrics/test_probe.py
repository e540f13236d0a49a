"""Baselines: the probe learns what is linear, is deterministic and quiet; chance and majority are what they say."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

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
    scaler, scaled = probe._scaled(train)
    for strength, model in probe._fit_all(scaled, labels).items():
        one = probe.Probe(scaler, [model], 4, strength)
        best[strength] = float(accuracy(one.scores(validation), wanted))
    assert tuple(best) == probe.STRENGTHS
    assert best[chosen.strength] == max(best.values())
    assert len(set(best.values())) > 1
    assert chosen.strength not in (probe.STRENGTHS[0], probe.STRENGTHS[-1])


def test_fits_end_at_the_minimum_whatever_their_start() -> None:
    """The derivative of the penalised loss vanishes, written plainly; more features than clips, classes separable."""
    generator = np.random.default_rng(0)
    labels = np.arange(30) % 3
    scaled = generator.normal(size=(30, 50)) + labels[:, None]
    for strength, model in probe._fit_all(scaled, labels).items():
        error = model.predict_proba(scaled) - np.eye(3)[labels]
        slope = error.T @ scaled / 30 + model.coef_ / (30 * strength)
        assert np.abs(slope).max() <= 1.01e-5
        assert np.abs(error.sum(axis=0) / 30).max() <= 1.01e-5


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


def test_a_fit_that_does_not_converge_is_no_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    (train, labels), (validation, wanted) = blobs(60, 0, noise=2.0), blobs(200, 1, noise=2.0)
    scaled = probe._scaled(train)[1]
    iterations = {strength: int(model.n_iter_[0]) for strength, model in probe._fit_all(scaled, labels).items()}
    most = sorted(iterations.values())[4]
    monkeypatch.setattr(probe, "MAX_ITERATIONS", most)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = probe._fit_all(scaled, labels)
        assert 0 < len(kept) < len(probe.STRENGTHS)
        assert fit_probe(train, labels, validation, wanted, 4).strength in kept
        monkeypatch.setattr(probe, "MAX_ITERATIONS", 1)
        monkeypatch.setattr(probe, "STRENGTHS", (1.0, 10.0))
        with pytest.raises(MintError, match="did not converge in 1 iterations"):
            fit_probe(train, labels, validation, wanted, 4)


def test_majority_always_answers_the_most_frequent_label() -> None:
    scores = majority_scores([2, 0, 2, 1], 5, 4)
    assert float(accuracy(scores, [2, 2, 0, 1, 3])) == pytest.approx(0.4)


def test_chance_is_the_average_over_random_orders() -> None:
    assert chance_accuracy(11) == pytest.approx(1 / 11)
    generator = np.random.default_rng(0)
    truth, known = generator.random((60, 5)) < [0.05, 0.2, 0.3, 0.6, 0], generator.random((60, 5)) < 0.7
    truth[:2, 0] = known[:2, 0] = True
    guessed = np.mean([float(mean_average_precision(generator.random((60, 5)), truth, known)) for _ in range(400)])
    assert chance_average_precision(truth, known) == pytest.approx(guessed, abs=0.008)
    holes = np.where(known, truth, np.nan)
    assert chance_average_precision(holes) == pytest.approx(chance_average_precision(truth, known))


def test_chance_of_few_clips_is_exact() -> None:
    orders = itertools.permutations([True, False, False, True])
    values = [average_precision_score(order, [4, 3, 2, 1]) for order in orders]
    truth = np.array([[True, False], [False, False], [False, False], [True, False]])
    assert chance_average_precision(truth) == pytest.approx(np.mean(values), abs=1e-12)
    many = np.arange(100_000)[:, None] % [5, 100_001] == 1
    assert chance_average_precision(many) == pytest.approx((0.2 + np.log(100_000) / 100_000) / 2, abs=1e-4)


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
