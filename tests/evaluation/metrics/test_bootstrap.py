"""Bootstrap intervals against a plain loop over resamples, and their properties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mint.evaluation.metrics import bootstrap
from mint.evaluation.metrics.bootstrap import difference, interval
from mint.evaluation.metrics.classification import accuracy, hits, mean, mean_average_precision
from mint.types import MintError

GENERATOR = np.random.default_rng(0)
SCORES = GENERATOR.normal(size=(80, 4)).round(1)
LABELS = GENERATOR.integers(4, size=80)
TRUTH = GENERATOR.random((80, 4)) < 0.4


def drawn(strata: Any, rows: int, clips: int = 80) -> Any:
    """The counts that `interval` uses."""
    return bootstrap._counts(bootstrap._groups(clips, strata), clips, rows, np.random.default_rng(0))


def test_interval_equals_a_loop_over_repeated_clips() -> None:
    values = []
    for counts in drawn(None, 200):
        index = np.repeat(np.arange(80), counts.astype(int))
        values.append(float(mean_average_precision(SCORES[index], TRUTH[index])))
    found = interval(mean_average_precision, SCORES, TRUTH, resamples=200)
    assert found.value == float(mean_average_precision(SCORES, TRUTH))
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])), abs=1e-12)


def test_every_resample_has_as_many_clips_and_keeps_the_classes() -> None:
    counts = drawn(LABELS, 50)
    for label in range(4):
        np.testing.assert_array_equal(
            counts[:, label == LABELS].sum(axis=1), np.full(50, np.count_nonzero(label == LABELS))
        )
    assert (drawn(None, 50).sum(axis=1) == 80).all()
    assert counts.max() > 1


def test_each_clip_is_drawn_equally_often() -> None:
    counts = drawn(LABELS, 4000)
    np.testing.assert_allclose(counts.mean(axis=0), 1.0, atol=0.1)


def test_interval_of_a_share_agrees_with_the_normal_approximation() -> None:
    right = np.repeat([0.0, 1.0], [400, 600])
    found = interval(mean, right, resamples=4000)
    margin = 1.96 * np.sqrt(0.6 * 0.4 / 1000)
    assert (found.low, found.high) == pytest.approx((0.6 - margin, 0.6 + margin), abs=0.004)


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = interval(mean, hits(SCORES, LABELS), strata=LABELS)
    monkeypatch.setattr(bootstrap, "CELLS", 80 * 7)
    pieces = interval(mean, hits(SCORES, LABELS), strata=LABELS)
    assert pieces.value == whole.value
    assert abs(pieces.low - whole.low) + abs(pieces.high - whole.high) < 0.03  # other draws of the same distribution


def test_seed_decides() -> None:
    first = interval(mean_average_precision, SCORES, TRUTH, seed=1)
    assert first == interval(mean_average_precision, SCORES, TRUTH, seed=1)
    assert first != interval(mean_average_precision, SCORES, TRUTH, seed=2)


def test_interval_always_holds_the_value() -> None:
    generator = np.random.default_rng(3)
    for _ in range(20):
        scores, truth = generator.normal(size=(30, 3)), generator.random((30, 3)) < 0.1
        truth[0] = True
        found = interval(mean_average_precision, scores, truth, resamples=50)
        assert found.low <= found.value <= found.high


def test_one_clip_has_an_interval_of_one_point() -> None:
    assert interval(accuracy, [[0.0, 1.0]], [1]) == (1.0, 1.0, 1.0)


def test_paired_difference_is_narrower_than_the_two_intervals() -> None:
    better = SCORES.copy()
    wrong = np.flatnonzero(hits(SCORES, LABELS) == 0)[:6]
    better[wrong, LABELS[wrong]] = 9.0
    gap = difference(accuracy, (better, LABELS), (SCORES, LABELS), strata=LABELS)
    assert gap.value == pytest.approx(6 / 80)
    assert 0 < gap.low < gap.value < gap.high
    one = interval(accuracy, SCORES, LABELS, strata=LABELS)
    assert gap.high - gap.low < one.high - one.low
    same = difference(accuracy, (SCORES, LABELS), (SCORES, LABELS))
    assert same == (0.0, 0.0, 0.0)


def test_mistakes_are_named() -> None:
    with pytest.raises(MintError, match="split is empty"):
        interval(mean, np.zeros(0))
    with pytest.raises(MintError, match="3 strata for 2 clips"):
        interval(mean, np.zeros(2), strata=[0, 1, 2])
    with pytest.raises(MintError, match="1 and 2 clips"):
        difference(mean, [np.zeros(1)], [np.zeros(2)])
