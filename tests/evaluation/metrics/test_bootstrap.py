"""Intervals against plain loops, their properties, and how often they hold what they are intervals of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

from mint.evaluation.metrics import bootstrap
from mint.evaluation.metrics.bootstrap import difference, interval
from mint.evaluation.metrics.classification import (
    accuracy,
    hits,
    mean,
    mean_average_precision,
    micro_average_precision,
    roc_auc,
)
from mint.types import MintError

GENERATOR = np.random.default_rng(0)
SCORES = GENERATOR.normal(size=(80, 4)).round(1)
LABELS = GENERATOR.integers(4, size=80)
TRUTH = GENERATOR.random((80, 4)) < 0.4


def drawn(strata: Any, rows: int, clips: int = 80) -> Any:
    """The weights that `interval` uses."""
    return bootstrap._weights(bootstrap._groups(clips, strata), clips, rows, np.random.default_rng(0))


def test_interval_of_a_mean_equals_a_loop_over_repeated_clips() -> None:
    values = []
    for weights in drawn(None, 200):
        index = np.repeat(np.arange(80), np.rint(weights * 79 / 80).astype(int))
        assert len(index) == 79
        values.append(float(accuracy(SCORES[index], LABELS[index])))
    found = interval(accuracy, SCORES, LABELS, resamples=200)
    assert found.value == float(accuracy(SCORES, LABELS))
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])), abs=1e-12)


@pytest.mark.parametrize("metric", [mean_average_precision, roc_auc, micro_average_precision])
def test_interval_of_an_area_equals_a_plain_jackknife(metric: Any) -> None:
    value = float(metric(SCORES, TRUTH))
    pseudo = []
    for left_out in range(80):
        kept = np.arange(80) != left_out
        pseudo.append(80 * value - 79 * float(metric(SCORES[kept], TRUTH[kept])))
    centre, error = np.mean(pseudo), np.std(pseudo, ddof=1) / np.sqrt(80)
    margin = student.ppf(0.975, 79) * error
    found = interval(metric, SCORES, TRUTH)
    assert found.value == value
    assert found.low == pytest.approx(min(centre - margin, value), abs=1e-12)
    assert found.high == pytest.approx(max(centre + margin, value), abs=1e-12)


def test_clips_left_out_in_groups_give_about_the_same_interval() -> None:
    one_by_one = interval(roc_auc, SCORES, TRUTH)
    in_groups = interval(roc_auc, SCORES, TRUTH, resamples=40)
    assert in_groups.high - in_groups.low == pytest.approx(one_by_one.high - one_by_one.low, rel=0.25)
    assert in_groups == interval(roc_auc, SCORES, TRUTH, resamples=40)
    assert in_groups != interval(roc_auc, SCORES, TRUTH, resamples=40, seed=1)


def test_every_resample_counts_as_many_clips_and_keeps_the_classes() -> None:
    weights = drawn(LABELS, 50)
    for label in range(4):
        np.testing.assert_allclose(
            weights[:, label == LABELS].sum(axis=1), np.full(50, np.count_nonzero(label == LABELS))
        )
    np.testing.assert_allclose(drawn(None, 50).sum(axis=1), 80)
    assert weights.max() > 1.5


def test_each_clip_is_drawn_equally_often() -> None:
    weights = drawn(LABELS, 4000)
    np.testing.assert_allclose(weights.mean(axis=0), 1.0, atol=0.1)


def test_resampled_means_have_the_unbiased_variance() -> None:
    strata = np.repeat(np.arange(24), 4)
    values = np.random.default_rng(1).random(96)
    expected = sum(values[strata == one].var(ddof=1) * 4 for one in range(24)) / 96**2
    found = (drawn(strata, 20_000, 96) @ values / 96).var()
    assert found == pytest.approx(expected, rel=0.05)


def test_classes_with_one_clip_vary_together() -> None:
    groups = bootstrap._groups(7, ["a", "b", "b", "b", "c", "d", "d"])
    assert sorted(map(list, groups)) == [[0, 4], [1, 2, 3], [5, 6]]
    groups = bootstrap._groups(6, ["a", "b", "b", "b", "d", "d"])
    assert sorted(sorted(group) for group in map(list, groups)) == [[0, 4, 5], [1, 2, 3]]
    assert interval(mean, np.array([1.0, 0.0, 1.0, 0.0]), strata=[0, 1, 2, 3]).low < 0.5


def test_interval_of_a_share_agrees_with_the_normal_approximation() -> None:
    right = np.repeat([0.0, 1.0], [400, 600])
    found = interval(mean, right, resamples=4000)
    margin = 1.96 * np.sqrt(0.6 * 0.4 / 1000)
    assert (found.low, found.high) == pytest.approx((0.6 - margin, 0.6 + margin), abs=0.004)


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = interval(mean, hits(SCORES, LABELS), strata=LABELS), interval(roc_auc, SCORES, TRUTH)
    monkeypatch.setattr(bootstrap, "CELLS", 80 * 7)
    pieces = interval(mean, hits(SCORES, LABELS), strata=LABELS), interval(roc_auc, SCORES, TRUTH)
    assert pieces[0].value == whole[0].value
    assert abs(pieces[0].low - whole[0].low) + abs(pieces[0].high - whole[0].high) < 0.03  # other draws
    assert pieces[1] == pytest.approx(whole[1], abs=1e-12)


def test_seed_decides() -> None:
    first = interval(accuracy, SCORES, LABELS, seed=1)
    assert first == interval(accuracy, SCORES, LABELS, seed=1)
    assert first != interval(accuracy, SCORES, LABELS, seed=2)


@pytest.mark.parametrize("metric", [mean_average_precision, micro_average_precision])
def test_interval_always_holds_the_value(metric: Any) -> None:
    generator = np.random.default_rng(3)
    for _ in range(20):
        scores, truth = generator.normal(size=(30, 3)), generator.random((30, 3)) < 0.1
        truth[0] = True
        found = interval(metric, scores, truth, resamples=50)
        assert found.low <= found.value <= found.high


def test_one_clip_has_an_interval_of_one_point() -> None:
    assert interval(accuracy, [[0.0, 1.0]], [1]) == (1.0, 1.0, 1.0)
    assert interval(mean_average_precision, [[0.0, 1.0]], [[True, False]]) == (1.0, 1.0, 1.0)


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


def ensembles(clips: int, signal: float, generator: np.random.Generator, classes: int = 16) -> tuple[Any, Any]:
    """Scores [N, C] and truth [N, C] of clips that have one to three of the classes each."""
    order = generator.random((clips, classes)).argsort(axis=1).argsort(axis=1)
    truth = order < generator.integers(1, 4, size=clips)[:, None]
    return signal * truth + generator.normal(size=(clips, classes)), truth


def covered(signal: float, clips: int, draws: int, metric: Any = mean_average_precision) -> float:
    """The share of test sets whose interval holds the figure of very many clips."""
    generator = np.random.default_rng(7)
    true = float(metric(*ensembles(40_000, signal, generator)))
    held = 0
    for _ in range(draws):
        found = interval(metric, *ensembles(clips, signal, generator))
        held += found.low <= true <= found.high
    return held / draws


@pytest.mark.parametrize("signal", [0.0, 1.0])
def test_intervals_of_average_precision_hold_the_true_one(signal: float) -> None:
    assert covered(signal, clips=60, draws=40) >= 0.85  # the percentile bootstrap: 0.00 and 0.05


@pytest.mark.slow
@pytest.mark.parametrize("metric", [mean_average_precision, roc_auc, micro_average_precision])
@pytest.mark.parametrize("signal", [0.0, 0.5, 1.0, 2.2])
def test_intervals_of_areas_hold_the_true_one_as_often_as_they_say(signal: float, metric: Any) -> None:
    assert covered(signal, clips=150, draws=200, metric=metric) >= 0.89


def small_classes(draws: int, generator: np.random.Generator, resamples: int = 400) -> tuple[float, float]:
    """Of 24 classes of 4 clips: how often intervals hold the truth, and how often equal runs are told apart."""
    strata = np.repeat(np.arange(24), 4)
    chance = generator.uniform(0.3, 0.9, size=24)
    held = apart = 0
    for seed in range(draws):
        first, second = (generator.random(96) < chance[strata] for _ in range(2))
        found = interval(mean, first, strata=strata, seed=seed, resamples=resamples)
        held += found.low <= chance.mean() <= found.high
        gap = difference(mean, (first,), (second,), strata=strata, seed=seed, resamples=resamples)
        apart += gap.low > 0 or gap.high < 0
    return held / draws, apart / draws


def test_intervals_over_small_classes_hold_the_truth() -> None:
    held, apart = small_classes(150, np.random.default_rng(0))
    assert held >= 0.92  # plain resampling within classes: 0.88
    assert apart <= 0.07


@pytest.fixture(scope="module")
def many_small_classes() -> tuple[float, float]:
    """Coverage, and the share of equal methods that are told apart, over 3,000 simulated sets."""
    return small_classes(3000, np.random.default_rng(1), resamples=1000)


@pytest.mark.slow
def test_intervals_over_small_classes_hold_the_truth_as_often_as_they_say(
    many_small_classes: tuple[float, float],
) -> None:
    held, apart = many_small_classes
    assert 0.935 <= held <= 0.965
    assert apart <= 0.06


@pytest.mark.slow
@pytest.mark.xfail(strict=True, reason="differences over small classes are too careful: 3.3 % where 5 % is meant")
def test_equal_methods_are_told_apart_as_often_as_is_meant(many_small_classes: tuple[float, float]) -> None:
    _, apart = many_small_classes
    assert apart >= 0.035


def test_mistakes_are_named() -> None:
    with pytest.raises(MintError, match="split is empty"):
        interval(mean, np.zeros(0))
    with pytest.raises(MintError, match="3 strata for 2 clips"):
        interval(mean, np.zeros(2), strata=[0, 1, 2])
    with pytest.raises(MintError, match="1 and 2 clips"):
        difference(mean, [np.zeros(1)], [np.zeros(2)])
    with pytest.raises(MintError, match="strata are for means"):
        interval(roc_auc, SCORES, TRUTH, strata=LABELS)
