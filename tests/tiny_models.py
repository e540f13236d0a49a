"""A tiny Bridge-Net and its batches: random weights large enough that outputs vary, no dropout, eval mode."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mint.model.bridge_net import BridgeNet

BRIDGE: dict[str, Any] = {
    "vocab_size": 40,
    "width": 16,
    "num_layers": 3,
    "num_heads": 4,
    "intermediate": 24,
    "max_positions": 12,
    "audio_width": 10,
    "num_queries": 3,
    "dropout": 0.0,
}
DEC = 39
"""The last token of the tiny bridge's vocabulary."""


def tiny_bridge(seed: int = 0, **sizes: Any) -> BridgeNet:
    """A Bridge-Net in eval mode; every weight is random, those of norms around 1."""
    bridge = BridgeNet(**{**BRIDGE, **sizes})
    randomise(bridge, seed)
    return bridge.eval()


@torch.no_grad()
def randomise(module: nn.Module, seed: int = 0, std: float = 0.3) -> None:
    """Give every parameter random values, biases too."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator) * std
        norm = "norm" in name.lower() or ".ln_" in name  # GPT-2's
        parameter.copy_(noise + 1 if norm and name.endswith("weight") else noise)


def tiny_batch(
    batch: int = 4, frames: int = 7, tokens: int = 6, seed: int = 0, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """The arguments of `Stage1.forward`: clips and texts of several lengths, one of each at full length."""
    generator = torch.Generator().manual_seed(seed)
    frame_counts = torch.randint(1, frames + 1, (batch,), generator=generator)
    token_counts = torch.randint(2, tokens + 1, (batch,), generator=generator)
    frame_counts[0], token_counts[-1] = frames, tokens
    text_mask = torch.arange(tokens) < token_counts[:, None]
    ids = torch.randint(2, DEC, (batch, tokens), generator=generator)
    ids[:, 0] = 1
    return {
        "audio_features": torch.randn(batch, frames, BRIDGE["audio_width"], generator=generator).to(dtype),
        "audio_mask": torch.arange(frames) < frame_counts[:, None],
        "text_ids": ids.masked_fill(~text_mask, 0),
        "text_mask": text_mask,
        "draws": torch.randint(0, 1 << 62, (batch,), generator=generator),
    }


def present(tensor: Tensor | None) -> Tensor:
    """A tensor that must be there."""
    assert tensor is not None
    return tensor
