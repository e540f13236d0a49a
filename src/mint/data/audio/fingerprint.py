"""Copies of a recording that are shifted, cut, louder or encoded anew, found by how their spectrum moves.

After Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System" (2002): 33 bands between 300 and 2000 Hz, and
for every 11.6 ms 32 bits that say whether the difference of neighbouring bands grew. Copies share most of their bits,
any two recordings half of them. What is played faster, transposed or mixed with other sound is not found.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np
from numpy.typing import NDArray

RATE = 5512
"""Hz at which sound is compared."""
FRAME = 2048
"""Samples of a frame, 0.37 s: so long that copies shifted by any time have nearly the same frames."""
HOP = 64
BANDS = 33
LOWEST, HIGHEST = 300.0, 2000.0
"""Hz that the bands cover."""
SHORTEST = 64
"""Frames that must overlap (0.74 s, in clips from 1.1 s on): fewer agree by chance."""
DIFFERING = 0.25
"""Share of the bits below which two stretches are copies; unrelated ones differ in half."""
CANDIDATES = 200
"""Pairs of a recording and an offset, those with most frames in common, that are compared bit by bit."""
QUIET = 1e-8
"""Power of a frame below which it is silence, all of which is alike."""


def fingerprint(samples: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Return 32 bits for each frame of samples at `RATE`, [S] -> [N]; 0 where there is silence."""
    if len(samples) < FRAME + HOP:
        return np.zeros(0, np.uint32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP]  # [N + 1, FRAME]
    power = np.abs(np.fft.rfft(frames * np.hanning(FRAME).astype(np.float32), axis=1)) ** 2
    edges = np.geomspace(LOWEST, HIGHEST, BANDS + 1) * FRAME / RATE
    energy = np.add.reduceat(power, np.round(edges).astype(int), axis=1)[:, :BANDS]  # [N + 1, BANDS]

    slope = energy[:, :-1] - energy[:, 1:]
    grows = slope[1:] > slope[:-1]  # [N, 32]
    bits = np.packbits(grows, axis=1).view(">u4")[:, 0].astype(np.uint32)
    bits[np.square(frames[1:]).mean(axis=1) < QUIET] = 0
    return bits


class SoundIndex:
    """Finds those of some recordings that a recording is a copy of, or has a stretch in common with."""

    def __init__(self) -> None:
        self._keys: list[Hashable] = []
        self._prints: list[NDArray[np.uint32]] = []
        self._sorted: tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]] | None = None

    def add(self, key: Hashable, stretches: Iterable[NDArray[np.float32]]) -> bool:
        """Take a recording in, as stretches [S] at `RATE`; return False if it is too short or too quiet to compare."""
        added = False
        for samples in stretches:
            bits = fingerprint(samples)
            if np.count_nonzero(bits) >= SHORTEST:
                self._keys.append(key)
                self._prints.append(bits)
                added = True
        self._sorted = None
        return added

    def find(self, stretches: Iterable[NDArray[np.float32]]) -> list[Hashable]:
        """Return the keys of the recordings that have a stretch in common with this one, [S] at `RATE` each."""
        if not self._prints:
            return []
        keys: dict[Hashable, None] = {}
        for samples in stretches:
            bits = fingerprint(samples)
            for number, offset in self._candidates(bits):
                if self._keys[number] not in keys and _agree(bits, self._prints[number], offset):
                    keys[self._keys[number]] = None
        return list(keys)

    def _candidates(self, bits: NDArray[np.uint32]) -> list[tuple[int, int]]:
        """Return numbers of recordings and offsets in frames at which some frames agree but for one bit at most."""
        if self._sorted is None:
            self._sorted = self._sort()
        values, numbers, frames = self._sorted

        # Encoding flips one bit in ten or so: there are several times as many frames that agree but for one.
        positions = np.flatnonzero(bits)  # [N]
        flips = np.concatenate([[0], 1 << np.arange(32)]).astype(np.uint32)
        wanted = (bits[positions, None] ^ flips).reshape(-1)  # [N * 33]
        positions = np.repeat(positions, len(flips))

        # Equal values stand side by side: each wanted one has the hits from `first` to `last`, here one after another.
        first, last = np.searchsorted(values, wanted, "left"), np.searchsorted(values, wanted, "right")
        counts = last - first
        before = np.repeat(counts.cumsum() - counts, counts)
        hits = np.repeat(first, counts) + np.arange(counts.sum()) - before
        pairs = np.stack([numbers[hits], frames[hits] - np.repeat(positions, counts)], axis=1)

        distinct, votes = np.unique(pairs, axis=0, return_counts=True)
        order = np.argsort(-votes, kind="stable")[:CANDIDATES]
        return [(int(number), int(offset)) for number, offset in distinct[order]]

    def _sort(self) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]:
        """Return the frames of all recordings by their bits: the bits, the recording's number, and where it lies."""
        values = np.concatenate(self._prints)
        numbers = np.repeat(np.arange(len(self._prints)), [len(bits) for bits in self._prints])
        frames = np.concatenate([np.arange(len(bits)) for bits in self._prints])
        order = np.argsort(values, kind="stable")
        order = order[np.searchsorted(values[order], 1) :]  # silence
        return values[order], numbers[order], frames[order]


def _agree(bits: NDArray[np.uint32], other: NDArray[np.uint32], offset: int) -> bool:
    """Return whether two recordings, of which the other is `offset` frames later, are copies where they overlap."""
    return distance(bits, other, offset) < DIFFERING


def distance(bits: NDArray[np.uint32], other: NDArray[np.uint32], offset: int) -> float:
    """Return the share of the bits that differ where two recordings overlap; 1 where they overlap too little."""
    begin, end = max(0, -offset), min(len(bits), len(other) - offset)
    ours, theirs = bits[begin:end], other[begin + offset : end + offset]
    heard = (ours != 0) & (theirs != 0)
    count = int(np.count_nonzero(heard))
    if count < SHORTEST:
        return 1.0
    return int(np.bitwise_count(ours[heard] ^ theirs[heard]).sum()) / (32 * count)
