"""The log-mel front end against a plain NumPy version written from its definition."""

from __future__ import annotations

import math

import numpy as np
import torch
from transformers.audio_utils import mel_filter_bank

from mint.encoders.log_mel import LogMel, mel_filters


def mel(frequency: float) -> float:
    return 1127.0 * math.log(1.0 + frequency / 700.0)


def naive_filter(frequency: float, band: int) -> float:
    """Height of one triangle at one frequency."""
    step = (mel(7500.0) - mel(125.0)) / 65
    left, top, right = (mel(125.0) + step * (band + side) for side in range(3))
    place = mel(frequency)
    if left < place <= top:
        return (place - left) / (top - left)
    if top < place < right:
        return (right - place) / (right - top)
    return 0.0


def naive_log_mel(samples: np.ndarray) -> np.ndarray:
    """Frame by frame, bin by bin."""
    window = [0.5 - 0.5 * math.cos(2 * math.pi * n / 400) for n in range(400)]
    wave = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(400)) / 512)
    filters = np.array([[naive_filter(k * 16000 / 512, band) for band in range(64)] for k in range(257)])
    rows = []
    for start in range(0, len(samples) - 399, 160):
        magnitude = np.abs(wave @ (samples[start : start + 400] * window))
        rows.append(np.log(magnitude @ filters + 0.001))
    return np.array(rows)


def test_against_the_naive_version() -> None:
    rng = np.random.default_rng(0)
    time = np.arange(4000) / 16000
    samples = 0.5 * np.sin(2 * np.pi * 440 * time) + 0.01 * rng.standard_normal(4000)
    samples[3000:] = 0.0
    found = LogMel()(torch.from_numpy(samples).float()).numpy()
    expected = naive_log_mel(samples)
    assert found.shape == expected.shape == (1 + (4000 - 400) // 160, 64)
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_filters_against_the_naive_version() -> None:
    expected = [[naive_filter(k * 16000 / 512, band) for band in range(64)] for k in range(257)]
    np.testing.assert_allclose(mel_filters().numpy(), expected, atol=1e-6)


def test_a_tone_is_loudest_in_its_band_and_silence_is_the_floor() -> None:
    time = torch.arange(16000) / 16000
    frames = LogMel()(torch.stack([torch.sin(2 * math.pi * 1000 * time), torch.zeros(16000)]))
    step = (mel(7500.0) - mel(125.0)) / 65
    assert set(frames[0].argmax(dim=1).tolist()) == {round((mel(1000.0) - mel(125.0)) / step) - 1}
    torch.testing.assert_close(frames[1], torch.full((98, 64), math.log(0.001)))


def test_filters_are_those_of_transformers() -> None:
    filters = mel_filter_bank(
        num_frequency_bins=257,
        num_mel_filters=64,
        min_frequency=125.0,
        max_frequency=7500.0,
        sampling_rate=16000,
        mel_scale="htk",
        triangularize_in_mel_space=True,
    )
    np.testing.assert_allclose(mel_filters().numpy(), filters, rtol=0, atol=1e-7)
