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
    """Return whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


@contextmanager
def open_sound(path: Path, file: BinaryIO, kind: str, cure: str) -> Iterator[SoundTrack]:
    """Open the first sound track of a file.

    Args:
        path: its name, for errors.
        file: its bytes.
        kind: the format or the suffix, for errors.
        cure: what to do where it cannot be read, for errors.

    Raises:
        MintError: PyAV is not installed, there is no sound, or, also while it is read, it cannot be decoded.
    """
    if not is_installed():
        raise MintError(f"{path}: {kind} is read with PyAV; `pip install 'mint-audio[video]'`, or {cure}")
    av = importlib.import_module("av")
    try:
        with av.open(file, options={"format_whitelist": CONTAINERS}, metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise MintError(f"{path}: there is no sound in it; give another file")
            yield SoundTrack(container, av.AudioResampler(format="fltp"))
    except MintError:
        raise
    except (av.FFmpegError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MintError(f"{path}: not audio that can be decoded ({reason}); {cure}") from None


class SoundTrack:
    """The sound track of an open file, of which one part is read, or the whole in blocks."""

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
        self._decoded, self._begin = chain([first], frames), first.pts
        self.samplerate: int = first.sample_rate
        self.channels: int = first.layout.nb_channels
        self.frames: int = sys.maxsize if length is None else round(length * unit * self.samplerate)
        self.promised = self.frames

    def read(self, first: int, count: int) -> NDArray[np.float32]:
        """Decode at most `count` samples from the sample `first` on, [S, channels]."""
        end = first + count
        decoded: Iterable[Any] = self._decoded
        position: int | None = 0
        run_up = first - RUN_UP_SECONDS * self.samplerate
        counts_samples = self._stream.time_base == Fraction(1, self.samplerate)
        if run_up > 0 and self._begin is not None and counts_samples:
            self._container.seek(self._begin + run_up, stream=self._stream)
            decoded, position = self._container.decode(self._stream), None

        pieces = [np.zeros((self.channels, 0), np.float32)]
        for frame in decoded:
            if position is None:  # the stamp of the frame to which the container went says where it lies
                position = frame.pts - self._begin
            if position >= end:
                break
            if position + frame.samples > first:
                for piece in self._resampler.resample(frame):  # [channels, samples of the frame]
                    pieces.append(piece.to_ndarray()[:, max(0, first - position) : end - position])
            position += frame.samples
        return np.concatenate(pieces, axis=1).T  # [S, channels]

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Decode the whole, in blocks [S, channels] of one frame each."""
        for frame in self._decoded:
            for piece in self._resampler.resample(frame):  # [channels, samples of the frame]
                yield piece.to_ndarray().T
