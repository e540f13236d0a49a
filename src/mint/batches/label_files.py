"""Timelines as text: a table, JSON, Audacity's label track, and the selection table of Raven."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mint.inference import Stretch
from mint.text_files import one_line
from mint.types import MintError

RAVEN_COLUMNS = (
    *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"),
    *("Begin Path", "Annotation", "Score"),
)
SUFFIXES = {".selections.txt": "raven", ".txt": "audacity", ".json": "json", ".csv": "table"}
"""The format of a file by the end of its name, the longest first."""
Timeline = tuple[str, float, Sequence[Stretch]]
"""A recording, the highest frequency in it in Hz, and what is heard where."""


def format_of(output: Path | None, chosen: str | None) -> str:
    """Return the format of a file: the one that was chosen, else that of its suffix; without a file a table.

    Raises:
        MintError: the suffix names none.
    """
    if chosen is not None:
        return chosen
    if output is None:
        return "table"

    # The longest suffix comes first, as .selections.txt is a .txt too.
    for suffix, name in SUFFIXES.items():
        if output.name.lower().endswith(suffix):
            return name
    raise MintError(f"--output {str(output)!r}: give a name that ends with {', '.join(SUFFIXES)}, or --format")


def table_line(stretch: Stretch) -> str:
    """Return the line of a stretch as it is printed for people."""
    score = "" if stretch.score is None else f"  {stretch.score:7.3f}"
    return f"{clock(stretch.start):>10}  {clock(stretch.end):>10}{score}  {one_line(stretch.answer)}"


def clock(seconds: float) -> str:
    """Return a time as hours, minutes and seconds with two decimals."""
    # Rounded first, or 59.999 would be 60.00 seconds.
    hundredths = round(seconds * 100)
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest / 100:05.2f}"


def as_text(name: str, timelines: Sequence[Timeline]) -> str:
    """Return timelines in one of the formats.

    Raises:
        MintError: the format holds one recording, and there are several.
    """
    if name == "audacity" and len(timelines) != 1:
        raise MintError("a label track belongs to one recording; give one file, or another --format")
    return FORMATS[name](timelines)


def _table(timelines: Sequence[Timeline]) -> str:
    """Return comma-separated values, with the recording in each row."""
    rows: list[list[Any]] = [["audio", "start", "end", "answer", "score"]]
    for path, _, stretches in timelines:
        for one in stretches:
            rows.append([path, _seconds(one.start), _seconds(one.end), one.answer, one.score])
    # The csv module writes line ends of its own, which must not be translated again.
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _json(timelines: Sequence[Timeline]) -> str:
    # One flat array, as the other verbs print it.
    rows = []
    for path, _, stretches in timelines:
        for one in stretches:
            rows.append({"audio": path} | asdict(one))
    # A score that is NaN would be JSON that no other program reads.
    return json.dumps(rows, indent=2, allow_nan=False) + "\n"


def _audacity(timelines: Sequence[Timeline]) -> str:
    """Return a label track as Audacity imports it: start, end and text, set off by tabs."""
    # A tab or a line break in a label would end it.
    [(_, _, stretches)] = timelines
    return "".join(f"{_seconds(one.start)}\t{_seconds(one.end)}\t{one_line(one.answer)}\n" for one in stretches)


def _raven(timelines: Sequence[Timeline]) -> str:
    """Return a selection table as Raven opens it: a box over all frequencies for each stretch."""
    rows: list[list[Any]] = [list(RAVEN_COLUMNS)]
    for path, highest, stretches in timelines:
        for one in stretches:
            times = [_seconds(one.start), _seconds(one.end), "0.0", f"{highest:.1f}"]
            score = "" if one.score is None else f"{one.score:.4f}"
            # Raven takes a quote in a cell as it is, and a tab for the next cell.
            rows.append([len(rows), "Spectrogram 1", 1, *times, path, one_line(one.answer), score])
    return "".join("\t".join(map(str, row)) + "\n" for row in rows)


def _seconds(seconds: float) -> str:
    return f"{seconds:.6f}"


FORMATS: dict[str, Callable[[Sequence[Timeline]], str]] = {
    "table": _table,
    "json": _json,
    "audacity": _audacity,
    "raven": _raven,
}
"""How each format is written."""
