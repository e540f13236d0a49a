"""What the readers of public corpora share: finding the official files and the recordings that they name.

A reader is a function `(source, skip, audio)` that yields an `Example` for every clip that the official files in the
folder `source` name, in their order, whether or not its recording is on disk. What the files themselves exclude is told
to `skip(name, reason)`, and what a person should know of the corpus as a whole to `skip.note(line)`. The recordings are
looked for where they are published, or below `audio`, if it is given.
"""

from __future__ import annotations

import csv
import json
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mint.data.audio.decode import FOREIGN
from mint.data.corpora.own.folder import SUFFIXES
from mint.data.corpora.public.catalogue import CATALOGUE
from mint.types import MintError

FIELD_LIMIT = 1 << 24
"""Characters a CSV field may have: FMA's fields of HTML may exceed the 128 KiB that Python allows."""


@dataclass(frozen=True)
class Skip:
    """Told the name and the reason of what is left out."""

    leave_out: Callable[[str, str], None]
    note: Callable[[str], None]
    """Told, in a line, what a person should know besides."""

    def __call__(self, name: str, reason: str) -> None:
        """Leave a clip out."""
        self.leave_out(name, reason)


ignore = Skip(lambda name, reason: None, lambda line: None)
"""Forgets."""


def find(corpus: str, source: Path, *names: str) -> Path:
    """The first of some official files or folders, in the source or in a folder in it.

    Args:
        corpus: a name in the catalogue.
        source: the folder that was given.
        names: paths relative to the folder of the corpus, any of which will do.

    Raises:
        MintError: none is there; the message says what was looked for and where to get the corpus.
    """
    if (found := find_any(source, *names)) is None:
        entry = CATALOGUE[corpus]
        reason = f"there is no {' or '.join(names)} in it" if source.is_dir() else "no such folder"
        raise MintError(f"{source}: {reason}; give the folder of {entry.title} ({entry.where})")
    return found


def find_any(source: Path, *names: str) -> Path | None:
    """As `find`; None where there is none."""
    candidates = (path for name in names for path in (source / name, *sorted(source.glob(f"*/{name}"))))
    return next((path for path in candidates if path.exists()), None)


def audio_folder(home: Path, audio: Path | None, *names: str) -> Path:
    """The first of some folders of recordings in that of the corpus, or in `audio`, which may be it itself."""
    return find_any(audio or home, *names) or audio or home / names[0]


def csv_rows(path: Path, columns: Iterable[str], skip: Skip, delimiter: str = ",") -> Iterator[dict[str, str]]:
    """The rows under a CSV's header, as text; a row that lacks one of the columns is skipped.

    Raises:
        MintError: the header lacks one of the columns, or the file is no CSV.
    """
    rows = csv_lines(path, delimiter=delimiter)
    _, header = next(rows, (1, []))
    header = [name.strip() for name in header]
    if missing := [name for name in columns if name not in header]:
        raise MintError(
            f"{path}, line 1: no column {missing[0]!r} (found: {', '.join(header) or 'none'}); take the official file"
        )
    needed = max(header.index(name) for name in columns)
    for number, row in rows:
        if len(row) <= needed:
            skip(f"{path.name}, line {number}", f"broken line of {path.name}")
        else:
            yield dict(zip(header, row, strict=False))


def csv_lines(path: Path, delimiter: str = ",", after_space: bool = False) -> Iterator[tuple[int, list[str]]]:
    """The lines of a CSV that are not blank, with their numbers.

    Args:
        path: each line in UTF-8, else in Windows-1252, else in Latin-1 (Clotho's metadata has several).
        delimiter: between fields.
        after_space: whether a space after a delimiter belongs to it.

    Raises:
        MintError: the file is no CSV.
    """
    csv.field_size_limit(FIELD_LIMIT)
    with path.open("rb") as file:
        reader = csv.reader(_decoded(file), delimiter=delimiter, skipinitialspace=after_space)
        try:
            for row in reader:
                if any(row):
                    yield reader.line_num, row
        except csv.Error as error:
            raise MintError(f"{path}, line {reader.line_num}: no CSV ({error}); fetch the file again") from None


def _decoded(file: Iterable[bytes]) -> Iterator[str]:
    """The lines of a text, whichever ends they have, without a byte order mark."""
    first = True
    for block in file:
        for line in block.splitlines(keepends=True):
            yield _text(line).removeprefix("\ufeff") if first else _text(line)
            first = False


def _text(line: bytes) -> str:
    for encoding in ("utf-8", "cp1252"):
        with suppress(UnicodeDecodeError):
            return line.decode(encoding)
    return line.decode("latin-1")


def read_json(path: Path, hook: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> Any:
    """A JSON file; each object in it as `hook` leaves it.

    Raises:
        MintError: the file is no JSON.
    """
    try:
        return json.loads(path.read_bytes(), object_hook=hook)
    except (ValueError, RecursionError) as error:
        raise MintError(f"{path}: not valid JSON ({error}); fetch or unpack the file again") from None


def walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The folders at any depth and the names of the files in them, in order; links are followed, but not in circles."""
    seen: set[tuple[int, int]] = set()
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        state = os.stat(parent)  # noqa: PTH116
        if (state.st_dev, state.st_ino) in seen:
            subfolders.clear()
        else:
            seen.add((state.st_dev, state.st_ino))
            subfolders.sort()
            yield parent, sorted(names)


def spoken(name: str) -> str:
    """'mallet_percussion' -> 'mallet percussion'."""
    return " ".join(name.replace("_", " ").split())


class Recordings:
    """The recordings under some folders, at any depth, by file name without suffix.

    There may be millions: of each the stem alone is kept, folders and suffixes are shared.

    Args:
        folders: where to look; of recordings of one name the first counts, or the first that can be decoded.
    """

    def __init__(self, *folders: Path) -> None:
        self._root = folders[0]
        self._places: dict[str, tuple[str, str]] = {}
        self._spelled: dict[str, str] = {}
        shared: dict[tuple[str, str], tuple[str, str]] = {}
        for folder in folders:
            for parent, names in walk(folder):
                for name in names:
                    stem, suffix = os.path.splitext(name)  # noqa: PTH122
                    key = composed(stem)
                    if suffix.lower() in SUFFIXES and self._is_better(suffix, self._places.get(key)):
                        self._places[key] = shared.setdefault((parent, suffix), (parent, suffix))
                        self._spelled.pop(key, None)
                        if key != stem:
                            self._spelled[key] = stem

    def _is_better(self, suffix: str, known: tuple[str, str] | None) -> bool:
        """Whether a recording is to be taken rather than one of its name that was found before, if any was."""
        return known is None or (known[1].lower() in FOREIGN and suffix.lower() not in FOREIGN)

    def find(self, *stems: str, published: str = "") -> Path:
        """The file with the first of these names that there is; where there is none, a path at which nothing lies.

        Args:
            stems: names without suffix, the surest first.
            published: where the recording lies in the folder as it is published; by default, the first name as a wav.
        """
        for key in map(composed, stems):
            if (place := self._places.get(key)) is not None:
                return Path(place[0], self._spelled.get(key, key) + place[1])
        return self._root / (published or f"{stems[0]}.wav")


def composed(stem: str) -> str:
    """One form of accented letters: file systems and tables differ."""
    return stem if stem.isascii() else unicodedata.normalize("NFC", stem)
