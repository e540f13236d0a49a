"""The frozen features of any number of clips, one clip after another, while threads decode the next ones.

Memory is bounded whatever the number and the length of the clips: of each clip that waits the first window is decoded,
and of the clip whose turn it is some windows more. A clip that cannot be used is yielded with its error, in its turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor

from mint.data.audio.ahead import reading_threads, submit_ahead
from mint.data.audio.decode import AudioSource, Samples, load_part, load_parts, load_windows, probe, windows
from mint.data.features.cache import FeatureCache, file_digest, part_key
from mint.data.features.encode import (
    CLIPS_PER_SHARD,
    NOT_FINITE,
    SECONDS_AT_ONCE,
    device_of,
    encode_batch,
    is_finite,
)
from mint.data.features.stored import is_stored, read_stored
from mint.types import AudioEncoder, Example, MintError

Source: TypeAlias = AudioSource | Example
"""A file or samples in any form, or the clip of a line of a manifest, which may be a part of a file."""


@dataclass
class ClipFeatures:
    """The features of one clip, or the reason why there are none."""

    source: Source
    windows: list[Tensor] = field(default_factory=list)
    """[T, D] of each window, float32 as the cache holds them."""
    error: Exception | None = None
    """A `MintError` or `OSError`; None: the clip could be used."""


@dataclass(frozen=True)
class _Read:
    """What a thread has made of a clip: its features, or its first window [S] and how to read the others."""

    key: bytes | None = None
    """What it is kept under in the cache."""
    features: list[Tensor] | None = None
    first: Samples | None = None
    others: Sequence[Callable[[], Samples | None]] = ()


def stream_features(
    sources: Iterable[Source],
    encoder: AudioEncoder,
    max_seconds: float,
    cache: FeatureCache | None = None,
    keep: bool = False,
    lock: AbstractContextManager[Any] | None = None,
) -> Generator[ClipFeatures, None, None]:
    """Yield the features of clips in their order; they are those that `fill_cache` would keep.

    Args:
        sources: the clips; any iterable, which is read a little ahead.
        encoder: the frozen encoder.
        max_seconds: longest window; longer clips are read as several.
        cache: where features are looked up; None: nowhere.
        keep: whether features that were not in the cache are written to it.
        lock: held while the encoder computes, so that several threads may share it.

    Raises:
        MintError: features are to be kept, and cannot be written.
    """
    # Threads decode ahead; the encoder runs here, in the thread of the consumer.
    encoding = _Encoding(encoder, nullcontext() if lock is None else lock, cache if keep else None)

    # What reads in threads knows nothing of the encoder's turn.
    read = partial(_read, encoder=encoder, max_seconds=max_seconds, cache=cache)
    try:
        with reading_threads() as pool:
            for source, job in submit_ahead(pool, sources, read):
                clip = encoding.begin(source)

                # An error belongs to its clip: the others go on.
                try:
                    _take(clip, job.result(), pool, encoding)
                # One clip that cannot be used must not end the stream of a million.
                except (MintError, OSError) as error:
                    clip.error = error
                except MemoryError:
                    clip.error = MintError(f"{_name(source)}: it is too large for the memory; cut it into pieces")
                yield from encoding.finished()

            # What waits for a full batch at the end is encoded in a smaller one.
            encoding.encode()
            yield from encoding.finished()
    finally:
        # Also where the consumer stops early, or is interrupted: what was computed is not computed again.
        encoding.write()


def _read(source: Source, encoder: AudioEncoder, max_seconds: float, cache: FeatureCache | None) -> _Read:
    """Read the features of a clip from the cache or a file of features, or else its first window."""
    if not isinstance(source, str | Path | Example):
        # Samples lie in memory already: all of them are resampled, and the windows are slices of them.
        pieces = list(load_windows(source, encoder.sample_rate, max_seconds))
        return _Read(first=pieces[0], others=[partial(_same, piece) for piece in pieces[1:]])

    # A file is its whole; the clip of a manifest may be a part of one.
    path, start, duration = Path(_path(source)), 0.0, None
    if isinstance(source, Example):
        start, duration = source.start, source.duration

    key = None
    if cache is not None:
        key = part_key(file_digest(path, cache.digests), start, duration)
        if key in cache:
            return _Read(key, features=cache.read(key))
    if isinstance(source, Example) and is_stored(path):
        return _Read(key, features=[read_stored(source, encoder.identity)])

    length = probe(path)[0] - start
    length = length if duration is None else min(length, duration)
    # A clip that fits into one window is read to its end, whatever its header says of its length.
    parts = windows(length, max_seconds) if length > max_seconds else [(0.0, duration)]
    first = next(load_parts(path, encoder.sample_rate, [(start + parts[0][0], parts[0][1])]))
    others = [partial(load_part, path, encoder.sample_rate, start + begin, seconds) for begin, seconds in parts[1:]]
    return _Read(key, first=first, others=others)


def _take(clip: _Clip, read: _Read, pool: ThreadPoolExecutor, encoding: _Encoding) -> None:
    """Take what was read of a clip, and hand its windows to the encoder, the later ones as they are decoded."""
    clip.key = read.key
    if read.features is not None:
        clip.windows = read.features
        return

    # The others are decoded while the first is encoded.
    assert read.first is not None
    encoding.add(clip, read.first)
    for _, job in submit_ahead(pool, read.others, _call):
        samples = job.result()
        if samples is not None:  # the file was not cut off before this window
            encoding.add(clip, samples)


@dataclass
class _Clip(ClipFeatures):
    """A clip whose windows are being encoded."""

    key: bytes | None = None
    is_new: bool = False
    """Whether its windows come from the encoder."""


class _Encoding:
    """Encodes windows in batches, and knows which clips are finished.

    Args:
        encoder: the frozen encoder.
        lock: held while it computes.
        cache: where new features are written; None: nowhere.
    """

    def __init__(self, encoder: AudioEncoder, lock: AbstractContextManager[Any], cache: FeatureCache | None) -> None:
        self._encoder, self._lock, self._cache = encoder, lock, cache
        self._clips: deque[_Clip] = deque()
        """Clips that were not yielded yet."""
        self._waiting: list[tuple[_Clip, Samples]] = []
        self._new: dict[bytes, list[Tensor]] = {}
        """Features that were not written yet."""

        # An accelerator wants large batches. On the CPU they gain nothing, and a window alone is computed at once.
        seconds = SECONDS_AT_ONCE if device_of(encoder).type != "cpu" else 0
        self._most_samples = seconds * encoder.sample_rate

    def begin(self, source: Source) -> _Clip:
        """Return a new clip, which is yielded after those that were begun before."""
        self._clips.append(_Clip(source))
        return self._clips[-1]

    def add(self, clip: _Clip, samples: Samples) -> None:
        """Take one window [S] of a clip; it is encoded at once, or with others."""
        clip.is_new = True
        self._waiting.append((clip, samples))
        if sum(len(window) for _, window in self._waiting) >= self._most_samples:
            self.encode()

    def encode(self) -> None:
        """Encode the windows that wait."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        # Held for the batch alone, so that other threads may ask the models between two of them.
        with self._lock:
            features = encode_batch(self._encoder, [samples for _, samples in waiting])

        # A clip of several windows may have some in this batch and some in the next.
        for (clip, _), window in zip(waiting, features, strict=True):
            clip.windows.append(window)
            if not is_finite(window):
                clip.error = MintError(f"{_name(clip.source)}: {NOT_FINITE.format(self._encoder.cache_dtype)}")

    def finished(self) -> Iterator[ClipFeatures]:
        """Yield the clips that wait for no window, in their order."""
        if self._waiting:
            return
        while self._clips:
            clip = self._clips.popleft()
            # Windows of a clip that failed later on mean nothing.
            if clip.error is not None:
                # Windows of a clip that failed later are no features of the whole clip.
                clip.windows = []
            elif self._cache is not None and clip.is_new and clip.key is not None:
                self._new[clip.key] = clip.windows
            yield ClipFeatures(clip.source, clip.windows, clip.error)

        if len(self._new) >= CLIPS_PER_SHARD:
            self.write()

    def write(self) -> None:
        """Write the new features to the cache."""
        if self._cache is not None and self._new:
            new, self._new = self._new, {}
            self._cache.write(new)
            # After the features: a digest that is kept without them would be looked up in vain.
            self._cache.digests.save()


def _path(source: str | Path | Example) -> str | Path:
    return source.audio if isinstance(source, Example) else source


def _name(source: Source) -> str:
    """Return what a message calls a clip."""
    return str(_path(source)) if isinstance(source, str | Path | Example) else "the samples"


def _same(samples: Samples) -> Samples:
    return samples


def _call(read: Callable[[], Samples | None]) -> Samples | None:
    return read()
