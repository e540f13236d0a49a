"""The sound of m4a, mp4, webm and their like, which libsndfile does not read: through PyAV, an optional extra.

Where time stamps count samples, as in mp4, a part is decoded from a second before it begins; elsewhere from the
beginning, since stamps in milliseconds do not say which sample a part begins with. A part is the slice of the whole,
but for noise that AAC leaves to the decoder to make up. PyAV is imported when it is needed.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mint.types import MintError

CONTAINERS = "mov,matroska,asf,aac,mpegts"
"""ffmpeg's names of what is read: others may name further files or addresses, which it would open."""
RUN_UP_SECONDS = 1
"""Decoded before a part: what a decoder says depends on some frames before."""


def is_installed() -> bool:
    """Whether PyAV is."""
    return importlib.util.find_spec("av") is not None


@contextmanager
def open_sound(path: Path, file: BinaryIO, cure: str) -> Iterator[Sound]:
    """Open the first sound track of a file; `path` and `cure` are for errors.

    Raises:
        MintError: PyAV is not installed, there is no sound, or, also while it is read, it cannot be decoded.
    """
    if not is_installed():
        raise MintError(f"{path}: {path.suffix} is read with PyAV; `pip install 'mint-audio[video]'`, or {cure}")
    av = importlib.import_module("av")
    try:
        with av.open(file, options={"format_whitelist": CONTAINERS}, metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise MintError(f"{path}: there is no sound in it; give another file")
            yield Sound(container, av.AudioResampler(format="fltp"))
    except MintError:
        raise
    except (av.FFmpegError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MintError(f"{path}: not audio that can be decoded ({reason}); {cure}") from None


class Sound:
    """As much of `soundfile.SoundFile` as is used here: `seek` once, then `read` once."""

    def __init__(self, container: Any, resampler: Any) -> None:
        self._container, self._resampler = container, resampler
        self._stream = stream = container.streams.audio[0]
        length, unit = stream.duration, stream.time_base
        if container.format.name == "aac":  # no header says how long it is
            length = sum(packet.duration or 0 for packet in container.demux(stream))
            container.seek(0)
        if length is None:
            length, unit = container.duration, Fraction(1, 1_000_000)
        frames = container.decode(stream)
        if (first := next(frames, None)) is None:
            raise EOFError("no sound in its sound track")
        self._decoded, self._begin, self._offset = chain([first], frames), first.pts, 0
        self.samplerate: int = first.sample_rate
        self.channels: int = first.layout.nb_channels
        self.frames: int = sys.maxsize if length is None else round(length * unit * self.samplerate)

    def seek(self, frame: int) -> None:
        """Where to read from."""
        self._offset = frame

    def read(self, frames: int, dtype: str = "float32", always_2d: bool = True) -> NDArray[np.float32]:
        """[S, channels] of at most so many samples; below 0: all."""
        end = sys.maxsize if frames < 0 else self._offset + frames
        decoded: Iterable[Any] = self._decoded
        place: int | None = 0
        run_up = self._offset - RUN_UP_SECONDS * self.samplerate
        if run_up > 0 and self._begin is not None and self._stream.time_base == Fraction(1, self.samplerate):
            self._container.seek(self._begin + run_up, stream=self._stream)
            decoded, place = self._container.decode(self._stream), None
        parts = [np.zeros((self.channels, 0), np.float32)]
        for frame in decoded:
            place = frame.pts - self._begin if place is None else place
            if place >= end:
                break
            if place + frame.samples > self._offset:
                for piece in self._resampler.resample(frame):
                    parts.append(piece.to_ndarray()[:, max(0, self._offset - place) : end - place])
            place += frame.samples
        return np.concatenate(parts, axis=1).T
