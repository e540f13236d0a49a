"""Fingerprints of sound: against the definition, and what copies and strangers have in common."""

from __future__ import annotations

import itertools

import numpy as np

from mint.data.audio.fingerprint import (
    BANDS,
    DIFFERING,
    FRAME,
    HIGHEST,
    HOP,
    LOWEST,
    RATE,
    SoundIndex,
    distance,
    fingerprint,
)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.2, round(seconds * RATE)).astype(np.float32)


def by_definition(samples: np.ndarray) -> list[int]:
    """Frame by frame and band by band."""
    edges = [LOWEST * (HIGHEST / LOWEST) ** (band / BANDS) for band in range(BANDS + 1)]
    bins = [round(edge * FRAME / RATE) for edge in edges]
    energies = []
    for start in range(0, len(samples) - FRAME + 1, HOP):
        spectrum = np.abs(np.fft.rfft(samples[start : start + FRAME] * np.hanning(FRAME))) ** 2
        energies.append([spectrum[low:high].sum() for low, high in itertools.pairwise(bins)])
    values = []
    for before, after in itertools.pairwise(energies):
        value = 0
        for band in range(32):
            grows = after[band] - after[band + 1] > before[band] - before[band + 1]
            value = value << 1 | int(grows)
        values.append(value)
    return values


def test_the_definition() -> None:
    samples = noise(1.5)
    bits = fingerprint(samples)
    assert len(bits) == (len(samples) - FRAME) // HOP
    expected = np.array(by_definition(samples), np.uint32)
    assert distance(bits, expected, 0) < 0.001  # float32 and float64 may round a tie apart


def test_strangers_differ_in_half_of_their_bits_and_copies_in_few() -> None:
    sound = noise(10.0)
    bits = fingerprint(sound)
    for seed in range(1, 9):
        other = fingerprint(noise(10.0, seed))
        assert abs(distance(bits, other, 0) - 0.5) < 0.06
    assert distance(bits, fingerprint(sound * np.float32(0.01)), 0) < 0.001
    assert distance(bits, fingerprint(sound[20 * HOP :]), -20) == 0
    assert distance(fingerprint(sound[20 * HOP :]), bits, 20) == 0
    assert distance(bits, fingerprint(sound[20 * HOP + HOP // 2 :]), -20) < DIFFERING  # between two frames
    with_noise = fingerprint(sound + np.float32(0.05) * noise(10.0, 9))
    assert distance(bits, with_noise, 0) < 0.1


def test_silence_and_short_sound_are_not_compared() -> None:
    assert not fingerprint(np.zeros(3 * RATE, np.float32)).any()
    assert not len(fingerprint(noise(0.3)))
    index = SoundIndex()
    assert not index.add("silence", [np.zeros(3 * RATE, np.float32)])
    assert not index.add("short", [noise(0.9)])
    assert index.find([noise(3.0)]) == []
    assert index.add("noise", [noise(0.3), noise(3.0)])
    assert index.find([np.zeros(3 * RATE, np.float32)]) == []
    silence_around = np.concatenate([np.zeros(2 * RATE, np.float32), noise(3.0), np.zeros(2 * RATE, np.float32)])
    assert index.find([silence_around]) == ["noise"]
    assert index.find([np.roll(silence_around, RATE)]) == ["noise"]


def test_the_right_ones_of_many_are_found() -> None:
    index = SoundIndex()
    for seed in range(40):
        assert index.add(seed, [noise(4.0, seed)])
    stretches = [noise(4.0, 7)[RATE : 3 * RATE], noise(4.0, 100), np.concatenate([noise(2.0, 101), noise(4.0, 31)])]
    assert index.find(stretches) == [7, 31]
    assert index.find([noise(4.0, 102)]) == []
