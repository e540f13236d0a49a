"""Names of 128 bits: what millions of paths, clips and lines are known by, in 16 bytes each.

An array of ids [N, 2] int64 is kept in the order of its first column and searched as a whole. Two of a hundred million
different ids have the same first half once in thousands of tables; `find` then misses one of them, and never takes one
for the other.
"""

from __future__ import annotations

import hashlib
import uuid
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
"""[N, 2]."""
ID_BYTES = 16


def id_of(text: str | bytes) -> bytes:
    """The id of a text, which may be a path that is not valid Unicode."""
    content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return hashlib.blake2b(content, digest_size=ID_BYTES).digest()


def as_ids(joined: bytes) -> Ids:
    """Ids that were joined, [N, 2]."""
    return np.frombuffer(joined, np.int64).reshape(-1, 2)


def find(ids: Ids, wanted: Ids) -> NDArray[np.int64]:
    """Where in sorted ids each of some others is, [M]; -1: nowhere.

    Args:
        ids: [N, 2], ascending in the first column, which lies in one stretch of memory (`np.asfortranarray`).
        wanted: [M, 2].
    """
    if not len(ids):
        return np.full(len(wanted), -1)
    places = np.searchsorted(ids[:, 0], wanted[:, 0]).clip(max=len(ids) - 1)
    return np.where((ids[places] == wanted).all(axis=1), places, -1)


def latest(ids: Ids) -> NDArray[np.int64]:
    """Rows that sort ids and keep the last of each."""
    order = np.argsort(ids[:, 0], kind="stable")
    first_halves = ids[order, 0]
    last = np.ones(len(ids), dtype=bool)
    last[:-1] = first_halves[1:] != first_halves[:-1]
    return order[last]


SUFFIX = ".npz"


def write_table(place: Path, arrays: dict[str, Any]) -> bool:
    """Write named arrays; False, and nothing is changed, where that is not possible (a full disk, no permission)."""
    half_written = place.with_name(f"{uuid.uuid4().hex}.tmp")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with half_written.open("wb") as file:
            np.savez(file, **arrays)
        half_written.replace(place)
    except OSError:
        with suppress(OSError):
            half_written.unlink()
        return False
    return True


def read_table(place: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]] | None:
    """The named arrays; None where one of them cannot be had."""
    try:
        with np.load(place) as kept:
            return {name: kept[name] for name in names}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
