"""Bringing an index up to date: what is new, changed or removed in its sources, and the embedding of what is new.

A file whose size and time are those of its entry is not read. One whose size or time changed is read for its digest,
and embedded only if its bytes are others. What was embedded before an interruption is in the index, so that the next
update continues there.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mint import predict
from mint.builders.stages import TrainedStage
from mint.data.audio.decode import probe, windows
from mint.data.audio.members import is_member, locate
from mint.data.corpora.recordings import SUFFIXES, audio_files
from mint.data.features.cache import FeatureCache
from mint.data.features.encode import Skipped
from mint.data.features.file_digests import UNSURE
from mint.data.features.prepare import open_cache
from mint.data.features.stored import is_stored
from mint.data.features.stream import ClipFeatures, stream_features
from mint.data.manifests.manifest import read_manifest
from mint.index.folder import Index
from mint.index.segment import Entry, Key
from mint.index.writer import IndexWriter, Row
from mint.model.stage1 import Stage1
from mint.types import AudioEncoder, Example, MintError

WINDOWS_AT_ONCE = 32
"""Windows that are embedded in one batch."""
MOST_WINDOWS = 10**9
"""A long recording is heard from its beginning to its end, however many windows that takes."""

Progress = Callable[[Iterable[Any], int], Iterable[Any]]
"""Passes clips on and shows how far they are; the number is how many there are."""


@dataclass(frozen=True)
class Embedder:
    """The models that make the vectors of an index."""

    encoder: AudioEncoder
    stage1: TrainedStage[Stage1]
    lock: AbstractContextManager[Any]
    """Held while they compute."""


@dataclass
class Updated:
    """What an update did, and the index after it."""

    index: Index
    new: int = 0
    """Clips that were not in the index."""
    changed: int = 0
    """Clips whose files were other ones than before."""
    removed: int = 0
    """Clips that the sources do not hold any more."""
    unchanged: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    """Clips that could not be used, or not to their end, and why."""


@dataclass
class _Job:
    """A clip whose file must be read, and what has become of it."""

    entry: Entry
    row: Row | None
    """Where an earlier state of it is in the index."""
    is_same: bool = False
    """Whether the file has the bytes that were embedded."""
    times: list[tuple[float, float]] = field(default_factory=list)
    """Start and end of its windows, in seconds into the file."""
    vectors: list[Tensor | None] = field(default_factory=list)
    """[Q, E] of each window that was read so far; None: it could not be used."""
    fault: str = ""
    """Why it, or a window of it, could not be used."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is missing that is still to come."""
        return len(self.vectors) == len(self.times)


def list_sources(sources: Sequence[str | Path]) -> dict[str, list[Key]]:
    """Return the clips of each source by its absolute path.

    Args:
        sources: folders, which stand for all audio files below them; manifests; or audio files.

    Raises:
        MintError: a source is missing, a folder holds no audio, or a manifest is broken.
    """
    clips: dict[str, list[Key]] = {}

    for source in map(str, sources):
        path = Path(os.path.abspath(source))  # noqa: PTH100  # links are kept as they are named
        if path.is_dir():
            keys: list[Key] = [(str(file), 0.0, None) for file in audio_files(path)]
            # A disk that is not mounted looks like an empty folder, and must not empty the index.
            if not keys:
                raise MintError(f"there are no audio files below {source!r}; give files, or a folder that holds some")
        elif is_member(path) or path.suffix.lower() in SUFFIXES:
            keys = [(str(path), 0.0, None)]
        else:
            keys = []

            for example in read_manifest(path):
                # Joined to the folder of the manifest, a path may go up and down again.
                keys.append((os.path.normpath(example.audio), example.start, example.duration))
        clips[str(path)] = keys
    return clips


def update_index(
    index: Index, embedder: Embedder, run: str, sources: Sequence[str | Path], progress: Progress
) -> Updated:
    """Bring an index up to date with some sources.

    Args:
        index: the index.
        embedder: the models that made it.
        run: the folder of their run.
        sources: as `list_sources` takes them; none: all that the index knows.
        progress: wraps the clips that are read.

    Returns:
        What was done. Clips of other sources stay as they are.

    Raises:
        MintError: as `list_sources`; or another process writes the index.
    """
    updated = Updated(index)

    with index.writing() as writer:
        listed = list_sources(sources or index.contents.sources)
        if not listed:
            raise MintError(f"{index.folder} knows no sources yet; give a folder, a manifest or audio files")
        source_rows = writer.start(run, list(listed))
        jobs = _compare(writer, listed, source_rows, updated)

        cache = open_cache(embedder.encoder, index.contents.window_seconds)
        waiting: deque[_Job] = deque()
        windows = _windows(progress(jobs, len(jobs)), waiting, cache, index.contents.window_seconds)
        # Features of clips that were trained on are in the cache; those of a collection would fill the disk.
        features = stream_features(
            windows, embedder.encoder, index.contents.window_seconds, cache, keep=False, lock=embedder.lock
        )
        with closing(features):
            for batch in _batches(features):
                _embed(batch, waiting, embedder)
                _take_finished(writer, waiting, updated)
        _take_finished(writer, waiting, updated)
        cache.digests.save()
    return updated


def _compare(
    writer: IndexWriter, listed: Mapping[str, list[Key]], source_rows: Sequence[int], updated: Updated
) -> list[_Job]:
    """Remove from the index what the sources do not hold any more, and return the clips that must be read."""
    rows = writer.rows()
    jobs: list[_Job] = []
    wanted: set[Key] = set()
    for keys, source in zip(listed.values(), source_rows, strict=True):
        for key in keys:
            if key in wanted:
                continue
            wanted.add(key)
            job = _Job(Entry(*key, source=source), rows.get(key))
            if _is_unchanged(job):
                updated.unchanged += 1
            else:
                jobs.append(job)

    folders = tuple(os.path.join(source, "") for source in listed if Path(source).is_dir())  # noqa: PTH118
    for key, row in rows.items():
        is_of_sources = key[0].startswith(folders) or row.segment.clips["source"][row.number] in source_rows
        if key not in wanted and is_of_sources:
            writer.remove(row)
            updated.removed += 1
    return jobs


def _is_unchanged(job: _Job) -> bool:
    """Return whether a file is in the state in which it was embedded, by its size and time."""
    if job.row is None:
        return False
    try:
        location = locate(job.entry.path)
    except OSError:  # reading it will say why
        return False
    clips, number = job.row.segment.clips, job.row.number
    return bool(clips["size"][number] == location.size and clips["modified"][number] == location.modified)


def _windows(
    jobs: Iterable[_Job], waiting: deque[_Job], cache: FeatureCache, window_seconds: float
) -> Iterator[Example]:
    """Yield the windows of each clip whose bytes are not in the index, as clips of their own; note all in `waiting`."""
    for job in jobs:
        try:
            _read_state(job, cache)
            if not job.is_same:
                job.times = _times(job.entry, window_seconds)
        except (MintError, OSError) as error:
            job.fault = str(error)
        waiting.append(job)

        entry = job.entry
        if len(job.times) == 1:
            # It is read to its end, whatever the header of its file says of its length.
            yield Example(entry.path, Path(entry.path), "", "", "", entry.start, entry.duration)
        else:
            for start, end in job.times:
                yield Example(entry.path, Path(entry.path), "", "", "", start, min(end - start, window_seconds))


def _read_state(job: _Job, cache: FeatureCache) -> None:
    """Note the size, the time and the digest of a clip's file, and whether they are those in the index."""
    path = Path(job.entry.path)
    location = locate(path)
    # A file that was written a moment ago may change again within one tick of the clock.
    is_settled = location.modified < time.time_ns() - UNSURE
    job.entry = replace(
        job.entry,
        size=location.size,
        modified=location.modified if is_settled else -1,
        digest=cache.digests.of(path),
    )
    if job.row is not None:
        job.is_same = job.row.segment.clips["digest"][job.row.number].tobytes() == job.entry.digest


def _times(entry: Entry, window_seconds: float) -> list[tuple[float, float]]:
    """Return start and end of the windows of a clip, in seconds into its file."""
    if is_stored(Path(entry.path)):  # features without a sound, which are one window
        return [(entry.start, entry.start + (entry.duration or 0.0))]

    seconds = probe(entry.path)[0] - entry.start
    if entry.duration is not None:
        seconds = min(seconds, entry.duration)
    times = []
    for start, length in windows(seconds, window_seconds, MOST_WINDOWS):
        times.append((entry.start + start, entry.start + start + length))
    return times


def _batches(features: Iterable[ClipFeatures]) -> Iterator[list[ClipFeatures]]:
    """Yield windows some at a time."""
    batch: list[ClipFeatures] = []
    for window in features:
        batch.append(window)
        if len(batch) == WINDOWS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _embed(batch: Sequence[ClipFeatures], waiting: Iterable[_Job], embedder: Embedder) -> None:
    """Embed windows, and hand each to the first clip that lacks one."""
    usable = [window.windows for window in batch if window.error is None]
    with embedder.lock:
        vectors = iter(predict.embed_clips(embedder.stage1, usable).cpu() if usable else ())  # N times [Q, E]

    lacking = (job for job in waiting for _ in range(len(job.times) - len(job.vectors)))
    for window, job in zip(batch, list(lacking), strict=False):
        job.vectors.append(None if window.error else next(vectors))
        if window.error and not job.fault:
            job.fault = str(window.error)


def _take_finished(writer: IndexWriter, waiting: deque[_Job], updated: Updated) -> None:
    """Bring into the index what has become of the first clips."""
    while waiting and waiting[0].is_done:
        job = waiting.popleft()
        if job.is_same and job.row is not None:
            writer.renew(job.row, job.entry)
            updated.unchanged += 1
            continue

        # What the index holds of a file that is another one now goes, even where the new one cannot be used.
        if job.row is not None:
            writer.remove(job.row)
        times, vectors = [], []
        for span, vector in zip(job.times, job.vectors, strict=True):
            if vector is not None:
                times.append(span)
                vectors.append(vector)
        if vectors:
            writer.add(job.entry, times, torch.stack(vectors))
            updated.new += job.row is None
            updated.changed += job.row is not None
        if job.fault:
            lost = f" (of {len(job.times)} windows, {len(vectors)} could be used)" if vectors else ""
            updated.skipped.append(Skipped(job.entry.path, job.entry.path, job.fault + lost))
