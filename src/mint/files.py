"""Files that are written whole or not at all, one way to walk folders, and output folders that one process owns.

Every file that MINT writes goes through `writing` or `write_whole`: it is written beside its path and renamed. A reader
sees all of it or what was there before, two writers never mix, and a writer that is killed leaves what was there. What
a killed writer leaves half-written is named after its process and removed by the next one. (The files are not flushed
to the disk one by one, so this holds against kills, not against a power cut.)
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from mint.types import MintError

ABANDONED_SECONDS = 24 * 60 * 60.0
"""A half-written file of another machine's process is taken for abandoned once it is older than this."""
HALF_WRITTEN = re.compile(r"\.(?P<name>.+)\.(?P<host>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}\.tmp")
"""The form of the names of half-written files."""
LOCK = ".lock"
"""The file in an output folder that its owner holds locked."""


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for binary writing; it replaces `path` when the block ends, and nothing changes where it fails.

    If `path` is a link, the file that it points to is replaced.

    Raises:
        OSError: the file cannot be written; the error names `path`.
    """
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    # In the same folder, since a file is renamed at once only within a disk; hidden, so that no reader takes it up.
    half_written = target.with_name(f".{target.name}.{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    with _naming(path):
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        file = half_written.open("wb")
    try:
        with file:
            yield file
        with _naming(path):
            half_written.replace(target)
    finally:
        # It is gone where it was renamed.
        with suppress(OSError):
            half_written.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all; text is written as UTF-8."""
    with writing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


SAFETENSORS_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "U8": 1}
"""Bytes of a number of each type, as safetensors calls the types."""


def safetensors_head(tensors: Mapping[str, tuple[str, Sequence[int]]]) -> bytes:
    """Return the beginning of a safetensors file, after which the numbers follow, little-endian, tensor by tensor.

    The library itself wants all tensors whole in memory; this is for files that are written block by block.

    Args:
        tensors: type and shape of each, by name, in the order in which they follow.
    """
    header: dict[str, Any] = {}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        end = offset + SAFETENSORS_BYTES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end

    text = json.dumps(header).encode()
    # The numbers begin at a multiple of eight bytes.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value, whole or not at all; numbers that are not finite are refused with ValueError."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    if not _can_be_written(text):  # the name of a file may be any bytes
        text = json.dumps(value, indent=1, allow_nan=False)
    write_whole(path, text + "\n")


def check_writable(path: Path) -> None:
    """Refuse a path to which no file can be written, before the work whose result it is to hold.

    Its folder is created if it is missing.

    Raises:
        MintError: it is a folder, or its folder cannot be created or written.
    """
    try:
        if path.is_dir():
            raise MintError(f"{path} is a folder; give the path of a file")
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        # Tried, not asked: permissions, quotas and read-only disks answer differently everywhere.
        trial = target.with_name(f".{target.name}.{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise MintError(f"{path} cannot be written ({error.strerror or error}); give another path") from None


def clear_abandoned(folder: Path) -> None:
    """Remove the half-written files in a folder whose writer does not live any more."""
    for path in folder.glob(".*.tmp"):
        match = HALF_WRITTEN.fullmatch(path.name)
        if match is None:
            continue

        with suppress(OSError):  # its writer has finished, or it may not be removed
            # The processes of other machines cannot be seen from here; on Windows, signal 0 would end the process.
            is_visible = match["host"] == _host() and os.name != "nt"
            is_dead = is_visible and not _is_alive(int(match["process"]))
            if is_dead or path.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                path.unlink()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder at any depth with the sorted names of the files in it, in sorted order.

    Links to folders are followed, but no folder is entered twice, so that links may form circles. Hidden files and
    folders (their names begin with a dot) and folders that may not be read are left out.
    """
    seen: set[tuple[int, int]] = set()
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        try:
            state = os.stat(parent)  # noqa: PTH116  # a Path for each folder would take longer than the call
        except OSError:  # it was removed meanwhile
            subfolders.clear()
            continue
        if (state.st_dev, state.st_ino) in seen:
            subfolders.clear()
            continue

        seen.add((state.st_dev, state.st_ino))
        # Changed in place: that is how `os.walk` is told where to go on.
        subfolders[:] = sorted(name for name in subfolders if name[0] != ".")
        yield parent, sorted(name for name in names if name[0] != ".")


@contextmanager
def owning(folder: Path) -> Iterator[None]:
    """Own an output folder inside the block, so that no second process writes into it.

    The folder is created, and removed again if the block has left nothing in it. The lock belongs to the process and
    ends with it, however it ends.

    Raises:
        MintError: another process owns the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise MintError(
            f"{folder} is being written by another process; wait for it to end, or give another --output"
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):
            # A command that was refused leaves no empty folder behind.
            if [path.name for path in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()
                folder.rmdir()
        lock.release()


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an error of the system name `path` in place of the half-written file, which nobody has asked for."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


@cache
def _can_be_written(text: str) -> bool:
    """Return whether text can be written as UTF-8; half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _host() -> str:
    """Return eight hexadecimal digits that stand for this machine since its start, and its table of processes.

    Containers and nodes of a cluster may share a name and a disk, but not their processes.
    """
    marks = [socket.gethostname()]
    with suppress(OSError):
        marks.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        marks.append(str(os.stat("/proc/self/ns/pid").st_ino))  # noqa: PTH116  # as above
    return hashlib.sha256(" ".join(marks).encode()).hexdigest()[:8]


def _is_alive(process: int) -> bool:
    """Return whether a process of this machine is running."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # It belongs to another user, and so it is there.
        return True
    return True
