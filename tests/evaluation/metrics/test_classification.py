"""The metrics against scikit-learn, ties, weights and unknown labels included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score

from mint.evaluation.metrics import classification as metrics
from mint.evaluation.metrics.classification import (
    accuracy,
    among_labels,
    hits,
    mean,
    mean_average_precision,
    micro_average_precision,
    micro_roc_auc,
    ratio,
    roc_auc,
    scored_classes,
)
from mint.types import MintError

CLIPS, CLASSES = 60, 7


def make(seed: int, decimals: int = 1) -> tuple[Any, Any, Any]:
    """Scores with many ties, truth, and a mask that knows about two thirds."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(CLIPS, CLASSES)).round(decimals)
    truth = generator.random((CLIPS, CLASSES)) < 0.3
    known = generator.random((CLIPS, CLASSES)) < 0.66
    return scores + truth * 0.5, truth, known


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("ours", "library"), [(mean_average_precision, average_precision_score), (roc_auc, roc_auc_score)]
)
def test_macro_metrics_equal_scikit_learn_class_by_class(ours: Any, library: Any, seed: int) -> None:
    scores, truth, known = make(seed)
    expected = np.mean([
        library(truth[known[:, c], c], scores[known[:, c], c]) for c in range(CLASSES)
    ])  # fmt: skip
    assert float(ours(scores, truth, known)) == pytest.approx(expected, abs=1e-12)
    assert float(ours(scores, truth)) == pytest.approx(library(truth, scores, average="macro"), abs=1e-12)


@pytest.mark.parametrize(
    ("ours", "library"), [(mean_average_precision, average_precision_score), (roc_auc, roc_auc_score)]
)
def test_weighted_metrics_equal_scikit_learn(ours: Any, library: Any) -> None:
    scores, truth, _ = make(11)
    weights = np.random.default_rng(1).integers(0, 4, size=(3, 2, CLIPS)).astype(float)
    found = ours(scores, truth, weights=weights)
    assert found.shape == (3, 2)
    for place in np.ndindex(3, 2):
        expected = library(truth, scores, average="macro", sample_weight=weights[place])
        assert found[place] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("ours", "library"), [(mean_average_precision, average_precision_score), (roc_auc, roc_auc_score)]
)
@pytest.mark.parametrize("kind", ["log-likelihoods", "constant", "two values", "tiny differences"])
def test_macro_metrics_equal_scikit_learn_on_scores_like_those_of_models(ours: Any, library: Any, kind: str) -> None:
    generator = np.random.default_rng(13)
    scores = {
        "log-likelihoods": -np.exp(generator.normal(3, 1, size=(400, CLASSES))),
        "constant": np.zeros((400, CLASSES)),
        "two values": generator.integers(2, size=(400, CLASSES)).astype(float),
        "tiny differences": 1.0 + 1e-12 * generator.normal(size=(400, CLASSES)),
    }[kind]
    truth = generator.random((400, CLASSES)) < np.linspace(0.01, 0.9, CLASSES)
    truth[0], truth[1] = True, False
    assert float(ours(scores, truth)) == pytest.approx(library(truth, scores, average="macro"), abs=1e-12)


MICRO = [(micro_average_precision, average_precision_score), (micro_roc_auc, roc_auc_score)]


@pytest.mark.parametrize(("ours", "library"), MICRO)
def test_micro_metrics_equal_scikit_learn(ours: Any, library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, truth, known = make(5)
    assert float(ours(scores, truth)) == pytest.approx(library(truth, scores, average="micro"), abs=1e-12)
    assert float(ours(scores, truth, known)) == pytest.approx(library(truth[known], scores[known]), abs=1e-12)
    weights = np.random.default_rng(1).integers(0, 4, size=(3, 2, CLIPS)).astype(float)
    monkeypatch.setattr(metrics, "PAIRS_AT_ONCE", 3 * CLIPS * CLASSES)
    found = ours(scores, truth, known, weights=weights)
    assert found.shape == (3, 2)
    for place in np.ndindex(3, 2):
        pairs = np.repeat(weights[place][:, None], CLASSES, axis=1)[known]
        assert found[place] == pytest.approx(library(truth[known], scores[known], sample_weight=pairs), abs=1e-12)


@pytest.mark.parametrize(("ours", "_library"), MICRO)
def test_micro_metrics_without_a_positive(ours: Any, _library: Any) -> None:
    scores, truth, known = make(5)
    with pytest.raises(MintError, match="known pairs of clip and class are all negative; the figure does not exist"):
        ours(scores, truth & ~known, known)


def test_nan_in_truth_is_unknown() -> None:
    scores, truth, known = make(3)
    holes = np.where(known, truth.astype(float), np.nan)
    assert mean_average_precision(scores, holes) == mean_average_precision(scores, truth, known)
    assert roc_auc(scores, holes) == roc_auc(scores, truth, known)


def test_unknown_labels_never_matter() -> None:
    scores, truth, known = make(4)
    assert mean_average_precision(scores, truth | ~known, known) == mean_average_precision(scores, truth & known, known)


def test_accuracy_equals_scikit_learn_without_ties() -> None:
    generator = np.random.default_rng(0)
    scores, labels = generator.normal(size=(CLIPS, CLASSES)), generator.integers(CLASSES, size=CLIPS)
    assert float(accuracy(scores, labels)) == pytest.approx(accuracy_score(labels, scores.argmax(axis=1)))
    weights = generator.integers(0, 3, size=CLIPS).astype(float)
    expected = accuracy_score(labels, scores.argmax(axis=1), sample_weight=weights)
    assert float(accuracy(scores, labels, weights=weights)) == pytest.approx(expected)


def test_a_tie_for_the_first_place_is_a_mistake() -> None:
    scores = [[1.0, 1.0, 0.0], [2.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    np.testing.assert_array_equal(hits(scores, [0, 0, 0]), [0, 1, 0])


def test_order_of_labels_does_not_matter() -> None:
    scores, truth, known = make(5)
    labels = np.random.default_rng(5).integers(CLASSES, size=CLIPS)
    order = np.random.default_rng(6).permutation(CLASSES)
    place = np.argsort(order)
    assert accuracy(scores, labels) == accuracy(scores[:, order], place[labels])
    for metric in (mean_average_precision, roc_auc):
        shuffled = metric(scores[:, order], truth[:, order], known[:, order])
        assert float(shuffled) == pytest.approx(float(metric(scores, truth, known)), abs=1e-15)


def test_order_of_clips_does_not_matter() -> None:
    scores, truth, known = make(7)
    order = np.random.default_rng(8).permutation(CLIPS)
    for metric in (mean_average_precision, roc_auc):
        assert float(metric(scores[order], truth[order], known[order])) == pytest.approx(
            float(metric(scores, truth, known)), abs=1e-15
        )


def test_classes_without_a_positive_are_left_out_and_can_be_counted() -> None:
    scores, truth, known = make(9)
    truth[:, 2] = False
    known[:, 4] &= ~truth[:, 4]  # positives, but none that anybody knows of
    truth[:, 5] = True
    np.testing.assert_array_equal(scored_classes(truth, known), [1, 1, 0, 1, 0, 1, 1])
    np.testing.assert_array_equal(scored_classes(truth, known, negatives=True), [1, 1, 0, 1, 0, 0, 1])
    kept = [0, 1, 3, 5, 6]
    assert mean_average_precision(scores, truth, known) == mean_average_precision(
        scores[:, kept], truth[:, kept], known[:, kept]
    )


def test_a_weighting_without_any_positive_is_nan() -> None:
    found = mean_average_precision(np.eye(3), np.eye(3, dtype=bool), weights=np.array([[0.0, 0, 0], [1, 1, 1]]))
    assert np.isnan(found[0])
    assert found[1] == 1.0


def test_mean_and_ratio() -> None:
    assert float(mean([0.0, 1.0, 1.0])) == pytest.approx(2 / 3)
    assert float(ratio([1.0, 4.0], [1, 5])) == pytest.approx(5 / 6)
    np.testing.assert_allclose(ratio([1.0, 4.0], [1, 5], weights=np.array([[2.0, 0.0], [0.0, 1.0]])), [1.0, 0.8])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: accuracy(np.zeros((0, 3)), np.zeros(0, dtype=int)), "split is empty"),
        (lambda: accuracy(np.zeros((2, 1)), [0, 0]), "only one class"),
        (lambda: accuracy(np.zeros(2), [0, 0]), r"shape \(2,\)"),
        (lambda: accuracy(np.array([[0.0, np.nan], [0, 0]]), [0, 0]), "1 of 2 clips are NaN, the first in row 0"),
        (lambda: accuracy(np.zeros((2, 3)), [0, 3]), "label 3 is outside the 3 classes"),
        (lambda: accuracy(np.zeros((2, 3)), [0, -1]), "label -1 is outside"),
        (lambda: accuracy(np.zeros((2, 3)), [0]), "2 rows of scores but 1 labels"),
        (lambda: accuracy(np.zeros((2, 3)), [0.0, 1.0]), "integers"),
        (lambda: mean_average_precision(np.zeros((2, 3)), np.zeros((2, 3))), "none of the 3 classes"),
        (lambda: roc_auc(np.zeros((2, 3)), np.ones((2, 3))), "known positive and negative"),
        (lambda: roc_auc(np.zeros((2, 3)), np.ones((2, 2))), r"\(2, 3\) but truth \(2, 2\)"),
        (lambda: roc_auc(np.zeros((2, 3)), np.ones((2, 3)), np.ones((2, 2))), "they must be the same"),
        (lambda: mean([]), "split is empty"),
        (lambda: mean([np.nan, 1.0]), "1 of 2 values are NaN"),
    ],
)
def test_mistakes_are_named(call: Any, words: str) -> None:
    with pytest.raises(MintError, match=words):
        call()


def test_log_likelihoods_become_comparable_between_clips() -> None:
    """A clip that makes all texts less likely does not stand below the others in every label's ranking."""
    generator = np.random.default_rng(0)
    truth = generator.random((60, 4)) < 0.4
    truth[:, 0] |= ~truth.any(axis=1)
    good = generator.normal(size=(60, 4)) + 3 * truth
    likelihoods = good - 20 * generator.random((60, 1))
    shares = among_labels(likelihoods)
    np.testing.assert_allclose(np.exp(shares), np.exp(good) / np.exp(good).sum(axis=1, keepdims=True), rtol=1e-9)
    np.testing.assert_array_equal(shares.argsort(axis=1), likelihoods.argsort(axis=1))
    assert float(mean_average_precision(shares, truth)) > float(mean_average_precision(likelihoods, truth)) + 0.2
    np.testing.assert_allclose(among_labels([[-np.inf, 0.0]]), [[-np.inf, 0.0]])
