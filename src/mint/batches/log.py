"""Logs: files of JSON Lines that grow while a job runs, and lose nothing but half a line to a kill."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mint.data.manifests.manifest import to_json
from mint.types import MintError

NUMBERS = "float32"
"""Key of the numbers of an array in a line: their bytes in base64."""
BLOCK = 1 << 16


class Log:
    """A log that is open for appending.

    Args:
        path: the file; half a line at its end, which a killed writer left, is removed.
        plain: whether arrays are written as lists of numbers, which others read; else as bytes, in a third of the
            room.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, plain: bool) -> None:
        self._plain = plain
        # Each line goes to the system at once, so that a kill of the process takes no line that was written.
        self._file = path.open("ab", buffering=0)
        end = _end_of_last_line(path)
        if end < self._file.tell():
            self._file.truncate(end)

    def write(self, row: dict[str, Any]) -> None:
        """Append one row, whose values may be arrays of numbers."""
        stored = with_lists if self._plain else _with_bytes
        self._file.write(to_json(stored(row)) + b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_log(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a log, each with the position in bytes at which its line begins.

    Raises:
        MintError: a whole line is no row.
    """
    position = 0

    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            # A writer that was killed, or is still writing, leaves half a line.
            if line.endswith(b"\n"):
                yield position, parse_row(line, f"{path}, line {number}")
            position += len(line)


def parse_row(line: bytes, name: str) -> dict[str, Any]:
    """Return the row of a line, with its arrays of numbers; MintError: it is none."""
    try:
        row = json.loads(line)
        if not isinstance(row["audio"], str):
            raise TypeError
    except (ValueError, TypeError, KeyError):
        raise MintError(f"{name}: no row of results; remove this line to have its clip done again") from None

    # What is no array is left as JSON gave it.
    for key, value in row.items():
        if isinstance(value, dict) and value.keys() == {NUMBERS, "shape"}:
            row[key] = np.frombuffer(base64.b64decode(value[NUMBERS]), "<f4").reshape(value["shape"])
    return row


def with_lists(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its arrays as lists of numbers."""
    lists = dict(row)
    for key, value in row.items():
        if isinstance(value, np.ndarray):
            # Nine significant digits give every float32 back, and are half of what would be printed.
            flat = np.array([float(f"{number:.9g}") for number in value.flatten().tolist()])
            lists[key] = flat.reshape(value.shape).tolist()
    return lists


def _with_bytes(row: dict[str, Any]) -> dict[str, Any]:
    stored = dict(row)
    for key, value in row.items():
        if isinstance(value, np.ndarray):
            numbers = base64.b64encode(value.astype("<f4").tobytes())
            stored[key] = {NUMBERS: numbers.decode(), "shape": list(value.shape)}
    return stored


def _end_of_last_line(path: Path) -> int:
    """Return the number of bytes up to the end of the last whole line."""
    with path.open("rb") as file:
        # From the end on, as a log may be long and its last line is short.
        end = file.seek(0, 2)

        while end > 0:
            begin = max(0, end - BLOCK)
            file.seek(begin)
            newline = file.read(end - begin).rfind(b"\n")
            if newline >= 0:
                return begin + newline + 1
            end = begin
    return 0
