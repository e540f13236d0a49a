"""A tiny frozen encoder with random weights, for tests of everything around an encoder; it has learnt nothing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mint.encoders.frozen import FrozenEncoder

FRAME = 320
"""Samples of a frame: 20 ms, without overlap."""


class TinyEncoder(FrozenEncoder):
    """Frames of 20 ms through one fixed random projection; implements `mint.types.AudioEncoder`."""

    sample_rate = 16000
    width = 16
    bands = 1
    step_seconds = 0.02
    identity = "tiny: tanh of one random projection of 20 ms frames, seed 0"
    projection: Tensor

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("projection", torch.randn(FRAME, self.width, generator=generator), persistent=False)
        self.train(False)

    @torch.no_grad()
    def encode(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a zero-padded batch; the last frame of a clip is completed with silence.

        Args:
            waveform: [B, S] float32 at 16 kHz; what lies beyond the lengths is not read.
            lengths: [B] int64, in samples.

        Returns:
            features [B, T, 16], one frame for each begun 20 ms of the longest clip, and mask [B, T].
        """
        num_frames = max(1, -(-int(lengths.max()) // FRAME))  # rounded up
        end = num_frames * FRAME
        waveform = functional.pad(waveform, (0, max(0, end - waveform.shape[1])))[:, :end]
        is_beyond = torch.arange(end, device=waveform.device) >= lengths.unsqueeze(1)  # [B, S]
        windows = waveform.masked_fill(is_beyond, 0.0).unflatten(1, (num_frames, FRAME))  # [B, T, 320]

        starts = torch.arange(num_frames, device=waveform.device) * FRAME  # [T]
        mask = starts < lengths.clamp(min=1).unsqueeze(1)  # [B, T]
        return torch.tanh(windows @ self.projection) * mask.unsqueeze(2), mask
