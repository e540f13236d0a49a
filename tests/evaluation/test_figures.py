"""Figures place their points where the numbers say."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from mint.evaluation import figures
from mint.evaluation.figures import interval_figure, loss_figure, loss_lines
from mint.evaluation.results import Row


def corners(svg: str) -> list[list[tuple[float, float]]]:
    lines = re.findall(r'<polyline [^>]*points="([^"]*)"', svg)
    return [[tuple(map(float, corner.split(","))) for corner in line.split()] for line in lines]  # type: ignore[misc]


def test_points_are_linear_in_step_and_loss() -> None:
    records = [{"step": step, "loss": 10 - step, "alc": 1.0, "grad_norm": 99.0} for step in (0, 5, 10)]
    loss, alc = corners(loss_figure("Stage 1", records))
    assert [x for x, _ in loss] == pytest.approx([figures.LEFT, 254, figures.WIDTH - figures.RIGHT], abs=0.1)
    bottom, top = figures.HEIGHT - figures.BOTTOM, figures.TOP
    assert [y for _, y in loss] == pytest.approx([top, (top + bottom) / 2, bottom], abs=0.1)
    assert {y for _, y in alc} == {alc[0][1]}


def test_gaps_and_broken_values_are_left_out() -> None:
    records = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": math.nan, "eval_loss": 1.0}, {"step": 3, "loss": 1.5}]
    assert [len(line) for line in corners(loss_figure("t", records))] == [2, 1]
    assert [(line.name, line.first, line.last) for line in loss_lines(records)] == [
        ("loss", 2.0, 1.5),
        ("eval_loss", 1.0, 1.0),
    ]
    assert loss_figure("t", []) == ""
    assert loss_figure("t", [{"step": 1, "learning_rate": 0.1}]) == ""


def test_intervals_are_drawn_to_scale() -> None:
    row = Row("t", "test", "accuracy", "stage2", 0.5, 0.25, 1.0, 9)
    svg = interval_figure({"stage2": row}, {"stage2": 3})
    assert '<line class="s3" x1="28.0" x2="100.0"' in svg
    assert '<circle class="s3" cx="52.0"' in svg
    assert interval_figure({"stage2": Row("t", "test", "cider_d", "stage2", 1.5, 1, 2, 9)}, {"stage2": 0}) == ""


@pytest.mark.parametrize("seed", range(30))
def test_ticks_are_few_round_and_cover_the_range(seed: int) -> None:
    generator = np.random.default_rng(seed)
    low = 0.0 if seed % 2 else -float(10 ** generator.uniform(-3, 4))
    high = float(10 ** generator.uniform(-4, 6))
    ticks = figures._ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high * (1 - 1e-6)
    assert 3 <= len(ticks) <= 8
    steps = np.diff(ticks)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
    assert f"{steps[0]:e}"[0] in "125"
