"""Tables as Markdown, CSV and HTML.

Markdown and HTML show a table as it is read, with the runs that measured it as notes below. CSV has one line for each
value, with all that is known of it, for further analysis.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jinja2

from mint.evaluation.metrics.captions import CAPTION_METRICS
from mint.evaluation.results.paper_tables import Table, TableRow
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
        The files that were written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = {"tables.md": markdown(tables), "tables.html": html(tables)}
    for table in tables:
        written[f"{table.name}.csv"] = csv_text(table)
    for name, text in written.items():
        write_whole(folder / name, text.encode())
    return [folder / name for name in written]


def markdown(tables: Sequence[Table]) -> str:
    """Return all tables, one after the other."""
    return f"{NOTE}\n\n" + "\n".join(map(_markdown, tables))


def _markdown(table: Table) -> str:
    # Rows of one run point to one note, by its number.
    made = notes(table)
    lines = [
        ["method", "origin", *(column.title for column in table.columns)],
        ["---", "---", *["---:"] * len(table.columns)],
    ]
    for row in table.rows:
        where = f"*{QUOTED}*" if row.run is None else origin(row, table, made)
        lines.append([row.name, where, *(show(cell, table.digits) for cell in row.cells)])

    text = f"### {table.title}\n\n"
    for line in lines:
        # A bar in a name would begin a cell of its own.
        text += f"| {' | '.join(line_cell.replace('|', '/') for line_cell in line)} |\n"
    text += "\n"
    if table.source:
        text += f"- *{QUOTED}*: {quotation(table)}\n"
    for number, note in enumerate(made, start=1):
        text += f"- [{number}] {note}\n"
    return text


def html(tables: Sequence[Table]) -> str:
    """Return all tables as one page that needs nothing from outside."""
    # Names of tasks and methods come from files: escaped, and a name that the template lacks is an error.
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {"show": show, "origin": origin, "notes": notes, "quotation": quotation}
    template = environment.from_string((resources.files("mint.evaluation.results") / "tables.html").read_text("utf-8"))
    return template.render(tables=tables, note=NOTE)


def csv_text(table: Table) -> str:
    """Return one line for each value that there is."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, FIELDS)
    writer.writeheader()
    for row in table.rows:
        for column, cell in zip(table.columns, row.cells, strict=True):
            if cell is None:
                continue
            task, split, metric = column.location
            where = {"table": table.name, "row": row.name, "task": task, "split": split, "metric": metric}
            writer.writerow({**where, **_numbers(cell), **_origin_fields(row, table)})
    return buffer.getvalue()


def _numbers(cell: Cell) -> dict[str, object]:
    """Return the numbers of a value for the CSV files."""
    numbers: dict[str, object] = {}
    for name in ("value", "spread", "low", "high"):
        number = getattr(cell, name)
        numbers[name] = None if number is None else round(number, 6)
    # A quoted value was measured on nobody knows how many clips.
    return {**numbers, "seeds": None if cell.n is None else cell.seeds, "clips": cell.n}


def _origin_fields(row: TableRow, table: Table) -> dict[str, object]:
    """Return what is known of the origin of a row's values for the CSV files."""
    if row.run is None:
        return {"origin": QUOTED, "source": table.source}
    return {
        "origin": "measured",
        "recipe": row.run.recipe,
        "commit": " ".join(row.run.commits),
        "seed": " ".join(map(str, row.run.seeds)),
        "settings": "; ".join(_settings(row.run, table)),
        "leakage": row.run.leakage,
    }


def show(cell: Cell | None, digits: int) -> str:
    """Return a value with its spread or interval; nothing where there is no value."""
    if cell is None:
        return ""

    value = f"{cell.value:.{digits}f}"
    if cell.spread is not None:
        return f"{value} ± {cell.spread:.{digits}f}"
    if cell.low is None or cell.high is None:
        return value
    return f"{value} [{cell.low:.{digits}f}, {cell.high:.{digits}f}]"


def origin(row: TableRow, table: Table, made: Sequence[str]) -> str:
    """Return `quoted`, or the number of the note about the run."""
    return QUOTED if row.run is None else f"[{1 + made.index(_describe(row.run, table))}]"


def notes(table: Table) -> list[str]:
    """Return what made the values of a table: recipe, commit, seeds, clips and leakage; the same is said once."""
    return list(dict.fromkeys(_describe(row.run, table) for row in table.rows if row.run is not None))


def quotation(table: Table) -> str:
    """Return where the quoted rows of a table come from."""
    return f"{table.source}, {table.title.partition('. ')[0]}; not measured here"


def _describe(run: Run, table: Table) -> str:
    """Return what made the values of a run in a table, in one line."""
    # Metrics of one task may have other numbers of clips (a class without positives): the largest is the task's.
    clips: dict[str, int] = {}
    for row in table.rows:
        for column, cell in zip(table.columns, row.cells, strict=True):
            if row.run is run and cell is not None and cell.n is not None:
                where = f"{column.location[0]} {column.location[1]}"
                clips[where] = max(clips.get(where, 0), cell.n)

    # The reader must be able to doubt: files that only share a name may be of two recipes.
    recipe = run.recipe if run.same_recipe else f"{run.recipe} (by its name alone)"
    parts = [
        f"recipe {recipe}",
        f"commit {', '.join(run.commits)}",
        f"seed{'s' if len(run.seeds) > 1 else ''} {', '.join(map(str, run.seeds))}",
        f"clips: {', '.join(f'{where} {count}' for where, count in clips.items())}",
        *_settings(run, table),
        f"held-out clips that are also trained on: {run.leakage}",
    ]
    return "; ".join(parts)


def _settings(run: Run, table: Table) -> list[str]:
    """Return what was chosen for the methods whose values a table shows."""
    metrics = {column.location[2] for column in table.columns}
    # Retrieval has nothing to choose; what was chosen for other tables would only confuse below this one.
    subjects = ["captions"] if metrics & set(CAPTION_METRICS) else []
    subjects += ["stage1", "stage2"] if metrics & LABEL_METRICS else []
    return [run.settings[subject] for subject in subjects if subject in run.settings]
