"""BERT's feed-forward, which computes its widest activation twice rather than keep it for the backward pass.

The two tensors before and after the GELU are four times as wide as any other, and were a quarter of what a step keeps.
The latter costs next to nothing to compute again, and is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mint.model.dropout import Dropout


class FeedForward(nn.Module):
    """BERT's feed-forward: dense, GELU, dense, dropout, residual, LayerNorm."""

    def __init__(self, width: int, intermediate: int, dropout: float, layer_norm_eps: float) -> None:
        super().__init__()
        self.expand = nn.Linear(width, intermediate)
        self.contract = nn.Linear(intermediate, width)
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.dropout = Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [N, D] to [N, D]."""
        contracted: Tensor = GeluLinear.apply(self.expand(hidden), self.contract.weight, self.contract.bias)  # type: ignore[no-untyped-call]
        return self.norm(hidden + self.dropout(contracted))


class GeluLinear(torch.autograd.Function):
    """`linear(gelu(inputs), weight, bias)` that keeps its inputs [N, I] and not their GELU; also under autocast."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Map inputs [N, I], weight [D, I] and bias [D] to [N, D]."""
        ctx.save_for_backward(inputs, weight)
        return functional.linear(functional.gelu(inputs), weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients by inputs, weight and bias, as far as they are wanted."""
        inputs, weight = ctx.saved_tensors
        wants_inputs, wants_weight, wants_bias = ctx.needs_input_grad
        by_inputs = by_weight = by_bias = None

        # Under autocast the gradient has half the bits and the weights have all of them.
        if wants_inputs:
            by_inputs = torch.ops.aten.gelu_backward(gradient @ weight.to(gradient.dtype), inputs)
        if wants_weight:
            by_weight = (gradient.T @ functional.gelu(inputs)).to(weight.dtype)
        if wants_bias:
            by_bias = gradient.sum(dim=0).to(weight.dtype)

        return by_inputs, by_weight, by_bias
