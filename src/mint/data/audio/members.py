"""Where a clip's bytes lie: a file, or a member of a tar shard, named `shards/000000.tar::000000.flac`.

A member is read in place: its shard is never unpacked, and only the bytes that a reader asks for are read. So manifests
over shards serve wherever manifests over files do, and a clip has the same bytes, digest and features in both.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import time
from array import array
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MARK = ".tar::"
"""Between a shard and its member; a file whose own name holds it is taken for a member."""
HEAD = 1 << 16
"""Bytes that tell most files of one size apart."""
ABANDONED_SECONDS = 24 * 60 * 60.0
"""A half-written file that is older than this belongs to no living writer."""


@dataclass(frozen=True)
class Place:
    """A stretch of a file."""

    file: str
    offset: int
    size: int
    modified: int
    """Nanoseconds; of the file, so of the whole shard."""
    changed: int
    """Likewise the time of the last change of the file's state, which no program sets at will."""


def is_member(path: str | Path) -> bool:
    """Whether a path names a member of a shard."""
    return MARK in str(path)


def locate(path: str | Path) -> Place:
    """Find a file or member without reading it.

    Raises:
        OSError: it is missing, no regular file, not permitted, or its shard cannot be read.
    """
    file, _, member = str(path).partition(MARK)
    if member:
        file += MARK.removesuffix("::")
    try:
        state = Path(file).stat()
    except ValueError as error:  # a null byte, or half of a surrogate pair
        raise FileNotFoundError(f"no file can have this name ({error})") from None
    if not stat.S_ISREG(state.st_mode):
        raise FileNotFoundError(f"not a file: {file!r}")
    if not member:
        return Place(file, 0, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    members = _members(file, state.st_mtime_ns, state.st_size)
    if member not in members:
        raise FileNotFoundError(f"{file} has no member {member!r}")
    offset, size = members[member]
    return Place(file, offset, size, state.st_mtime_ns, state.st_ctime_ns)


def states(paths: Iterable[str]) -> NDArray[np.int64]:
    """Size and times of many files and members, [N, 3]; -1 where `locate` would raise."""
    found = array("q")
    known: dict[str, Any] = {}
    """Times and members of each shard: a million members lie in some thousands."""
    for path in paths:
        try:
            if MARK in path:
                shard, _, member = path.partition(MARK)
                if shard not in known:
                    place = locate(f"{shard}.tar")
                    known[shard] = (place.modified, place.changed, _members(place.file, place.modified, place.size))
                modified, changed, members = known[shard]
                found.extend((members[member][1], modified, changed))
            else:
                state = os.stat(path)  # noqa: PTH116  # a Path for each would take longer than the call
                found.extend((state.st_size, state.st_mtime_ns, state.st_ctime_ns))
        except (OSError, ValueError, KeyError):
            found.extend((-1, -1, -1))
    return np.frombuffer(found, np.int64).reshape(-1, 3)


def open_stored(path: str | Path) -> io.BufferedReader:
    """Open a file or member for reading; errors as `locate`."""
    place = locate(path)
    file = Path(place.file).open("rb")  # noqa: SIM115
    return io.BufferedReader(_Section(file, place.offset, place.size), HEAD) if place.offset else file


def clear_abandoned(folder: Path) -> None:
    """Remove half-written files, `*.tmp`, that belong to no living writer any more."""
    for path in folder.glob("*.tmp"):
        with suppress(OSError):  # its writer has finished, or it may not be removed
            if path.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                path.unlink()


def digest(path: str | Path, limit: int | None = None) -> str:
    """SHA-256, in 32 hexadecimal digits, of all bytes or of the first `limit`; errors as `locate`."""
    with open_stored(path) as file:
        if limit is not None:
            return hashlib.sha256(file.read(limit)).hexdigest()[:32]
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


class _Section(io.RawIOBase):
    """Part of a file as a file of its own; closes the file with itself."""

    def __init__(self, file: io.BufferedReader, offset: int, size: int) -> None:
        self._file, self._offset, self._size = file, offset, size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"a position of {base + offset}; it must not be negative")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = max(0, min(len(buffer), self._size - self._position))
        self._file.seek(self._offset + self._position)
        read = self._file.readinto(memoryview(buffer)[:count])
        self._position += read
        return read

    def close(self) -> None:
        self._file.close()
        super().close()


@lru_cache(maxsize=16)
def _members(file: str, modified: int, size: int) -> dict[str, tuple[int, int]]:
    """Offset and size of each regular member; read again once the shard's time or size is another."""
    try:
        with tarfile.open(file, "r:") as shard:
            return {member.name: (member.offset_data, member.size) for member in shard if member.isreg()}
    except tarfile.TarError as error:
        raise OSError(f"{file} is not a tar file that can be read ({error})") from None
