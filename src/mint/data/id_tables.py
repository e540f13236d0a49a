"""Ids of 128 bits, which stand for millions of paths, clips and lines in 16 bytes each, and tables of them on disk.

An array of ids [N, 2] int64 is sorted by its first column and searched as a whole. Among a hundred million ids, two
with the same first half occur once in thousands of tables; `find` then misses one of them, but never takes one for the
other.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mint.files import writing

Ids = NDArray[np.int64]
"""[N, 2]."""
ID_BYTES = 16


def id_of(text: str | bytes) -> bytes:
    """Return the id of a text, which may be a path that is not valid Unicode."""
    # 16 bytes: even among a million million texts no two are likely to share an id.
    content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return hashlib.blake2b(content, digest_size=ID_BYTES).digest()


def as_ids(joined: bytes) -> Ids:
    """Return ids [N, 2] that were joined to one text of bytes."""
    return np.frombuffer(joined, np.int64).reshape(-1, 2)


def find(ids: Ids, wanted: Ids) -> NDArray[np.int64]:
    """Return the row of each wanted id among sorted ids, [M]; -1 if it is not there.

    Args:
        ids: [N, 2], ascending in the first column, which lies in one stretch of memory (`np.asfortranarray`).
        wanted: [M, 2].
    """
    if not len(ids):
        return np.full(len(wanted), -1)

    # The first half leads to the only row that it can be, and both halves must agree there.
    rows = np.searchsorted(ids[:, 0], wanted[:, 0]).clip(max=len(ids) - 1)
    return np.where((ids[rows] == wanted).all(axis=1), rows, -1)


def latest(ids: Ids) -> NDArray[np.int64]:
    """Return the rows that sort ids [N, 2] and keep the last of equal ones."""
    order = np.argsort(ids[:, 0], kind="stable")

    # A row is kept if the next one begins with another first half.
    first_halves = ids[order, 0]
    last = np.ones(len(ids), dtype=bool)
    last[:-1] = first_halves[1:] != first_halves[:-1]
    return order[last]


SUFFIX = ".npz"
"""Suffix of the files that hold tables."""


def write_table(path: Path, arrays: dict[str, Any]) -> bool:
    """Write named arrays; return False, with nothing changed, where that is not possible (full disk, no permission)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not compressed: a table of a million rows is to be read at the speed of the disk.
        with writing(path) as file:
            np.savez(file, **arrays)
    except OSError:
        return False
    return True


def read_table(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]] | None:
    """Read named arrays; None if one of them is missing or damaged."""
    try:
        with np.load(path) as arrays:
            return {name: arrays[name] for name in names}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
