"""Segments: the files of an index, written once and never changed, as plain safetensors that other programs read.

A segment holds C clips with W windows of audio, each window with Q vectors. Its columns are

- of clips: `start` and `duration` in seconds (F64, not a number: to the end of the file), `size` in bytes, `modified`
  in nanoseconds (I64), `digest` (U8 [C, 16]), `source` (I32: a row of the index's sources), `num_windows` (I32) and
  `path_length` (I32);
- of bytes: `paths` (U8), the paths of the clips one after another;
- of windows: `window_start`, `window_end` in seconds (F64), `vectors` (F32 [W, Q, E], each of length 1), and `halves`,
  the same numbers in half precision (F16), which the first pass of a search reads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from mint.files import safetensors_head, writing
from mint.types import MintError

Columns = Mapping[str, NDArray[Any]]
"""The columns of some clips, by name."""

Key = tuple[str, float, float | None]
"""Path, start and duration of a clip, which an index holds once."""

DIGEST_BYTES = 16
ROWS_AT_ONCE = 1024
"""Windows that are copied from one segment to another at a time."""

CLIP_COLUMNS = ("start", "duration", "size", "modified", "digest", "source", "num_windows", "path_length")
WINDOW_COLUMNS = ("window_start", "window_end", "vectors", "halves")
COLUMNS = (*CLIP_COLUMNS, "paths", *WINDOW_COLUMNS)
DTYPES = {"<f8": "F64", "<i8": "I64", "<f4": "F32", "<i4": "I32", "<f2": "F16", "|u1": "U8"}
"""NumPy's names of the types that occur, and those of safetensors."""


@dataclass(frozen=True)
class Entry:
    """A clip of an index: a file or a part of one, and the state in which the file was embedded."""

    path: str
    """Absolute."""
    start: float = 0.0
    """Seconds into the file where the clip begins."""
    duration: float | None = None
    """Seconds; None: to the end of the file."""
    size: int = -1
    """Bytes of the file; -1: not known."""
    modified: int = -1
    """Nanoseconds of the file's last modification; -1: not known."""
    digest: bytes = bytes(DIGEST_BYTES)
    """The first half of the SHA-256 of the file; zeros: not known."""
    source: int = -1
    """Row of the index's sources that names the clip; -1: none."""

    @property
    def key(self) -> Key:
        """What tells the clip from all others of an index."""
        return self.path, self.start, self.duration


class Segment:
    """An open segment, mapped into memory and not read until a search asks for it.

    Args:
        path: its file.
        removed: rows of the clips that count no more.

    Raises:
        FileNotFoundError: it was removed, as after a merge.
        MintError: it is damaged.
    """

    def __init__(self, path: Path, removed: Sequence[int] = ()) -> None:
        self.path = path
        self.columns: dict[str, Any] = {}
        try:
            # PyTorch's tensors are views of the mapped file, where NumPy's would be copies.
            with safe_open(path, "pt") as file:
                for name in COLUMNS:
                    self.columns[name] = file.get_tensor(name)
        except SafetensorError as error:
            raise MintError(f"{path} is damaged ({error}); remove the index and build it again") from None

        # Columns of clips are small; those of windows stay on the disk until they are read.
        self.clips: Columns = {name: self.columns[name].numpy() for name in CLIP_COLUMNS}
        self.first_window = _offsets(self.clips["num_windows"])  # [C + 1]
        self._first_byte = _offsets(self.clips["path_length"])  # [C + 1]

        # Removed clips stay in the file: rewriting it for each would cost gigabytes.
        self.is_live = np.ones(len(self), dtype=bool)
        self.is_live[list(removed)] = False

    def __len__(self) -> int:
        return len(self.clips["start"])

    @property
    def num_windows(self) -> int:
        """The number of windows, those of removed clips included."""
        return int(self.first_window[-1])

    def entry(self, row: int) -> Entry:
        """Return the clip in a row."""
        clips = self.clips
        duration = float(clips["duration"][row])
        first, last = self._first_byte[row], self._first_byte[row + 1]
        return Entry(
            os.fsdecode(self.columns["paths"][first:last].numpy().tobytes()),
            float(clips["start"][row]),
            None if np.isnan(duration) else duration,
            int(clips["size"][row]),
            int(clips["modified"][row]),
            clips["digest"][row].tobytes(),
            int(clips["source"][row]),
        )

    def windows_of(self, row: int) -> slice:
        """Return the rows of the windows of a clip."""
        return slice(int(self.first_window[row]), int(self.first_window[row + 1]))

    def times(self, window: int) -> tuple[float, float]:
        """Return where a window begins and ends, in seconds."""
        return float(self.columns["window_start"][window]), float(self.columns["window_end"][window])

    def blocks(self, name: str) -> Iterator[NDArray[Any]]:
        """Yield a column of the clips that were not removed, some rows at a time."""
        column = self.columns[name].numpy()
        is_wanted = self.is_live
        if name in WINDOW_COLUMNS:
            # A window belongs to its clip, a byte of a path too.
            is_wanted = np.repeat(is_wanted, self.clips["num_windows"])
        elif name == "paths":
            is_wanted = np.repeat(is_wanted, self.clips["path_length"])

        step = ROWS_AT_ONCE if name in WINDOW_COLUMNS else max(1, len(column))
        for first in range(0, len(column), step):
            yield column[first : first + step][is_wanted[first : first + step]]


def columns_of(
    entries: Sequence[Entry], times: Sequence[Sequence[tuple[float, float]]], vectors: NDArray[np.float32]
) -> Columns:
    """Return all columns of some clips.

    Args:
        entries: C clips.
        times: start and end in seconds of the windows of each.
        vectors: [W, Q, E] of their W windows.
    """
    # As bytes: the name of a file need not be text.
    paths = [os.fsencode(entry.path) for entry in entries]
    window_times = np.array([span for spans in times for span in spans], "<f8").reshape(-1, 2)
    durations = [np.nan if entry.duration is None else entry.duration for entry in entries]
    return {
        "start": np.array([entry.start for entry in entries], "<f8"),
        "duration": np.array(durations, "<f8"),
        "size": np.array([entry.size for entry in entries], "<i8"),
        "modified": np.array([entry.modified for entry in entries], "<i8"),
        "digest": np.frombuffer(b"".join(entry.digest for entry in entries), "u1").reshape(-1, DIGEST_BYTES),
        "source": np.array([entry.source for entry in entries], "<i4"),
        "num_windows": np.array([len(spans) for spans in times], "<i4"),
        "path_length": np.array([len(path) for path in paths], "<i4"),
        "paths": np.frombuffer(b"".join(paths), "u1"),
        "window_start": window_times[:, 0],
        "window_end": window_times[:, 1],
        "vectors": vectors.astype("<f4", copy=False),
        "halves": vectors.astype("<f2"),
    }


def write_segment(path: Path, columns: Columns) -> None:
    """Write the columns of some clips as a segment, whole or not at all."""
    _write(path, {name: [columns[name]] for name in COLUMNS}, {name: columns[name].shape for name in COLUMNS})


def merge_segments(path: Path, segments: Sequence[Segment]) -> None:
    """Write what was not removed from some segments as one, with few of their windows in memory at a time."""
    shapes = {}
    for name in COLUMNS:
        rows = 0

        for segment in segments:
            counts: Any = segment.is_live
            if name in WINDOW_COLUMNS:
                counts = segment.clips["num_windows"][segment.is_live]
            elif name == "paths":
                counts = segment.clips["path_length"][segment.is_live]
            rows += int(counts.sum())
        shapes[name] = (rows, *segments[0].columns[name].shape[1:])

    _write(path, {name: _chained(segments, name) for name in COLUMNS}, shapes)


def _chained(segments: Sequence[Segment], name: str) -> Iterator[NDArray[Any]]:
    """Yield a column of several segments, one after another."""
    for segment in segments:
        yield from segment.blocks(name)


def _write(path: Path, columns: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Write a safetensors file block by block, where the library itself would want it whole in memory.

    Args:
        path: the file.
        columns: the blocks of each column.
        shapes: the shape of each column.
    """
    # Wide numbers come first, so that each column begins at a multiple of its own width.
    dtypes = {name: np.dtype(COLUMN_DTYPES[name]) for name in COLUMNS}
    order = sorted(COLUMNS, key=lambda name: -dtypes[name].itemsize)

    head = safetensors_head({name: (DTYPES[dtypes[name].str], shapes[name]) for name in order})
    with writing(path) as file:
        file.write(head)
        for name in order:
            for block in columns[name]:
                file.write(np.ascontiguousarray(block, dtypes[name]).data)


COLUMN_DTYPES = {
    **dict.fromkeys(("start", "duration", "window_start", "window_end"), "<f8"),
    **dict.fromkeys(("size", "modified"), "<i8"),
    "vectors": "<f4",
    "halves": "<f2",
    **dict.fromkeys(("source", "num_windows", "path_length"), "<i4"),
    **dict.fromkeys(("digest", "paths"), "|u1"),
}
"""The type of each column as NumPy names it."""


def _offsets(counts: NDArray[Any]) -> NDArray[np.int64]:
    """Return where the stretch of each row begins, and where the last one ends, [N + 1]."""
    # 64 bits: the windows of a large index have more bytes of paths than 32 count.
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets
