"""Changing an index: new segments beside the old ones, rows that are removed, and segments that are merged.

Segments of about one size are merged, so that there are few of them however often an index is updated; each window is
copied a few times at most.
"""

from __future__ import annotations

import math
import re
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mint.files import clear_abandoned
from mint.index.contents import open_contents, write_contents
from mint.index.segment import Entry, Key, Segment, columns_of, merge_segments, write_segment
from mint.types import MintError

SUFFIX = ".safetensors"
SEGMENT_NAME = re.compile(r"[0-9a-f]{32}\.safetensors")
"""The names of the files that may be removed, so that a file of someone else's stays."""
BYTES_AT_ONCE = 1 << 26
"""Vectors that a writer holds at most before it writes a segment."""
SECONDS_AT_ONCE = 30.0
"""Seconds after which a writer writes what it holds: a kill loses no more."""
MERGED_TOGETHER = 8
"""So many segments of about one size become one."""
REMOVED_SHARE = 0.25
"""A segment is written anew once more of its windows than this belong to removed clips."""
UNIT_TOLERANCE = 1e-3
"""How far the length of a vector may be from 1."""


class Row(NamedTuple):
    """A clip of an index that is being written."""

    segment: Segment
    number: int


class IndexWriter:
    """Changes an index that this process owns; made by `Index.writing`.

    Clips wait in memory until there are some tens of megabytes of them or half a minute has passed; then they become a
    segment, and with it everything that was removed meanwhile goes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Segments of its own, as threads may search in those of the index while clips are removed.
        self._contents, self._segments = open_contents(folder)
        self._new: list[Segment] = []
        self._has_removed = False
        self._entries: list[Entry] = []
        self._times: list[Sequence[tuple[float, float]]] = []
        self._vectors: list[Tensor] = []
        self._bytes = 0
        self._written = time.monotonic()

    def start(self, run: str, sources: Sequence[str]) -> list[int]:
        """Note that an update begins, what it is of and the run that makes it, and return the rows of the sources."""
        # Earlier sources keep their rows, by which clips name them.
        known = list(dict.fromkeys([*self._contents.sources, *sources]))
        self._replace(run=run, sources=known, finished=False)
        return [known.index(source) for source in sources]

    def rows(self) -> dict[Key, Row]:
        """Return where each clip of the index is, by its key; what is added later is not in it."""
        rows = {}
        for segment in self._segments:
            for row in np.flatnonzero(segment.is_live).tolist():
                rows[segment.entry(row).key] = Row(segment, row)
        return rows

    def add(self, entry: Entry, times: Sequence[tuple[float, float]], vectors: Tensor) -> None:
        """Add a clip; an earlier one with its key must be removed by `remove`.

        Args:
            entry: the clip.
            times: start and end in seconds of its W windows, at least one.
            vectors: [W, Q, E], each vector of length 1, as `Mint.embed_audio` gives them.

        Raises:
            MintError: another shape than that of the index, or vectors that are not finite or not of length 1.
        """
        vectors = vectors.detach().float().cpu()
        self._check(entry, times, vectors)
        if not self._contents.queries:
            self._contents = replace(self._contents, queries=vectors.shape[1], width=vectors.shape[2])

        self._entries.append(entry)
        self._times.append(times)
        self._vectors.append(vectors)
        # float32
        self._bytes += vectors.numel() * 4

        # By time as well, so that an interruption of a slow run loses half a minute at most.
        is_late = time.monotonic() - self._written > SECONDS_AT_ONCE
        if self._bytes >= BYTES_AT_ONCE or is_late:
            self.write()

    def remove(self, row: Row) -> None:
        """Remove a clip that the index held when this writer began."""
        row.segment.is_live[row.number] = False
        self._has_removed = True

    def renew(self, row: Row, entry: Entry) -> None:
        """Write down another state of a file whose bytes are those that were embedded."""
        segment, windows = row.segment, row.segment.windows_of(row.number)
        times = [segment.times(window) for window in range(windows.start, windows.stop)]
        # A copy, as the segment may be merged away.
        vectors = segment.columns["vectors"][windows].clone()
        self.remove(row)
        self.add(entry, times, vectors)

    def write(self) -> None:
        """Write what waits, and let readers see it and what was removed."""
        self._written = time.monotonic()
        if self._entries:
            vectors = torch.cat(self._vectors).numpy()
            path = self._new_path()
            write_segment(path, columns_of(self._entries, self._times, vectors))
            self._entries, self._times, self._vectors, self._bytes = [], [], [], 0

            # Rows of the segments from before are in use, so that only new ones are merged until the end.
            self._new.append(Segment(path))
            self._new = self._merged(self._new)
        elif not self._has_removed:
            return
        self._replace(finished=False)

    def finish(self) -> None:
        """Write what waits, merge segments where there are many, and note that the update came to its end."""
        self.write()
        dense = []

        for segment in [*self._segments, *self._new]:
            # What was removed costs room and time of every search; from some share on a copy is cheaper.
            live = int(segment.clips["num_windows"][segment.is_live].sum())
            if live < (1 - REMOVED_SHARE) * segment.num_windows:
                dense += self._joined([segment])
            else:
                dense.append(segment)
        self._segments, self._new = self._merged(dense), []

        self._replace(finished=True)
        self.clear_away()

    def clear_away(self) -> None:
        """Remove the files of the folder that no segment is in any more, as after a kill."""
        clear_abandoned(self.folder)
        names = {segment.path.name for segment in [*self._segments, *self._new]}

        for path in self.folder.glob(f"*{SUFFIX}"):
            if path.name not in names and SEGMENT_NAME.fullmatch(path.name):
                with suppress(OSError):  # another system may not remove what a reader has open
                    path.unlink()

    def _check(self, entry: Entry, times: Sequence[tuple[float, float]], vectors: Tensor) -> None:
        shape = (self._contents.queries, self._contents.width)
        is_right = vectors.ndim == 3 and (tuple(vectors.shape[1:]) == shape or shape == (0, 0)) and vectors.numel()
        if not is_right or len(times) != len(vectors):
            raise MintError(
                f"{entry.path}: vectors of shape {list(vectors.shape)} for {len(times)} windows; "
                f"give [windows, queries, width]{f', the last two {list(shape)}' if shape[0] else ''}"
            )
        lengths = vectors.norm(dim=-1)
        if not ((lengths - 1).abs() <= UNIT_TOLERANCE).all():  # numbers that are not finite, too
            raise MintError(f"{entry.path}: its vectors are not of length 1; give them as `Mint.embed_audio` does")

    def _merged(self, segments: list[Segment]) -> list[Segment]:
        """Return segments of which no `MERGED_TOGETHER` are of about one size."""
        while True:
            levels: dict[int, list[Segment]] = {}

            for segment in segments:
                # Segments of about one size are merged: each window is copied a few times only, however many come.
                level = int(math.log(max(1, segment.num_windows), MERGED_TOGETHER))
                levels.setdefault(level, []).append(segment)

            crowded = next((some for some in levels.values() if len(some) >= MERGED_TOGETHER), None)
            if crowded is None:
                return segments
            segments = [segment for segment in segments if segment not in crowded] + self._joined(crowded)

    def _joined(self, segments: Sequence[Segment]) -> list[Segment]:
        """Return one segment with what was not removed from some, or none where nothing is left."""
        if not any(segment.is_live.any() for segment in segments):
            return []
        path = self._new_path()
        merge_segments(path, segments)
        return [Segment(path)]

    def _new_path(self) -> Path:
        return self.folder / f"{uuid.uuid4().hex}{SUFFIX}"

    def _replace(self, **changes: Any) -> None:
        """Write `index.json` anew."""
        segments = []
        for segment in [*self._segments, *self._new]:
            # `index.json` is replaced in one step: readers see an update whole or not at all.
            removed = np.flatnonzero(~segment.is_live).tolist()
            segments.append({"file": segment.path.name, "removed": removed})
        self._contents = replace(self._contents, segments=segments, **changes)
        write_contents(self.folder, self._contents)
        self._has_removed = False
