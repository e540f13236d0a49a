"""The plot of an ablation: one panel for each of its tables, one colour for each column, with error bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mint.types import MintError

if TYPE_CHECKING:
    from mint.evaluation.results.paper_tables import Table
    from mint.evaluation.results.seeds import Cell

COLOURS = ("#0072b2", "#d55e00", "#00875a", "#b0518c", "#9a6a00", "#2f9ad0")
MARKERS = "osD^vP"
ACROSS = 3
"""Panels in a row."""
DODGE = 0.6
"""Share of a row's width over which its columns are spread."""


def draw(tables: Sequence[Table], stem: Path) -> list[Path]:
    """Write `stem.png` and `stem.svg`; nothing where no table has a measured row.

    Bars are the standard deviation over seeds, or for a single seed the 95 % interval over clips.

    Raises:
        MintError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MintError("the plot needs matplotlib; install it by `pip install 'mint-audio[quickstart]'`") from None
    shown = [table for table in tables if any(line.run is not None for line in table.lines)]
    if not shown:
        return []
    titles = list(dict.fromkeys(column.title for table in shown for column in table.columns))
    rows = -(-len(shown) // ACROSS)
    figure = Figure(figsize=(4.6 * min(ACROSS, len(shown)), 3.4 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, min(ACROSS, len(shown)), squeeze=False).flatten()
    for panel, table in zip(panels, shown, strict=False):
        _panel(panel, table, titles)
    for panel in panels[len(shown) :]:
        panel.set_visible(False)
    handles = dict(pair for panel in panels for pair in zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=min(4, len(handles)), frameon=False
    )
    written = [stem.with_suffix(suffix) for suffix in (".png", ".svg")]
    for path in written:
        metadata: dict[str, Any] = {"Date": None} if path.suffix == ".svg" else {}  # the same data, the same bytes
        figure.savefig(path, dpi=150, metadata=metadata)
    return written


def _panel(panel: Any, table: Table, titles: Sequence[str]) -> None:
    """One table: its measured rows along x."""
    lines = [line for line in table.lines if line.run is not None]
    for place, column in enumerate(table.columns):
        number = titles.index(column.title)
        shift = DODGE * ((place + 0.5) / len(table.columns) - 0.5)
        there = [(x + shift, line.cells[place]) for x, line in enumerate(lines)]
        points = [(x, cell) for x, cell in there if cell is not None]
        ends = [error_bar(cell) for _, cell in points]
        panel.errorbar(
            [x for x, _ in points],
            [cell.value for _, cell in points],
            yerr=list(zip(*ends, strict=True)) or None,
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
    """How far the bar of a value reaches down and up."""
    if cell.spread is not None:
        return cell.spread, cell.spread
    if cell.low is None or cell.high is None:
        return 0.0, 0.0
    return cell.value - cell.low, cell.high - cell.value
