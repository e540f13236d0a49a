"""A recording of any length as pieces of one length, which may overlap, in the memory of a few of them.

The file is decoded once, from its beginning to its end. A piece has the samples that `load_audio` gives of its part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mint.data.audio.arrays import one_channel
from mint.data.audio.decode import AudioSource, Samples, finished
from mint.data.audio.opening import mean_of_channels, open_audio
from mint.types import MintError


class Piece(NamedTuple):
    """A piece of a recording."""

    start: float
    """Seconds into the recording."""
    end: float
    samples: Samples
    """[S]."""


def pieces(audio: AudioSource, rate: int, every: float, hop: float) -> Iterator[Piece]:
    """Yield the pieces of a recording in their order; the last one ends with it, and may be shorter.

    Args:
        audio: a file, or samples with their rate as `one_channel` reads them.
        rate: Hz of the samples of a piece.
        every: length of a piece in seconds.
        hop: seconds from the beginning of one piece to that of the next; at most `every`.

    Raises:
        MintError: as `as_clip`; or times that no pieces have.
    """
    check_times(every, hop)
    if isinstance(audio, str | Path):
        with open_audio(Path(audio)) as sound:
            # A header may promise more than there is, or less: what is decoded counts.
            mono = (mean_of_channels(block) for block in sound.blocks())
            yield from _cut(mono, sound.samplerate, rate, every, hop, str(audio))
    else:
        samples, source_rate = one_channel(audio)
        yield from _cut(iter([samples]), source_rate, rate, every, hop, f"audio of {samples.size} samples")


def check_times(every: float, hop: float) -> None:
    """Refuse a length and a hop of which there are no pieces, or none without gaps.

    Raises:
        MintError: it says what is wrong.
    """
    for name, value in (("every", every), ("hop", hop)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:  # NaN, too
            raise MintError(f"{name} is {value!r}; give seconds above 0")
    if hop > every:
        raise MintError(f"a hop of {hop:g} s leaves gaps between pieces of {every:g} s; give at most {every:g}")


def _cut(
    blocks: Iterator[NDArray[np.float32]], source_rate: int, rate: int, every: float, hop: float, name: str
) -> Iterator[Piece]:
    """Cut blocks [S] that follow one another into pieces, which are resampled one by one."""
    length = max(1, round(every * source_rate))
    waiting = np.zeros(0, np.float32)  # samples from `begin` on
    later: list[NDArray[np.float32]] = []  # blocks that follow it, and are joined to it once a piece is full
    begin = end = 0
    index = first = 0
    for block in blocks:
        later.append(block)
        end += len(block)

        # A piece that ends where the decoded samples end may be the last: it waits for what follows.
        while first + length < end:
            waiting, later = np.concatenate([waiting, *later])[first - begin :], []
            begin = first
            yield Piece(index * hop, index * hop + every, finished(waiting[:length], source_rate, rate, name))
            index += 1
            first = round(index * hop * source_rate)

    # The rest is what no piece has reached; by rounding, there may be none.
    waiting = np.concatenate([waiting, *later])[first - begin :]
    if waiting.size or not index:
        yield Piece(index * hop, end / source_rate, finished(waiting, source_rate, rate, name))
