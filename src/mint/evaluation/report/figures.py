"""Figures of the report as inline SVG: no drawing library, readable in light and dark, sharp at any width.

Colours come from the page's style sheet (classes `s0` to `s5`), so that a figure follows the reader's colour scheme.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from mint.evaluation.results.file import NOT_SHARES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mint.evaluation.metrics.calibration import Calibration
    from mint.evaluation.results.file import Row

WIDTH, HEIGHT = 480, 260
LEFT, RIGHT, TOP, BOTTOM = 46, 18, 10, 40
COLOURS = 6
SIDE_LEFT, SIDE_TOP, SIDE = 50, 12, 200
"""Corner and side of a square figure."""


@dataclass(frozen=True)
class LossLine:
    """One line of a figure of losses, for its legend."""

    name: str
    colour: int
    first: float
    last: float


def loss_lines(records: Sequence[Mapping[str, float]]) -> list[LossLine]:
    """Return the losses that the records hold, in the order in which they appear; records as of `loss_figure`."""
    lines = []
    for index, (name, points) in enumerate(_series(records).items()):
        lines.append(LossLine(name, index % COLOURS, points[0][1], points[-1][1]))
    return lines


def loss_figure(title: str, records: Sequence[Mapping[str, float]]) -> Markup:
    """Draw losses over steps.

    Args:
        title: the title for those who cannot see the figure.
        records: each `{"step": ..., name of a loss: ..., ...}`; values that are not finite are left out.

    Returns:
        The figure; nothing if no record holds a loss.
    """
    series = _series(records)
    if not series:
        return Markup("")

    steps: list[float] = []
    highest = 0.0
    for points in series.values():
        for step, value in points:
            steps.append(step)
            highest = max(highest, value)
    # From 0, so that heights can be compared; a run of one step has a width all the same.
    across = _ticks(min(0.0, *steps), max(*steps, 1.0))
    up = _ticks(0.0, highest or 1.0)

    # SVG counts y from the top.
    def position(step: float, value: float) -> tuple[float, float]:
        x = LEFT + (step - across[0]) / (across[-1] - across[0]) * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - (value - up[0]) / (up[-1] - up[0]) * (HEIGHT - TOP - BOTTOM)
        return x, y

    # The axes: a line and a number for each tick.
    parts = []
    for value in up:
        _, y = position(across[0], value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for step in across:
        x, y = position(step, up[0])
        parts.append(f'<text x="{x:.1f}" y="{y + 17:.1f}" text-anchor="middle">{step:g}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 5}" text-anchor="middle">step</text>')

    # The losses: with more of them than colours, the dashes differ.
    for index, points in enumerate(series.values()):
        corners = []
        for step, value in points:
            x, y = position(step, value)
            corners.append(f"{x:.1f},{y:.1f}")
        classes = f"s{index % COLOURS} dash{index // COLOURS}"
        parts.append(f'<polyline class="{classes}" points="{" ".join(corners)}"/>')

    summary = "; ".join(f"{line.name} from {line.first:.3g} to {line.last:.3g}" for line in loss_lines(records))
    label = escape(f"{title}, losses over {max(steps):g} steps: {summary}")
    return Markup(
        f'<svg class="plot" role="img" aria-label="{label}" viewBox="0 0 {WIDTH} {HEIGHT}">{"".join(parts)}</svg>'
    )


def interval_figure(cells: Mapping[str, Row], colours: Mapping[str, int]) -> Markup:
    """Draw the values of one line of a table on a scale from 0 to 100 %, each with its interval.

    Args:
        cells: the rows by method.
        colours: the index of each method's colour.

    Returns:
        The figure; nothing for values that are not shares of 1.
    """
    rows = list(cells.values())
    if any(row.metric in NOT_SHARES for row in rows):
        return Markup("")

    parts = []
    for quarter in range(5):
        x = 4 + 24 * quarter
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="0" y2="100%"/>')
    for index, row in enumerate(rows):
        y = 5 + 8 * index
        low = row.value if row.low is None else row.low
        high = row.value if row.high is None else row.high
        colour = f"s{colours[row.method]}"
        parts.append(f'<line class="{colour}" x1="{4 + 96 * low:.1f}" x2="{4 + 96 * high:.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="{colour}" cx="{4 + 96 * row.value:.1f}" cy="{y}" r="3"/>')

    height = 2 + 8 * len(rows)
    return Markup(
        f'<svg class="dots" aria-hidden="true" width="104" height="{height}" viewBox="0 0 104 {height}">'
        f"{''.join(parts)}</svg>"
    )


def calibration_figure(title: str, calibration: Calibration) -> Markup:
    """Draw a reliability diagram: accuracy over confidence, a circle for each bin with an area as its clips."""

    def position(confidence: float, accuracy: float) -> tuple[float, float]:
        return SIDE_LEFT + SIDE * confidence, SIDE_TOP + SIDE * (1 - accuracy)

    left, bottom = position(0, 0)
    end, top = position(1, 1)
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = position(tick, tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{end}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{100 * tick:g}</text>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{100 * tick:g}</text>')
    x, y = position(0.5, 0.5)
    parts.append(f'<text x="{x}" y="{bottom + 36}" text-anchor="middle">confidence (%)</text>')
    parts.append(f'<text x="12" y="{y}" text-anchor="middle" transform="rotate(-90 12 {y})">accuracy (%)</text>')

    # On the diagonal a model is as sure as it is right; each bin is joined to it.
    parts.append(f'<line class="ideal" x1="{left}" y1="{bottom}" x2="{end}" y2="{top}"/>')
    most = max(calibration.clips)
    for confidence, accuracy, clips in zip(
        calibration.confidence, calibration.accuracy, calibration.clips, strict=True
    ):
        x, y = position(confidence, accuracy)
        _, ideal = position(confidence, confidence)
        # The area, and not the radius, grows with the clips; a bin of one clip can still be seen.
        radius = 2.5 + 5.5 * math.sqrt(clips / most)
        parts.append(f'<line class="s0" x1="{x:.1f}" x2="{x:.1f}" y1="{y:.1f}" y2="{ideal:.1f}"/>')
        parts.append(f'<circle class="s0" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>')

    error = 100 * calibration.error
    label = escape(f"{title}: reliability diagram, expected calibration error {error:.1f} %")
    return Markup(
        f'<svg class="plot square" role="img" aria-label="{label}" viewBox="0 0 270 255">{"".join(parts)}</svg>'
    )


def _series(records: Sequence[Mapping[str, float]]) -> dict[str, list[tuple[float, float]]]:
    """Return steps and values of each loss."""
    series: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        for name, value in record.items():
            if name != "step" and isinstance(value, int | float) and math.isfinite(value):
                series.setdefault(name, []).append((record["step"], value))
    return series


def _ticks(low: float, high: float) -> list[float]:
    """Return four to seven round numbers from at most `low` to at least `high`."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    # The small shares keep a step that is round already from being rounded up to the next.
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    # Rounded to twelve digits: 3 * 0.1 is to be 0.3.
    return [round(number * step, 12) for number in range(first, last + 1)]
