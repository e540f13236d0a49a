"""Tables as Markdown, CSV and HTML.

Markdown and HTML show a table as it is read, with the runs that measured it as notes below. CSV has one line for each
value, with all that is known of it, for whoever goes on with the numbers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jinja2

from mint.evaluation.metrics.captions import CAPTION_METRICS
from mint.evaluation.results.paper_tables import Line, Table
from mint.evaluation.results.seeds import Cell, Run
from mint.files import write_whole

NOTE = "Values are times 100; higher is better. Of several seeds: mean ± standard deviation; of one: the 95 % interval."
QUOTED = "quoted"
LABEL_METRICS = {"accuracy", "map", "roc_auc"}
FIELDS = (
    *("table", "row", "origin", "task", "split", "metric", "value", "spread", "low", "high", "seeds", "clips"),
    *("recipe", "commit", "seed", "settings", "leakage", "source"),
)
"""Columns of the CSV files."""


def write_tables(tables: Sequence[Table], folder: Path) -> list[Path]:
    """Write `tables.md`, `tables.html` and a CSV file for each table; files of these names are replaced.

    Returns:
        What was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = {"tables.md": markdown(tables), "tables.html": html(tables)}
    written |= {f"{table.name}.csv": csv_text(table) for table in tables}
    for name, text in written.items():
        write_whole(folder / name, text.encode())
    return [folder / name for name in written]


def markdown(tables: Sequence[Table]) -> str:
    """All tables, one after the other."""
    return f"{NOTE}\n\n" + "\n".join(_markdown(table) for table in tables)


def _markdown(table: Table) -> str:
    made = notes(table)
    head = ["method", "origin", *(column.title for column in table.columns)]
    rule = ["---", "---", *["---:"] * len(table.columns)]
    body = [
        [line.name, f"*{QUOTED}*" if line.run is None else origin(line, table, made)]
        + [show(cell, table.digits) for cell in line.cells]
        for line in table.lines
    ]
    lines = [f"| {' | '.join(part.replace('|', '/') for part in row)} |\n" for row in (head, rule, *body)]
    below = [f"- *{QUOTED}*: {quotation(table)}\n"] if table.source else []
    below += [f"- [{number}] {note}\n" for number, note in enumerate(made, start=1)]
    return f"### {table.title}\n\n{''.join(lines)}\n{''.join(below)}"


def html(tables: Sequence[Table]) -> str:
    """All tables as one page that needs nothing from outside."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {"show": show, "origin": origin, "notes": notes, "quotation": quotation}
    template = environment.from_string((resources.files("mint.evaluation.results") / "tables.html").read_text("utf-8"))
    return template.render(tables=tables, note=NOTE)


def csv_text(table: Table) -> str:
    """One line for each value that there is."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, FIELDS)
    writer.writeheader()
    for line in table.lines:
        for column, cell in zip(table.columns, line.cells, strict=True):
            if cell is not None:
                task, split, metric = column.location
                location = {"table": table.name, "row": line.name, "task": task, "split": split, "metric": metric}
                writer.writerow(location | _numbers(cell) | _made(line, table))
    return buffer.getvalue()


def _numbers(cell: Cell) -> dict[str, object]:
    values = {"value": cell.value, "spread": cell.spread, "low": cell.low, "high": cell.high}
    rounded = {name: None if value is None else round(value, 6) for name, value in values.items()}
    return {**rounded, "seeds": cell.seeds if cell.n is not None else None, "clips": cell.n}


def _made(line: Line, table: Table) -> dict[str, object]:
    if line.run is None:
        return {"origin": QUOTED, "source": table.source}
    return {
        "origin": "measured",
        "recipe": line.run.recipe,
        "commit": " ".join(line.run.commits),
        "seed": " ".join(map(str, line.run.seeds)),
        "settings": "; ".join(_settings(line.run, table)),
        "leakage": line.run.leakage,
    }


def show(cell: Cell | None, digits: int) -> str:
    """A value with its spread or interval; nothing where there is none."""
    if cell is None:
        return ""
    value = f"{cell.value:.{digits}f}"
    if cell.spread is not None:
        return f"{value} ± {cell.spread:.{digits}f}"
    if cell.low is None or cell.high is None:
        return value
    return f"{value} [{cell.low:.{digits}f}, {cell.high:.{digits}f}]"


def origin(line: Line, table: Table, made: Sequence[str]) -> str:
    """`quoted`, or the number of the note that tells of the run."""
    return QUOTED if line.run is None else f"[{1 + made.index(_describe(line.run, table))}]"


def notes(table: Table) -> list[str]:
    """What made the values of a table: recipe, commit, seeds, clips of each split, leakage; the same is said once."""
    return list(dict.fromkeys(_describe(line.run, table) for line in table.lines if line.run is not None))


def quotation(table: Table) -> str:
    """Where the quoted rows of a table come from."""
    return f"{table.source}, {table.title.partition('. ')[0]}; not measured here"


def _describe(run: Run, table: Table) -> str:
    clips: dict[str, int] = {}
    for line in table.lines:
        for column, cell in zip(table.columns, line.cells, strict=True):
            if line.run is run and cell is not None and cell.n is not None:
                where = f"{column.location[0]} {column.location[1]}"
                clips[where] = max(clips.get(where, 0), cell.n)
    recipe = run.recipe if run.same_recipe else f"{run.recipe} (by its name alone)"
    parts = [
        f"recipe {recipe}",
        f"commit {', '.join(run.commits)}",
        f"seed{'s' if len(run.seeds) > 1 else ''} {', '.join(map(str, run.seeds))}",
        f"clips: {', '.join(f'{where} {count}' for where, count in clips.items())}",
    ]
    return "; ".join([*parts, *_settings(run, table), f"held-out clips that are also trained on: {run.leakage}"])


def _settings(run: Run, table: Table) -> list[str]:
    """What was chosen for the methods whose values a table shows."""
    metrics = {column.location[2] for column in table.columns}
    subjects = ["captions"] if metrics & set(CAPTION_METRICS) else []
    subjects += ["stage1", "stage2"] if metrics & LABEL_METRICS else []
    return [run.settings[subject] for subject in subjects if subject in run.settings]
