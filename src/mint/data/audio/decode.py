"""Audio files and arrays -> mono float32 at the rate that an encoder wants.

libsndfile decodes (wav, flac, ogg, opus, mp3, aiff, ...), or PyAV what it does not read (m4a, mp4, webm, ...), and only
the part that is wanted; soxr resamples. Clips longer than the paper's 30 s (section 3.2) are read as evenly spaced
windows, so that a file of hours costs bounded work. Shapes: S samples; arrays are float32 in [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from mint.data.audio.arrays import one_channel
from mint.data.audio.opening import FOREIGN, Sound, mean_of_channels, open_audio
from mint.types import Clip, MintError

__all__ = [
    "FOREIGN",
    "AudioSource",
    "Samples",
    "as_clip",
    "load_audio",
    "load_part",
    "load_parts",
    "load_windows",
    "probe",
    "windows",
]

Samples = NDArray[np.float32]

AudioSource = str | Path | Clip | tuple[Any, int] | dict[str, Any]
"""A file or member of a shard, or samples with their rate in Hz, as `one_channel` reads them."""


def probe(path: str | Path) -> tuple[float, int, int]:
    """Return length in seconds, rate in Hz and number of channels, without decoding.

    Raises:
        MintError: the file is missing, empty or not audio.
    """
    with open_audio(Path(path)) as sound:
        return sound.frames / sound.samplerate, sound.samplerate, sound.channels


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

    An MP3 file that was cut off still has the header of the whole: what remains of it is yielded, and parts but the
    first that lie beyond its end are left out.

    Raises:
        MintError: as `load_audio`; or nothing remains of the first part.
    """
    for index, (start, duration) in enumerate(parts):
        samples = load_part(path, rate, start, duration)
        if samples is not None:
            yield samples
        elif not index:
            raise MintError(
                f"{path}: it ends before {start:.2f} s, although its header says otherwise; fetch or export it again"
            )


def load_part(path: str | Path, rate: int, start: float, duration: float | None) -> Samples | None:
    """Decode a part of a file, [S]; None where the file was cut off before it. Errors as `load_audio`."""
    with open_audio(Path(path)) as sound:
        samples, source_rate = read_part(path, sound, start, duration), sound.samplerate
    return finished(mean_of_channels(samples), source_rate, rate, str(path)) if samples.size else None


def read_part(path: str | Path, sound: Sound, start: float, duration: float | None) -> Samples:
    """Decode a part of an open file as it is, [S, channels] at its own rate.

    Raises:
        MintError: a part that no file has, or a start past the end.
    """
    if not start >= 0 or (duration is not None and not duration > 0):  # NaN, too
        raise MintError(f"{path}: start {start} and duration {duration}; give start >= 0 and duration > 0 in seconds")

    first = round(start * sound.samplerate) if start < math.inf else sound.frames
    if first >= sound.frames:
        seconds = sound.frames / sound.samplerate
        raise MintError(f"{path}: start {start} s is past the end ({seconds:.2f} s); give a smaller start")

    rest = sound.frames - first
    if duration is None or duration * sound.samplerate >= rest:
        return sound.read(first, rest)
    # A duration of less than half a sample is one sample.
    return sound.read(first, max(1, round(duration * sound.samplerate)))


def as_clip(audio: AudioSource, rate: int) -> Samples:
    """Bring a file or an array to one form.

    Args:
        audio: a path, or samples with their rate as `one_channel` reads them.
        rate: Hz of the result.

    Returns:
        [S].

    Raises:
        MintError: as `load_audio`; or as `one_channel`.
    """
    if isinstance(audio, str | Path):
        return load_audio(audio, rate)

    samples, source_rate = one_channel(audio)
    return finished(samples, source_rate, rate, f"audio of {samples.size} samples")


def windows(seconds: float, max_seconds: float = 30.0, max_windows: int = 10) -> list[tuple[float, float]]:
    """Return evenly spaced (start, length) in seconds that cover a clip, or sample it where it is very long.

    A clip of at most `max_seconds` is one window. A longer one has ceil(seconds / max_seconds) windows, at most
    `max_windows`, the first at the beginning and the last at the end.
    """
    if seconds <= max_seconds:
        return [(0.0, seconds)]

    count = min(max_windows, math.ceil(seconds / max_seconds))
    if count == 1:
        return [(0.0, max_seconds)]

    # The last window ends with the clip: windows overlap where they cover it, and leave gaps where it is very long.
    step = (seconds - max_seconds) / (count - 1)
    return [(index * step, max_seconds) for index in range(count)]


def load_windows(
    audio: AudioSource, rate: int, max_seconds: float = 30.0, max_windows: int = 10
) -> Iterator[Samples]:  # yields [S]
    """Yield the `windows` of a file or array, one in memory at a time; of a file no other part is decoded.

    Raises:
        MintError: as `as_clip`.
    """
    if isinstance(audio, str | Path):  # only the windows are decoded
        yield from load_parts(audio, rate, windows(probe(audio)[0], max_seconds, max_windows))
    else:
        samples = as_clip(audio, rate)
        for start, length in windows(len(samples) / rate, max_seconds, max_windows):
            first = round(start * rate)
            yield samples[first : first + round(length * rate)]


def finished(samples: NDArray[Any], source_rate: int, rate: int, name: str) -> Samples:
    """Return samples of one channel at the wanted rate, [S]; refuse what no encoder can hear."""
    if samples.size == 0:
        raise MintError(f"{name}: it holds no samples; give at least one")
    if not np.isfinite(samples).all():
        raise MintError(f"{name}: it holds NaN or infinite samples; export it again, for instance as 16-bit flac")

    if source_rate != rate:
        resampled = soxr.resample(samples, source_rate, rate, "HQ")
        samples = resampled if resampled.size else samples[:1]  # a clip of one sample may round to none
    return np.ascontiguousarray(samples, dtype=np.float32)
