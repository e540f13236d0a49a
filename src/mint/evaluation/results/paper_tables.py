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
    """What a column shows."""

    title: str
    location: Location


@dataclass(frozen=True)
class Line:
    """One row of a table."""

    name: str
    cells: tuple[Cell | None, ...]
    """One for each column; None: nobody measured it."""
    run: Run | None
    """Where the values come from; None: quoted from the paper."""


@dataclass(frozen=True)
class Table:
    """A table, whatever it will be written as."""

    name: str
    """Of its file: `table2`, `table2-own`, `ablation-queries`, ..."""
    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    digits: int
    """Decimals that are printed."""
    source: str | None
    """Where the quoted rows come from; None: it has none."""


def tables_of(paths: Sequence[Path]) -> list[Table]:
    """All tables that results files give; those of the paper always, others where there is something to show.

    Raises:
        MintError: as `read_runs`.
    """
    return build_tables(read_runs(paths, published()["corpora"]))


def build_tables(runs: Sequence[Run]) -> list[Table]:
    """As `tables_of`, from runs that are read."""
    tables = []
    for entry in published()["tables"]:
        tables += [_paper_table(entry, runs), *_own_table(entry, runs)]
    for axis, title in AXES.items():
        columns = _own_columns(ways := axis_ways(runs, axis), FORMS["objectives"])
        tables += _filled(f"ablation-{axis}", title, columns, ways)
    for axis, title in (("objectives", "Objectives of stage 1"), *AXES.items()):
        columns = _own_columns(ways := axis_ways(runs, axis, "stage1"), FORMS["stage1"])
        tables += _filled(f"ablation-{axis}-stage1", f"{title}, stage 1 alone", columns, ways)
    return tables


@cache
def published() -> dict[str, Any]:
    """What `published.yaml` holds."""
    text = (resources.files("mint.evaluation.results") / "published.yaml").read_text("utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def _paper_table(entry: dict[str, Any], runs: Sequence[Run]) -> Table:
    columns = tuple(
        Column(column["title"], (column["corpus"], "test", column["metric"])) for column in entry["columns"]
    )
    quoted = [Line(name, tuple(Cell(value) for value in values), run=None) for name, values in entry["rows"].items()]
    lines = [*quoted, *_lines(columns, _ways(entry["kind"], runs))]
    title = f"Table {entry['number']}. {entry['title']}"
    return Table(f"table{entry['number']}", title, columns, tuple(lines), entry["digits"], published()["source"])


def _own_table(entry: dict[str, Any], runs: Sequence[Run]) -> list[Table]:
    """The same form for the tasks that the paper does not have."""
    ways = _ways(entry["kind"], runs)
    subject = entry["title"].removesuffix(" on Clotho")
    title = f"{subject}, tasks that are not in the paper (form of Table {entry['number']})"
    return _filled(f"table{entry['number']}-own", title, _own_columns(ways, FORMS[entry["kind"]]), ways)


def _ways(kind: str, runs: Sequence[Run]) -> list[tuple[Run, str, str]]:
    """Run, name of the row and method of every row that a table of this kind may have."""
    if kind == "objectives":
        return axis_ways(runs, kind)
    whole = [run for run in runs if run.base]
    if kind == "stages":
        both = [run for run in whole if set(STAGES) <= set(run.methods)]
        return [(run, name, method) for run in both for method, name in STAGES.items()]
    return [(run, method, method) for run in whole for method in run.methods]


def axis_ways(runs: Sequence[Run], axis: str, method: str = "stage2") -> list[tuple[Run, str, str]]:
    """The rows of one axis of an ablation: sums of losses in the paper's order, numbers by size, others as given.

    One run alone compares nothing and has no row.
    """
    paper = next(list(entry["rows"]) for entry in published()["tables"] if entry["kind"] == "objectives")

    def order(way: tuple[Run, str, str]) -> float:
        name = way[1]
        return float(name) if name.isdigit() else paper.index(name) if name in paper else 0.0

    ways = [(run, run.axes[axis], method) for run in runs if axis in run.axes and method in run.methods]
    return sorted(ways, key=order) if len(ways) > 1 else []


def _own_columns(ways: Sequence[tuple[Run, str, str]], metrics: Sequence[str]) -> tuple[Column, ...]:
    """Places that no table of the paper has, by task and split as they come and then by metric."""
    names = published()["corpora"]
    found = dict.fromkeys(
        place for run, _, wanted in ways for place, method in run.values if method == wanted and place[0] not in names
    )
    shown = dict.fromkeys(place[:2] for place in found if place[2] in metrics)
    places = [(*where, metric) for where in shown for metric in metrics if (*where, metric) in found]
    return tuple(Column(f"{place[0]}, {place[1]}, {place[2]}", place) for place in places)


def _filled(name: str, title: str, columns: tuple[Column, ...], ways: Iterable[tuple[Run, str, str]]) -> list[Table]:
    lines = _lines(columns, ways)
    return [Table(name, title, columns, tuple(lines), digits=1, source=None)] if lines else []


def _lines(columns: Sequence[Column], ways: Iterable[tuple[Run, str, str]]) -> list[Line]:
    """The rows that have a value somewhere."""
    lines = [
        Line(name, tuple(run.cell(column.location, method) for column in columns), run) for run, name, method in ways
    ]
    return [line for line in lines if any(cell is not None for cell in line.cells)]
