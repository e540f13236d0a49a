"""Audio files and arrays -> mono float32 at the rate an encoder wants.

libsndfile decodes (wav, flac, ogg, opus, mp3, aiff, ...), or PyAV what it does not read (m4a, mp4, webm, ...), and only
the part that is wanted; soxr resamples. Clips longer
than the paper's 30 s (section 3.2) are read as evenly spaced windows, so that a file of hours costs bounded work.
Shapes: S samples; arrays are float32 in [-1, 1].
"""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from mint.data.audio.members import is_member, locate, open_stored
from mint.data.audio.pyav import open_sound
from mint.types import Clip, MintError

Samples = NDArray[np.float32]

AudioSource = str | Path | Clip | tuple[Any, int]
"""A file or member of a shard, or samples with their rate in Hz: [S], [channels, S] or [S, channels]."""

FOREIGN = (".m4a", ".aac", ".wma", ".mp4", ".mkv", ".webm")
"""Suffixes of formats that libsndfile does not read; PyAV does, if it is installed."""
UNKNOWN_FRAMES = 1 << 60
"""libsndfile gives the largest integer as the length of a FLAC stream that does not state it."""


def probe(path: str | Path) -> tuple[float, int, int]:
    """Length in seconds, rate in Hz and number of channels, from the header alone.

    Raises:
        MintError: the file is missing, empty or not audio.
    """
    with _opened(Path(path)) as file:
        return file.frames / file.samplerate, file.samplerate, file.channels


def load_audio(path: str | Path, rate: int, start: float = 0.0, duration: float | None = None) -> Samples:
    """Decode part of a file.

    Args:
        path: any file that libsndfile or PyAV reads, at any rate, with any number of channels (they are averaged).
        rate: Hz of the result.
        start: seconds into the file.
        duration: seconds; None: to the end. A file that ends earlier gives what there is.

    Returns:
        [S], S at least 1.

    Raises:
        MintError: missing file, empty file, not audio, no samples, NaN or infinite samples, or a start past the end.
    """
    return next(load_parts(path, rate, [(start, duration)]))


def load_parts(
    path: str | Path, rate: int, parts: Sequence[tuple[float, float | None]]
) -> Iterator[Samples]:  # yields [S]
    """Yield parts of a file, (start, duration) in seconds as `load_audio` has them, one in memory at a time.

    An MP3 file that was cut off still has the header of the whole: what is there of it is given, parts but the first
    that lie beyond its end are left out.

    Raises:
        MintError: as `load_audio`; or nothing is there of the first part.
    """
    for number, (start, duration) in enumerate(parts):
        samples, source_rate = _decode(Path(path), start, duration)
        if samples.size:
            yield _finished(samples, source_rate, rate, str(path))
        elif not number:
            raise MintError(f"{path}: it ends before {start:.2f} s, unlike its header says; fetch or export it again")


def _decode(path: Path, start: float, duration: float | None) -> tuple[NDArray[Any], int]:
    """One part as it is there, [S], and its rate."""
    if not start >= 0 or (duration is not None and not duration > 0):
        raise MintError(f"{path}: start {start} and duration {duration}; give start >= 0 and duration > 0 in seconds")
    with _opened(path) as file:
        first = round(start * file.samplerate)
        if first >= file.frames:
            seconds = file.frames / file.samplerate
            raise MintError(f"{path}: start {start} s is past the end ({seconds:.2f} s); give a smaller start")
        file.seek(first)
        count = -1 if duration is None else max(1, round(duration * file.samplerate))
        return _mono(file.read(count, dtype="float32", always_2d=True)), file.samplerate


def as_clip(audio: AudioSource, rate: int) -> Samples:
    """Bring a file or an array to one form.

    Args:
        audio: a path, a `Clip` or (samples, rate). In a 2-D array the shorter side is taken to be the channels;
            integer samples are scaled by the range of their type.
        rate: Hz of the result.

    Returns:
        [S].

    Raises:
        MintError: as `load_audio`; or an array without a rate, of more than two dimensions, or empty.
    """
    if isinstance(audio, str | Path):
        return load_audio(audio, rate)
    if isinstance(audio, Clip):
        audio = (audio.samples, audio.rate)
    if not (isinstance(audio, tuple) and len(audio) == 2 and isinstance(audio[1], int | np.integer) and audio[1] > 0):
        raise MintError(f"audio is {type(audio).__name__}; give a path or (samples, rate), such as (array, 16000)")
    samples = np.asarray(audio[0])
    if samples.ndim not in (1, 2):
        raise MintError(f"audio has the shape {samples.shape}; give [samples], [channels, samples] or its transpose")
    if np.issubdtype(samples.dtype, np.integer):
        info = np.iinfo(samples.dtype)
        half = (float(info.max) - info.min + 1) / 2  # int16: 32768, centred on 0; uint8: 128, centred on 128
        samples = (samples.astype(np.float32) - (info.min + half)) / half
    if samples.ndim == 2:
        samples = samples.mean(axis=int(samples.shape[0] > samples.shape[1]))
    return _finished(samples.astype(np.float32), int(audio[1]), rate, f"audio of shape {np.shape(audio[0])}")


def windows(seconds: float, max_seconds: float = 30.0, max_windows: int = 10) -> list[tuple[float, float]]:
    """Evenly spaced (start, length) in seconds that cover a clip, or sample it where it is very long.

    A clip of at most `max_seconds` is one window. A longer one has ceil(seconds / max_seconds) windows, at most
    `max_windows`, the first at the beginning and the last at the end.
    """
    if seconds <= max_seconds:
        return [(0.0, seconds)]
    count = min(max_windows, math.ceil(seconds / max_seconds))
    if count == 1:
        return [(0.0, max_seconds)]
    step = (seconds - max_seconds) / (count - 1)
    return [(index * step, max_seconds) for index in range(count)]


def load_windows(
    audio: AudioSource, rate: int, max_seconds: float = 30.0, max_windows: int = 10
) -> Iterator[Samples]:  # yields [S]
    """Yield the `windows` of a file or array, one in memory at a time; of a file no other part is decoded.

    Raises:
        MintError: as `as_clip`.
    """
    if isinstance(audio, str | Path):
        yield from load_parts(audio, rate, windows(probe(audio)[0], max_seconds, max_windows))
    else:
        samples = as_clip(audio, rate)
        for start, length in windows(len(samples) / rate, max_seconds, max_windows):
            first = round(start * rate)
            yield samples[first : first + round(length * rate)]


def check_audio(path: str | Path, start: float = 0.0, duration: float | None = None) -> float:
    """Decode the windows of a clip and throw them away.

    Returns:
        Seconds into the file up to which there is audio in the windows; less than the clip's end where it was cut off.

    Raises:
        MintError: as `load_audio`.
    """
    seconds, rate, _ = probe(path)
    there = seconds - start if duration is None else min(duration, seconds - start)
    parts = [(start + offset, length) for offset, length in windows(max(there, 1 / rate))]
    end = start
    for (begin, _), samples in zip(parts, load_parts(path, rate, parts), strict=False):
        end = begin + len(samples) / rate
    return end


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file; libsndfile's errors, also those of reading, become one line with a cure."""
    try:
        place = locate(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    if place.size == 0:
        raise MintError(f"{path}: the file is empty (0 bytes); fetch or export it again")
    cure = f"make it anew{_conversion(path)}"
    try:
        with _decoder(path, cure) as file:
            if file.frames == 0:
                raise MintError(f"{path}: the file holds no samples; fetch or export it again")
            if file.frames > UNKNOWN_FRAMES:
                raise MintError(f"{path}: the header does not say how long it is (a stream was saved); {cure}")
            yield file
    except OSError as error:
        raise _unreadable(path, error) from None
    except MemoryError:
        raise MintError(f"{path}: too long, or its header is wrong; give a duration, or {cure}") from None
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: headerless .raw, whose rate nobody knows
        try:
            open_stored(path).close()
        except OSError as refused:  # libsndfile does not say why
            raise _unreadable(path, refused) from None
        reason = getattr(error, "error_string", str(error)).rstrip(".")
        raise MintError(
            f"{path}: not audio that can be decoded ({reason}); give wav, flac, ogg, opus, mp3 or aiff, or {cure}"
        ) from None


@contextmanager
def _decoder(path: Path, cure: str) -> Iterator[Any]:
    """libsndfile's, or else PyAV's for formats that it does not read."""
    with ExitStack() as stack:
        source = stack.enter_context(open_stored(path)) if is_member(path) else _native(path)
        try:
            file = stack.enter_context(soundfile.SoundFile(source))
        except soundfile.SoundFileError:
            if path.suffix.lower() not in FOREIGN:
                raise
            file = stack.enter_context(open_sound(path, stack.enter_context(open_stored(path)), cure))
        yield file


def _conversion(path: Path) -> str:
    """How to write a file again where readers find it, by its own name in another format."""
    if is_member(path):
        return " and write its shard again"
    paths = (path, path.with_suffix(".wav" if path.suffix.lower() == ".flac" else ".flac"))
    # With ./ in front neither a hyphen nor a colon in a name means anything to ffmpeg.
    old, new = (shlex.quote(os.path.join(os.curdir, one)) for one in paths)  # noqa: PTH118
    return f", for instance with `ffmpeg -i {old} {new}`, in its place"


def _native(path: Path) -> Path | bytes:
    """A path as libsndfile takes it, whatever bytes the name is made of."""
    return path if sys.platform == "win32" else os.fsencode(path)


def _unreadable(path: Path, error: OSError) -> MintError:
    """One line about a file that cannot be opened."""
    if isinstance(error, PermissionError):
        return MintError(f"{path}: it may not be read; change its permissions")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        detail = f" ({error})" if is_member(path) else ""
        return MintError(f"{path}: no such audio file{detail}; check the path")
    return MintError(f"{path}: it cannot be read ({error.strerror or error}); check the path and the disk")


def _mono(samples: NDArray[Any]) -> NDArray[Any]:
    """Mean of the channels, [S, channels] -> [S]; as `mean(axis=1)`, which takes several times as long."""
    total = samples[:, 0]
    for channel in range(1, samples.shape[1]):
        total = total + samples[:, channel]
    return total / np.float32(samples.shape[1]) if samples.shape[1] > 1 else total


def _finished(samples: NDArray[Any], source_rate: int, rate: int, name: str) -> Samples:
    """Check and resample [S]."""
    if samples.size == 0:
        raise MintError(f"{name}: it holds no samples; give at least one")
    if not np.isfinite(samples).all():
        raise MintError(f"{name}: it holds NaN or infinite samples; export it again, for instance as 16-bit flac")
    if source_rate != rate:
        resampled = soxr.resample(samples, source_rate, rate, "HQ")
        samples = resampled if resampled.size else samples[:1]  # a clip of one sample may round to none
    return np.ascontiguousarray(samples, dtype=np.float32)
