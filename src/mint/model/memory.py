"""Where the weights of a model lie in memory."""

from __future__ import annotations

from typing import Any

from torch import nn

ALIGNMENT = 64
"""Bytes to which torch aligns the memory that it allocates on the CPU."""


def align_weights(model: Any) -> None:
    """Move weights that lie anywhere in a mapped file into aligned memory of their own; do nothing without weights.

    The place of a number decides how sums with it are rounded. A copy of the model, whose memory is always aligned,
    would otherwise differ from it in the last digits.
    """
    if not isinstance(model, nn.Module):
        return

    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.device.type == "cpu" and tensor.data_ptr() % ALIGNMENT:
            # In place: what shares a weight, as tied embeddings do, goes on sharing it.
            tensor.data = tensor.data.clone()
