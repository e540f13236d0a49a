"""Log-mel spectrogram as YAMNet was trained on (tensorflow/models, research/audioset/yamnet/features.py).

Magnitude spectrum of 512 points under a periodic Hann window of 25 ms every 10 ms, 64 mel bands from 125 to 7500 Hz
(HTK's mel scale, triangles that are straight in mel, not in hertz, as in TensorFlow), log(mel + 0.001).

The filters equal `transformers.audio_utils.mel_filter_bank` to 1e-7 (a test holds them to it). They are computed here
because cached features, and published figures, rest on these bits, and because YAMNet needs no transformers otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SAMPLE_RATE = 16000
WINDOW = 400
HOP = 160
FFT = 512
BANDS = 64
LOWEST_HZ, HIGHEST_HZ = 125.0, 7500.0
FLOOR = 0.001
DESCRIPTION = "log-mel 16000 Hz, 400/160/512 magnitude, 64 HTK bands 125-7500 Hz, floor 0.001"
"""All of this in one string, for the keys of caches."""


class LogMel(nn.Module):
    """Turns a waveform [..., S] into log-mel frames [..., 1 + (S - 400) // 160, 64]; S is at least 400."""

    window: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW, periodic=True), persistent=False)
        self.register_buffer("filters", mel_filters(), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Return the frames [..., F, 64]; only whole windows count."""
        frames = waveform.unfold(-1, WINDOW, HOP) * self.window  # [..., F, 400]
        magnitude = torch.fft.rfft(frames, n=FFT).abs()  # [..., F, 257]
        return torch.log(magnitude @ self.filters + FLOOR)


def mel_filters() -> Tensor:
    """Return the triangular filters [257, 64] from the bins of the spectrum to the mel bands."""
    bins = hertz_to_mel(torch.linspace(0.0, SAMPLE_RATE / 2, FFT // 2 + 1, dtype=torch.float64)).unsqueeze(1)
    ends = hertz_to_mel(torch.tensor([LOWEST_HZ, HIGHEST_HZ], dtype=torch.float64))
    edges = torch.linspace(float(ends[0]), float(ends[1]), BANDS + 2, dtype=torch.float64)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    # Both slopes of each triangle; the lower one counts, and nothing below zero.
    triangles = torch.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre))
    return triangles.clamp(min=0.0).float()


def hertz_to_mel(frequency: Tensor) -> Tensor:
    """Return frequencies in hertz on HTK's mel scale."""
    return 1127.0 * torch.log1p(frequency / 700.0)
