"""Dropout that keeps one byte a number for the backward pass on the CPU too, as on accelerators; torch keeps four."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """Dropout with a mask of bytes; otherwise the same as `nn.Dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop a share of the numbers of a tensor of any shape in training; else return it as it is."""
        return drop(input, self.p) if self.training else input


def drop(inputs: Tensor, share: float) -> Tensor:
    """Set a share of the numbers to 0 and scale the others up, so that the mean stays."""
    return torch.native_dropout(inputs, share, True)[0] if share else inputs
