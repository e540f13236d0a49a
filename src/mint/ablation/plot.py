"""The plot of an ablation: one panel for each of its tables, one colour for each column, with error bars."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mint.files import write_whole
from mint.types import MintError

if TYPE_CHECKING:
    from mint.evaluation.results.paper_tables import Table
    from mint.evaluation.results.seeds import Cell

COLOURS = ("#0072b2", "#d55e00", "#00875a", "#b0518c", "#9a6a00", "#2f9ad0")
MARKERS = "osD^vP"
ACROSS = 3
"""The number of panels in a row."""
DODGE = 0.6
"""The share of a row's width over which its columns are spread."""


def draw(tables: Sequence[Table], stem: Path) -> list[Path]:
    """Write `stem.png` and `stem.svg`; nothing if no table has a measured row.

    Bars are the standard deviation over seeds, or for a single seed the 95 % interval over clips.

    Raises:
        MintError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MintError("the plot needs matplotlib; install it by `pip install 'mint-audio[quickstart]'`") from None

    # Tables of quoted rows alone have nothing to draw.
    shown = []
    for table in tables:
        if any(line.run is not None for line in table.rows):
            shown.append(table)
    if not shown:
        return []

    rows = -(-len(shown) // ACROSS)
    across = min(ACROSS, len(shown))
    # Without pyplot, which keeps every figure and may look for a screen.
    figure = Figure(figsize=(4.6 * across, 3.4 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, across, squeeze=False).flatten()

    # A column has one colour in all panels, and one entry in the legend below them.
    titles: dict[str, None] = {}
    for table in shown:
        titles |= dict.fromkeys(column.title for column in table.columns)
    handles = {}
    for panel, table in zip(panels, shown, strict=False):
        _draw_panel(panel, table, list(titles))
        for handle, title in zip(*panel.get_legend_handles_labels(), strict=True):
            handles[title] = handle
    for panel in panels[len(shown) :]:
        panel.set_visible(False)
    columns = min(4, len(handles))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, frameon=False)

    written = []
    for suffix in (".png", ".svg"):
        # Without its date, an SVG of the same data has the same bytes.
        metadata: dict[str, Any] = {"Date": None} if suffix == ".svg" else {}
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix[1:], dpi=150, metadata=metadata)
        written.append(stem.with_suffix(suffix))
        write_whole(written[-1], buffer.getvalue())
    return written


def _draw_panel(panel: Any, table: Table, titles: Sequence[str]) -> None:
    """Draw one table: its measured rows along x, its columns side by side within each."""
    lines = [line for line in table.rows if line.run is not None]
    for index, column in enumerate(table.columns):
        # Beside each other, about the tick of the row: points on one vertical would hide each other's bars.
        shift = DODGE * ((index + 0.5) / len(table.columns) - 0.5)
        positions, values, below, above = [], [], [], []
        for row, line in enumerate(lines):
            cell = line.cells[index]
            if cell is not None:
                low, high = error_bar(cell)
                positions.append(row + shift)
                values.append(cell.value)
                below.append(low)
                above.append(high)

        number = titles.index(column.title)
        panel.errorbar(
            positions,
            values,
            yerr=[below, above],
            fmt=MARKERS[number % len(MARKERS)],
            color=COLOURS[number % len(COLOURS)],
            markersize=4.5,
            capsize=2.5,
            linewidth=1.2,
            label=column.title,
        )

    panel.set_title(table.title.partition(", tasks that")[0], fontsize=10, loc="left")
    panel.set_xticks(range(len(lines)), [line.name for line in lines], fontsize=8.5)
    panel.set_xlim(-0.5, len(lines) - 0.5)
    panel.set_ylabel("× 100", fontsize=8.5)
    panel.tick_params(axis="y", labelsize=8.5)
    panel.grid(axis="y", linewidth=0.5, alpha=0.5)
    panel.spines[["top", "right"]].set_visible(False)


def error_bar(cell: Cell) -> tuple[float, float]:
    """Return how far the bar of a value reaches down and up."""
    if cell.spread is not None:
        return cell.spread, cell.spread
    # A value without an interval has a point and no bar.
    if cell.low is None or cell.high is None:
        return 0.0, 0.0
    return cell.value - cell.low, cell.high - cell.value
