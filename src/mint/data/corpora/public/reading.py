"""Helpers of the readers of public corpora: they find the official files and read their rows one by one.

A reader is a function `(source, skip, audio)` that yields an `Example` for every clip that the official files in the
folder `source` name, in their order, whether or not its recording is on disk. What the files themselves exclude, and
each row that is broken, is told to `skip(name, reason)`; what a person should know of the corpus as a whole to
`skip.note(line)`. The recordings are looked for where they are published, or below `audio`, if it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from mint.data.corpora.outputs import Skip
from mint.data.corpora.public.catalogue import CATALOGUE
from mint.text_files import csv_records
from mint.types import Example, MintError

Row = TypeVar("Row")

BROKEN = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""Errors that reading a value of the wrong form raises."""


def official_file(corpus: str, source: Path, *names: str) -> Path:
    """Return the first of some official files or folders, in the source or in a folder in it.

    Args:
        corpus: a name in the catalogue.
        source: the folder that was given.
        names: paths relative to the folder of the corpus, any of which will do.

    Raises:
        MintError: none is there; the message says what was looked for and where to get the corpus.
    """
    path = find_any(source, *names)

    if path is None:
        raise not_the_corpus(corpus, source, f"there is no {' or '.join(names)} in it")
    return path


def not_the_corpus(corpus: str, source: Path, reason: str) -> MintError:
    """Return the error that a source is not the folder of a corpus; `reason` is that of a folder that exists."""
    entry = CATALOGUE[corpus]
    if not source.exists():
        reason = "no such folder"
    elif not source.is_dir():
        reason = "it is a file, not a folder; unpack it if it is an archive"

    return MintError(f"{source}: {reason}; give the folder of {entry.title} ({entry.where})")


def find_any(source: Path, *names: str) -> Path | None:
    """Return the first of some files or folders, in the source or in a folder in it; None where there is none."""
    for name in names:
        for path in (source / name, *sorted(source.glob(f"*/{name}"))):
            # What is hidden is a copy that some program keeps for itself, as in `.ipynb_checkpoints`.
            is_hidden = path.relative_to(source).parts[0].startswith(".")
            if path.exists() and not is_hidden:
                return path
    return None


def audio_folder(home: Path, audio: Path | None, *names: str) -> Path:
    """Return the first of some folders of recordings in that of the corpus, or in `audio`, which may be it itself."""
    # A folder that was given holds the recordings, whatever it is called; a published one has its own name.
    return find_any(audio or home, *names) or audio or home / names[0]


def csv_rows(
    path: Path, columns: Sequence[str], skip: Skip, delimiter: str = ","
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows under a CSV's header with their lines.

    A row that lacks one of the columns, or has nothing in the first of them, is skipped: that one names the clip.

    Raises:
        MintError: the header lacks one of the columns, or the file is no CSV.
    """
    leave_out = skip.lines_of(path)
    for line, row in csv_records(path, columns, leave_out, delimiter, "take the official file"):
        # `csv_records` gives what a row has; the official tables have every column in every row.
        if any(name not in row for name in columns):
            leave_out(line, "fewer fields than the header")
        elif not row[columns[0]].strip():
            leave_out(line, f"it has no {columns[0]}")
        else:
            yield line, row


def each_row(
    rows: Iterable[tuple[int, Row]], make: Callable[[Row], Example | None], leave_out: Callable[[int, str], None]
) -> Iterator[Example]:
    """Yield what `make` makes of each row; a row of which it makes nothing is left out, and never ends the corpus.

    Args:
        rows: with their lines.
        make: raises MintError for a row that is broken; None: it has told the reason itself.
        leave_out: told the line and the reason.
    """
    for line, row in rows:
        # The example is yielded outside the block: what its consumer raises is no fault of the row.
        try:
            example = make(row)
        except MintError as error:
            leave_out(line, str(error))
        except BROKEN as error:
            # What no check foresees: the row is named, and the corpus goes on.
            leave_out(line, f"not as published ({type(error).__name__}: {error})")
        else:
            if example is not None:
                yield example


def spoken(name: str) -> str:
    """Return a name as it is spoken: 'mallet_percussion' becomes 'mallet percussion'."""
    return " ".join(name.replace("_", " ").split())
