"""What all frozen audio encoders share: eval mode, whatever is called on them."""

from __future__ import annotations

from typing import Self

from torch import nn


class FrozenEncoder(nn.Module):
    """A module that stays in eval mode."""

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: the encoder is frozen."""
        return super().train(False)
