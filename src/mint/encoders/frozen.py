"""What all frozen audio encoders share: eval mode, whatever is called on them, and features in float16."""

from __future__ import annotations

from typing import Self

import torch
from torch import nn


class FrozenEncoder(nn.Module):
    """A module that stays in eval mode."""

    cache_dtype = torch.float16

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: the encoder is frozen."""
        return super().train(False)
