"""Random sounds made by rule: noise, tones, voices and ringing bodies under envelopes.

No recording is behind them. They are what the corpus `sounds` starts from: passed through the frozen encoder, they give
features that a real waveform has, of which music from a SoundFont covers a corner alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.floating]
TOP = 0.47
"""Highest frequency, as a share of the sample rate."""


def synthesise(seed: int, index: int, length: int, rate: int) -> NDArray[np.float32]:
    """Return a random sound, mono [length]; it follows from seed, index, length and rate.

    Args:
        seed: the corpus's seed.
        index: number of the sound.
        length: in samples.
        rate: samples a second.
    """
    rng = np.random.default_rng([seed, index])
    sound: Samples = np.zeros(length)
    # Most sounds have one source or two; the first is at full level, others up to 24 dB below.
    for layer in range(rng.choice([1, 1, 2, 2, 3])):
        samples = _layer(rng, length, rate)
        level = 1.0 if layer == 0 else 10 ** -rng.uniform(0, 1.2)
        sound += level * _unit(samples)

    if rng.random() < 0.4:
        sound = _reverberate(rng, sound, rate)

    # Real recordings are rarely free of noise.
    if rng.random() < 0.5:
        sound = _unit(sound) + 10 ** rng.uniform(-3, -0.5) * _unit(_noise(rng, length, rate))

    # Peaks from full scale to 32 dB below: recordings are rarely normalised.
    loudness = 10 ** -rng.uniform(0, 1.6)
    return (loudness * sound / (np.abs(sound).max() + 1e-9)).astype(np.float32)


def _layer(rng: np.random.Generator, length: int, rate: int) -> Samples:
    """Return one of the four kinds of source under its envelope."""
    kind = rng.random()
    if kind < 0.38:
        return _noise(rng, length, rate) * _envelope(rng, length, rate)
    if kind < 0.58:
        return _tone(rng, length, rate, 63, 2500) * _envelope(rng, length, rate)
    if kind < 0.83:
        return _voice(rng, length, rate) * _envelope(rng, length, rate)
    return _ringing(rng, length, rate)


def _unit(samples: Samples) -> Samples:
    """Return the samples with a root mean square of 1."""
    return samples / (np.sqrt(np.mean(samples**2)) + 1e-9)


def _envelope(rng: np.random.Generator, length: int, rate: int) -> Samples:
    """Return the loudness over time [length]: steady, fading, a hump, pulsing, strokes, or unsteady."""
    times = np.arange(length) / rate
    seconds = length / rate
    kind = rng.integers(6)
    # Steady.
    if kind == 0:
        return np.ones(length)
    # Fading after its start, in 10 ms to a second.
    if kind == 1:
        start = rng.uniform(0, 0.6 * seconds)
        return np.where(times < start, 0.0, np.exp(-(times - start).clip(0) / 10 ** rng.uniform(-2, 0)))
    # A hump.
    if kind == 2:
        start, width = rng.uniform(0, 0.5 * seconds), rng.uniform(0.05, 0.8)
        inside = (times >= start) & (times < start + width)
        return np.sin(np.pi * (times - start) / width).clip(0, 1) * inside
    # Pulsing, 1 to 40 times a second; the power makes the pulses short.
    if kind == 3:
        wave = np.sin(2 * np.pi * (10 ** rng.uniform(0, 1.6) * times + rng.random()))
        return (0.5 + 0.5 * wave).clip(0, 1) ** rng.uniform(0.5, 8)
    # Strokes.
    if kind == 4:
        tail = np.exp(-np.arange(rate // 2) / rate / 10 ** rng.uniform(-2.3, -0.7))
        return _convolve(_strokes(rng, length, rate, 10 ** rng.uniform(0.2, 1.3)), tail)
    # Unsteady: another level every 50 ms, with the steps smoothed.
    steps = np.repeat(rng.random(length * 20 // rate + 2) ** 2, rate // 20)[:length]
    return np.convolve(steps, np.ones(rate // 40) / (rate // 40), "same")


def _strokes(rng: np.random.Generator, length: int, rate: int, often: float) -> Samples:
    """Return impulses of random heights, regular or not, about `often` a second."""
    strokes = np.zeros(length)
    is_regular = rng.random() < 0.5
    time = rng.random() * min(0.5, 1 / often)
    while time * rate < length:
        strokes[int(time * rate)] += rng.uniform(0.3, 1)
        time += 1 / often if is_regular else rng.exponential(1 / often)
    return strokes


def _noise(rng: np.random.Generator, length: int, rate: int) -> Samples:
    """Return noise with a random tilt and up to three broad resonances."""
    # 20 Hz more than they are: no power of zero, and no peak below what can be heard.
    frequencies = np.fft.rfftfreq(length, 1 / rate) + 20
    gains = frequencies ** -rng.uniform(-0.3, 1.5)
    for _ in range(rng.integers(0, 4)):
        gains = gains * _resonance(rng, frequencies, rng.uniform(0.05, 0.6), rate)
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(length)) * gains, length)


def _tone(rng: np.random.Generator, length: int, rate: int, low: float, high: float) -> Samples:
    """Return a harmonic tone whose pitch may glide, tremble or wail."""
    times, along = np.arange(length) / rate, np.linspace(0, 1, length)
    pitch = low * (high / low) ** rng.random()
    octaves = np.zeros(length)
    if rng.random() < 0.6:
        octaves += rng.uniform(-1.5, 1.5) * along ** rng.uniform(0.4, 2)
    if rng.random() < 0.5:
        octaves += 0.06 * rng.random() * np.sin(2 * np.pi * rng.uniform(3, 9) * times)
    if rng.random() < 0.25:
        octaves += rng.uniform(0, 0.8) * np.sin(2 * np.pi * rng.uniform(0.5, 6) * times)

    # A phase that is summed up keeps the wave whole where its frequency changes.
    frequency = pitch * 2**octaves
    phase = 2 * np.pi * np.cumsum(frequency) / rate
    tilt, only_odd = rng.uniform(0.3, 2.2), rng.random() < 0.2
    # None above the highest frequency: it would come back mirrored.
    harmonics = min(40, int(TOP * rate / frequency.max()))
    sound = np.zeros(length)
    for number in range(1, max(1, harmonics) + 1, 2 if only_odd else 1):
        sound += number**-tilt * rng.uniform(0.4, 1) * np.sin(number * phase + rng.random() * 6)
    return sound


def _voice(rng: np.random.Generator, length: int, rate: int) -> Samples:
    """Return a tone with some breath in a throat: up to three narrow resonances."""
    sound = _tone(rng, length, rate, 63, 1000)
    sound = _unit(sound) + rng.uniform(0, 0.5) * _unit(_noise(rng, length, rate))
    frequencies = np.fft.rfftfreq(length, 1 / rate) + 20
    gains = np.full(len(frequencies), 0.3)
    for _ in range(rng.integers(1, 4)):
        gains = gains * _resonance(rng, frequencies, rng.uniform(0.05, 0.25), rate)
    return np.fft.irfft(np.fft.rfft(sound) * gains, length)


def _resonance(rng: np.random.Generator, frequencies: Samples, width: float, rate: int) -> Samples:
    """Return the gains of a resonance at a random frequency, a bell on the logarithmic axis."""
    centre = 100 * (TOP * rate / 100) ** rng.random()
    return 0.15 + rng.uniform(1, 8) * np.exp(-0.5 * (np.log(frequencies / centre) / width) ** 2)


def _ringing(rng: np.random.Generator, length: int, rate: int) -> Samples:
    """Return a body with some modes that is struck now and then."""
    times = np.arange(length) / rate
    body = np.zeros(length)
    for _ in range(rng.integers(2, 9)):
        mode = 100 * (TOP * rate / 100) ** rng.random()
        body += rng.random() * np.exp(-times / 10 ** rng.uniform(-2.5, 0)) * np.sin(2 * np.pi * mode * times)
    return _convolve(_strokes(rng, length, rate, 10 ** rng.uniform(-0.3, 1.2)), body)


def _reverberate(rng: np.random.Generator, sound: Samples, rate: int) -> Samples:
    """Return the sound in a random room."""
    length = int(rate * rng.uniform(0.05, 0.5))
    tail = rng.standard_normal(length) * np.exp(-4 * np.arange(length) / length) * rng.uniform(0.02, 0.2)
    return _convolve(sound, np.concatenate([[1.0], tail]))


def _convolve(first: Samples, second: Samples) -> Samples:
    """Return the first part of a convolution, as long as `first`."""
    size = 1 << (len(first) + len(second)).bit_length()  # a power of two is several times as fast
    return np.fft.irfft(np.fft.rfft(first, size) * np.fft.rfft(second, size), size)[: len(first)]
