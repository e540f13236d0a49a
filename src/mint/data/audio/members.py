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
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MARK = ".tar::"
"""Stands between a shard and its member; a file whose own name holds it is taken for a member."""
HEAD = 1 << 16
"""Number of bytes at the beginning of a file that tell most files of one size apart."""


@dataclass(frozen=True)
class Location:
    """A range of bytes in a file, and when that file was changed."""

    file: str
    offset: int
    size: int
    modified: int
    """Nanoseconds of the file's last modification; all members of a shard share it."""
    changed: int
    """Nanoseconds of the last change of the file's state, which no program sets at will."""


def is_member(path: str | Path) -> bool:
    """Return whether a path names a member of a shard."""
    return MARK in str(path)


def locate(path: str | Path) -> Location:
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
    if stat.S_ISDIR(state.st_mode) and not member:
        raise IsADirectoryError(f"a folder: {file!r}")
    if not stat.S_ISREG(state.st_mode):
        raise FileNotFoundError(f"not a file: {file!r}")
    if not member:
        return Location(file, 0, state.st_size, state.st_mtime_ns, state.st_ctime_ns)

    # Time and size are part of the cache's key, so that a shard that was written again is read again.
    members = _members(file, state.st_mtime_ns, state.st_size)
    if member not in members:
        raise FileNotFoundError(f"{file} has no member {member!r}")
    offset, size = members[member]
    return Location(file, offset, size, state.st_mtime_ns, state.st_ctime_ns)


def states(paths: Iterable[str]) -> NDArray[np.int64]:
    """Return size and times of many files and members, [N, 3]; -1 where `locate` would raise."""
    values = array("q")
    # Times and members of each shard.
    shards: dict[str, tuple[int, int, dict[str, tuple[int, int]]]] = {}
    for path in paths:
        try:
            if MARK in path:
                # Once for each shard: a million members lie in some thousands of them.
                shard, _, member = path.partition(MARK)
                if shard not in shards:
                    location = locate(f"{shard}.tar")
                    members = _members(location.file, location.modified, location.size)
                    shards[shard] = (location.modified, location.changed, members)
                modified, changed, members = shards[shard]
                values.extend((members[member][1], modified, changed))
            else:
                state = os.stat(path)  # noqa: PTH116  # a Path for each would take longer than the call
                values.extend((state.st_size, state.st_mtime_ns, state.st_ctime_ns))
        except (OSError, ValueError, KeyError):
            values.extend((-1, -1, -1))
    return np.frombuffer(values, np.int64).reshape(-1, 3)


def open_stored(path: str | Path) -> io.BufferedReader:
    """Open a file or member for reading; errors as `locate`."""
    location = locate(path)
    file = Path(location.file).open("rb")  # noqa: SIM115  # closed by whoever reads it
    if not location.offset:
        return file

    return io.BufferedReader(Section(file, location.offset, location.size), HEAD)


def digest(path: str | Path, limit: int | None = None) -> str:
    """Return the SHA-256, in 32 hexadecimal digits, of all bytes or of the first `limit`; errors as `locate`."""
    with open_stored(path) as file:
        if limit is not None:
            return hashlib.sha256(file.read(limit)).hexdigest()[:32]
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


class Section(io.RawIOBase):
    """A range of a file as a file of its own, perhaps with further bytes after its end.

    Closing it closes the file.
    """

    def __init__(self, file: io.BufferedReader, offset: int, size: int, filler: bytes = b"", repeats: int = 0) -> None:
        """Take `size` bytes from `offset` on, followed by `filler` so many times."""
        self._file, self._offset, self._size = file, offset, size
        self._filler, self._end = filler, size + len(filler) * repeats
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._end}[whence]

        if base + offset < 0:
            raise ValueError(f"a position of {base + offset}; it must not be negative")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read some bytes and return how many; 0 at the end."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._position))

        if count:
            self._file.seek(self._offset + self._position)
            read = self._file.readinto(view[:count])
        else:
            read = self._read_filler(view)

        self._position += read
        return read

    def _read_filler(self, view: memoryview) -> int:
        """Fill a buffer with what stands after the range, and return how many bytes that are."""
        count = max(0, min(len(view), self._end - self._position))
        if not count:
            return 0

        first = (self._position - self._size) % len(self._filler)
        repeated = self._filler * (2 + count // len(self._filler))
        view[:count] = repeated[first : first + count]
        return count

    def close(self) -> None:
        """Close the section and its file."""
        self._file.close()
        super().close()


@lru_cache(maxsize=16)
def _members(file: str, modified: int, size: int) -> dict[str, tuple[int, int]]:
    """Return offset and size of each regular member; read again once the shard's time or size is another."""
    try:
        # "r:" alone: a compressed archive could be read, but not at the offset of a member.
        with tarfile.open(file, "r:") as shard:
            return {member.name: (member.offset_data, member.size) for member in shard if member.isreg()}
    except tarfile.TarError as error:
        raise OSError(f"{file} is not a tar file that can be read ({error})") from None
