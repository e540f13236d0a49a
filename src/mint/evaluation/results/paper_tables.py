"""The paper's Tables 2 to 6 from results files, beside what the paper prints (paper, section 4).

The published rows stand in `published.yaml`, are marked as quoted and were not measured here. Ours come from results
files alone. Tasks that the paper does not have, such as the quickstart's, get tables of the same form, without quoted
rows. A cell that nobody filled stays empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from mint.evaluation.results.seeds import Cell, Location, Run, read_runs

FORMS: dict[str, tuple[str, ...]] = {
    "tasks": ("accuracy", "map", "roc_auc"),
    "retrieval": ("recall@1", "recall@5", "recall@10"),
    "captioning": ("spider", "rouge_l", "spice", "cider_d"),
    "objectives": ("accuracy", "map"),
    "stages": ("accuracy", "map"),
    "stage1": ("accuracy", "map", "recall@10"),
}
"""Kind of table -> the metrics that tasks of our own show in it, in this order."""
STAGES = {"stage1": "Stage1", "stage2": "Stage1+2"}
"""Method -> the name of its row in Table 6."""
AXES = {
    "instruction": "Instruction in Bridge-Net",
    "queries": "Number of queries",
    "cross_attention": "Cross-attention every n blocks",
}
"""Axes of an ablation beyond the paper, and their titles."""


@dataclass(frozen=True)
class Column:
    """A column, and where its values stand in results files."""

    title: str
    location: Location


@dataclass(frozen=True)
class TableRow:
    """One row of a table."""

    name: str
    cells: tuple[Cell | None, ...]
    """One for each column; None: nobody measured it."""
    run: Run | None
    """Where the values come from; None: quoted from the paper."""


@dataclass(frozen=True)
class RowSource:
    """What a row of a table shows."""

    run: Run
    name: str
    """The row's name."""
    method: str
    """The method whose values it holds."""


@dataclass(frozen=True)
class Table:
    """A table, whatever it will be written as."""

    name: str
    """The name of its file: `table2`, `table2-own`, `ablation-queries`, ..."""
    title: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    digits: int
    """Decimals that are printed."""
    source: str | None
    """Where the quoted rows come from; None: it has none."""


def tables_of(paths: Sequence[Path]) -> list[Table]:
    """Return all tables that results files give: those of the paper always, others where there is something to show.

    Raises:
        MintError: as `read_runs`.
    """
    return build_tables(read_runs(paths, published()["corpora"]))


def build_tables(runs: Sequence[Run]) -> list[Table]:
    """Return the tables of `tables_of` from runs that are read."""
    tables = []
    for entry in published()["tables"]:
        tables += [_paper_table(entry, runs), *_own_table(entry, runs)]

    # Axes that the paper does not have. Its own, the objectives, is Table 5, which is among those above.
    for axis, title in AXES.items():
        sources = axis_rows(runs, axis)
        tables += _filled(f"ablation-{axis}", title, _own_columns(sources, FORMS["objectives"]), sources)

    # What the axes do to stage 1 alone, which the paper does not print for any of them.
    for axis, title in (("objectives", "Objectives of stage 1"), *AXES.items()):
        sources = axis_rows(runs, axis, "stage1")
        columns = _own_columns(sources, FORMS["stage1"])
        tables += _filled(f"ablation-{axis}-stage1", f"{title}, stage 1 alone", columns, sources)
    return tables


@cache
def published() -> dict[str, Any]:
    """Return what `published.yaml` holds."""
    text = (resources.files("mint.evaluation.results") / "published.yaml").read_text("utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def _paper_table(entry: dict[str, Any], runs: Sequence[Run]) -> Table:
    """Return a table of the paper: its quoted rows, and ours below them."""
    # The paper measures on test splits alone; `unseen` and others are ours.
    columns = []
    for column in entry["columns"]:
        columns.append(Column(column["title"], (column["corpus"], "test", column["metric"])))
    rows = []
    for name, values in entry["rows"].items():
        rows.append(TableRow(name, tuple(map(Cell, values)), run=None))

    rows += _rows(columns, _row_sources(entry["kind"], runs))
    title = f"Table {entry['number']}. {entry['title']}"
    return Table(f"table{entry['number']}", title, tuple(columns), tuple(rows), entry["digits"], published()["source"])


def _own_table(entry: dict[str, Any], runs: Sequence[Run]) -> list[Table]:
    """Return a table of the same form for the tasks that the paper does not have."""
    sources = _row_sources(entry["kind"], runs)
    subject = entry["title"].removesuffix(" on Clotho")
    title = f"{subject}, tasks that are not in the paper (form of Table {entry['number']})"
    return _filled(f"table{entry['number']}-own", title, _own_columns(sources, FORMS[entry["kind"]]), sources)


def _row_sources(kind: str, runs: Sequence[Run]) -> list[RowSource]:
    """Return the rows that a table of this kind may have."""
    if kind == "objectives":
        return axis_rows(runs, kind)

    sources = []
    for run in runs:
        # A cell of an ablation that changes something stands in the ablation's tables, not for its recipe.
        if not run.base:
            continue
        if kind != "stages":
            sources += [RowSource(run, method, method) for method in run.methods]
        # Table 6 compares the stages: a run that measured one of them has nothing to show there.
        elif set(STAGES) <= set(run.methods):
            sources += [RowSource(run, name, method) for method, name in STAGES.items()]
    return sources


def axis_rows(runs: Sequence[Run], axis: str, method: str = "stage2") -> list[RowSource]:
    """Return the rows of one axis of an ablation.

    Sums of losses come in the paper's order, numbers by size, others as given. One run alone compares nothing and has
    no row.
    """
    paper = next(list(entry["rows"]) for entry in published()["tables"] if entry["kind"] == "objectives")

    def order(source: RowSource) -> float:
        if source.name.isdigit():
            # Numbers of queries by size: 8 stands before 32, which it would not as text.
            return float(source.name)
        return paper.index(source.name) if source.name in paper else 0.0

    with_axis = [run for run in runs if axis in run.axes and method in run.methods]
    sources = sorted((RowSource(run, run.axes[axis], method) for run in with_axis), key=order)
    # Sorting is stable: names that are neither stay as the files were given.
    return sources if len(sources) > 1 else []


def _own_columns(sources: Sequence[RowSource], metrics: Sequence[str]) -> tuple[Column, ...]:
    """Return columns for what no table of the paper has: tasks and splits as they come, each with its metrics."""
    measured: dict[tuple[str, str], set[str]] = {}
    for source in sources:
        for (task, split, metric), method in source.run.values:
            if method == source.method and task not in published()["corpora"]:
                measured.setdefault((task, split), set()).add(metric)

    columns = []
    for (task, split), measured_metrics in measured.items():
        for metric in metrics:
            if metric in measured_metrics:
                columns.append(Column(f"{task}, {split}, {metric}", (task, split, metric)))
    return tuple(columns)


def _filled(name: str, title: str, columns: tuple[Column, ...], sources: Iterable[RowSource]) -> list[Table]:
    """Return the table of our own rows, none where it would be empty."""
    rows = _rows(columns, sources)
    return [Table(name, title, columns, tuple(rows), digits=1, source=None)] if rows else []


def _rows(columns: Sequence[Column], sources: Iterable[RowSource]) -> list[TableRow]:
    """Return the rows that have a value somewhere."""
    rows = []
    for source in sources:
        cells = tuple(source.run.cell(column.location, source.method) for column in columns)
        if any(cell is not None for cell in cells):
            rows.append(TableRow(source.name, cells, source.run))
    return rows
