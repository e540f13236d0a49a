"""Figures place their points where the numbers say."""

from __future__ import annotations

import io
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

from mint.encoders.log_mel import hertz_to_mel
from mint.evaluation.metrics.calibration import Calibration
from mint.evaluation.report import figures
from mint.evaluation.report.attention_figure import attention_figure, attention_pixels, png, spectrogram
from mint.evaluation.report.figures import calibration_figure, interval_figure, loss_figure, loss_lines
from mint.evaluation.results.file import Row
from mint.types import Clip, MintError


def corners(svg: str) -> list[list[tuple[float, float]]]:
    lines = re.findall(r'<polyline [^>]*points="([^"]*)"', svg)
    return [[tuple(map(float, corner.split(","))) for corner in line.split()] for line in lines]  # type: ignore[misc]


def test_points_are_linear_in_step_and_loss() -> None:
    records = [{"step": step, "loss": 10 - step, "alc": 1.0} for step in (0, 5, 10)]
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
    assert loss_figure("t", [{"step": 1}]) == ""


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


def test_reliability_is_drawn_to_scale() -> None:
    found = Calibration(np.array([0.5, 1.0]), np.array([0.0, 1.0]), (1, 4), 0.1)
    svg = calibration_figure("<notes>", found)
    circles = re.findall(r'<circle class="s0" cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)"', svg)
    assert [tuple(map(float, circle)) for circle in circles] == [(150.0, 212.0, 5.2), (250.0, 12.0, 8.0)]
    assert "&lt;notes&gt;: reliability diagram, expected calibration error 10.0 %" in svg


def test_pictures_are_png_files_of_their_pixels() -> None:
    for channels in (3, 4):
        pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels)).astype(np.uint8)
        image = Image.open(io.BytesIO(png(pixels)))
        image.verify()
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(pixels)))), pixels)


def test_attention_is_opacity_and_reaches_as_far_as_its_steps() -> None:
    np.testing.assert_array_equal(attention_pixels(np.array([[0.0, 0.5, 1.0]]))[0, :, 3], [0, 128, 255])
    clip = Clip(np.zeros(32_000, dtype=np.float32), 16_000)
    svg = attention_figure("two seconds", clip, np.ones((4, 2)), 0.5)
    assert '<image x="0" y="0" width="211.0"' in svg  # half of 422
    assert svg.count("<image") == 2


def test_a_tone_is_bright_in_its_band() -> None:
    for pitch in (500.0, 4000.0):
        times = np.arange(22_050) / 22_050
        pixels = spectrogram(Clip(np.sin(2 * np.pi * pitch * times).astype(np.float32), 22_050))
        assert pixels.shape == (64, 98, 3)
        brightest = 63 - int(pixels.astype(int).sum(axis=(1, 2)).argmax())
        edges = hertz_to_mel(torch.tensor([125.0, 7500.0, pitch]))
        assert brightest == pytest.approx(float((edges[2] - edges[0]) / (edges[1] - edges[0])) * 65 - 1, abs=1)
    assert spectrogram(Clip(np.zeros(1, dtype=np.float32), 16_000)).shape == (64, 1, 3)
    assert spectrogram(Clip(np.zeros(40 * 16_000, dtype=np.float32), 16_000)).shape == (64, 600, 3)


def test_attention_that_is_no_matrix_is_refused() -> None:
    clip = Clip(np.zeros(16_000, dtype=np.float32), 16_000)
    with pytest.raises(MintError, match=r"'a' has shape \(3,\)"):
        attention_figure("a", clip, np.ones(3), 0.5)
    with pytest.raises(MintError, match="without samples"):
        attention_figure("a", Clip(np.zeros(0, dtype=np.float32), 16_000), np.ones((1, 1)), 0.5)
