"""Rows of a table of one's own: CSV with any delimiter, JSON Lines, or the `metadata` file of an *audiofolder*.

A table may name its columns as it likes: `--columns audio=file_name,caption=text` says which column stands for what.
Where no column is called `audio`, `file_name` is taken for it, as the Hugging Face Hub's audiofolders have it.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mint.data.manifests.manifest import SPLITS
from mint.text_files import DELIMITERS, csv_lines, csv_records, delimiter_of, text_lines
from mint.types import MintError

KNOWN = (
    "audio",
    "label",
    "labels",
    "caption",
    "id",
    "start",
    "duration",
    "task",
    "prompt",
    "answer",
    "split",
    "corpus",
)
"""The columns that mean something, beside `caption_1`, `caption_2`, ... and those of `GROUPS`."""
GROUPS = ("group", "recording_id", "freesound_id", "youtube_id", "fma_track", "src_file", "fsid")
"""Columns, in lower case, that say which recording a clip is cut from; the first that is filled counts."""
CAPTION = re.compile(r"caption(_\w+)?")
FILE_NAME = "file_name"
METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl")
"""Names of the table in an audiofolder."""
ALIASES = {
    "training": "train",
    **dict.fromkeys(("val", "valid", "dev"), "validation"),
    "testing": "test",
}
"""Other names of splits, in any case."""
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")

Row = dict[str, Any]
Columns = Mapping[str, str]
"""Each column that means something, with its name in the table."""


def read_columns(text: str) -> dict[str, str]:
    """Return what `audio=file_name,caption=text` says: the name in the table of each column that means something.

    Raises:
        MintError: a pair without `=`, or a column that means nothing.
    """
    columns: dict[str, str] = {}

    for pair in text.split(","):
        meaning, equals, name = (word.strip() for word in pair.partition("="))
        if not (equals and meaning and name):
            raise MintError(f"--columns {text!r}: {pair!r} is no pair; write it as audio=file_name,caption=text")

        # A word that means nothing is a typing error: kept silently, it would leave the column unread.
        if meaning not in (*KNOWN, *GROUPS) and not CAPTION.fullmatch(meaning):
            near = difflib.get_close_matches(meaning, (*KNOWN, *GROUPS), n=1)
            cure = f"did you mean {near[0]!r}?" if near else f"choose among {', '.join((*KNOWN, *GROUPS))}"
            raise MintError(f"--columns {text!r}: {meaning!r} is no column that means something; {cure}")
        columns[meaning] = name
    return columns


def tables_in(folder: Path) -> list[tuple[Path, str | None]]:
    """Return the `metadata` tables of an audiofolder, in it or in its folders of splits, each with its split."""
    # A table above the splits names the recordings of all of them.
    for name in METADATA:
        if (folder / name).is_file():
            return [(folder / name, None)]

    tables: list[tuple[Path, str | None]] = []
    for part in sorted(path for path in folder.iterdir() if path.is_dir()):
        # Other folders than those of splits may hold an audiofolder of their own, which is not a part of this one.
        split = split_named(part.name)
        for name in METADATA:
            if split is not None and (part / name).is_file():
                tables.append((part / name, split))
                break
    return tables


def column_names(table: Path) -> list[str]:
    """Return the columns of a table, or the keys of its first line of JSON; none where it cannot be read."""
    try:
        if table.suffix.lower() == ".jsonl":
            _, row = next(_json_rows(table, lambda line, reason: None), (1, {}))
            return list(row)

        # The columns of a metadata table are looked for where any of them is set off.
        names: list[str] = []
        for mark in DELIMITERS:
            _, header = next(csv_lines(table, mark), (1, []))
            if len(header) > len(names):
                names = [name.strip() for name in header]
        return names
    except MintError:
        return []


def split_named(name: str) -> str | None:
    """Return the split that a name stands for, in any case; None for other names."""
    split = ALIASES.get(name.strip().lower(), name.strip().lower())
    return split if split in SPLITS else None


def refuse_archive(source: Path) -> None:
    """Refuse an archive in place of a folder or table.

    Raises:
        MintError: it says to unpack it.
    """
    if source.suffix.lower() in ARCHIVES and source.is_file():
        raise MintError(f"{source} is an archive; unpack it, and give the folder or the table in it")


def table_rows(
    source: Path,
    skip: Callable[[int, str], None],
    columns: Columns | None = None,
    needed: tuple[str, ...] = ("audio",),
    cure: str = "name the columns in the first line, or say which is which with --columns audio=NAME,label=NAME",
) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a table under the names that mean something, each with its line; empty fields are left out.

    Args:
        source: `.jsonl` is read as JSON Lines, anything else as CSV with the delimiter of its first line.
        skip: told the line and the fault of each row that cannot be read.
        columns: the names in the table of columns that mean something; the others stand for themselves.
        needed: columns that the header of a CSV must have.
        cure: what a person should do where the header lacks one.

    Raises:
        MintError: the header of a CSV lacks a column, or the file is no text.
    """
    columns = dict(columns or {})

    if source.suffix.lower() == ".jsonl":
        rows = _json_rows(source, skip)
    else:
        name = columns.get("audio", "audio")
        delimiter = delimiter_of(source, name)
        # A table may have both columns; then `audio` is meant.
        if "audio" not in columns and not _has_column(source, delimiter, name):
            delimiter = delimiter_of(source, FILE_NAME)
            if _has_column(source, delimiter, FILE_NAME):
                columns["audio"] = FILE_NAME
        # Every column that was spoken of must be there: a misspelt one would be empty in each row.
        names = [columns.get(meaning, meaning) for meaning in dict.fromkeys((*needed, *columns))]
        rows = csv_records(source, names, skip, delimiter, cure)

    for line, row in rows:
        yield line, _renamed(row, columns)


def _has_column(source: Path, delimiter: str, name: str) -> bool:
    """Return whether the first line of a CSV names a column."""
    try:
        next(csv_records(source, [name], lambda line, reason: None, delimiter), None)
    except MintError:
        return False
    return True


def _renamed(row: Row, columns: Columns) -> Row:
    """Return the filled fields of a row, stripped, under the names of what they stand for."""
    # An empty field says as little as a column that is not there.
    filled: Row = {}
    for name, value in row.items():
        text = value.strip() if isinstance(value, str) else value
        if text not in ("", None):
            filled[name] = text
    if "audio" not in columns and "audio" not in filled and FILE_NAME in filled:
        columns = {**columns, "audio": FILE_NAME}

    # A column that is given another name, or whose name was given to another one, does not stand for itself.
    renamed = {name: value for name, value in filled.items() if name not in (*columns, *columns.values())}
    for meaning, name in columns.items():
        if name in filled:
            renamed[meaning] = filled[name]
    return renamed


def _json_rows(source: Path, skip: Callable[[int, str], None]) -> Iterator[tuple[int, Row]]:
    """Yield the object of each line that is not blank."""
    # By line, so that one broken object costs its line alone.
    for line, text in enumerate(text_lines(source), start=1):
        if text.isspace():
            continue

        try:
            row = json.loads(text)
        except RecursionError:
            skip(line, "JSON that is nested too deeply; write one flat object a line")
        except ValueError as error:
            skip(line, f"not valid JSON ({error}); write one object a line")
        else:
            if isinstance(row, dict):
                yield line, row
            else:
                skip(line, f"{type(row).__name__} in place of an object; write one object a line")
