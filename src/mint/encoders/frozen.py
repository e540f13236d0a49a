"""The base of all frozen audio encoders: they stay in eval mode whatever is called, and are cached in float16."""

from __future__ import annotations

from typing import Self

import torch
from torch import nn


class FrozenEncoder(nn.Module):
    """A module that stays in eval mode."""

    cache_dtype = torch.float16

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, whatever `mode` is: the encoder is frozen."""
        return super().train(False)
