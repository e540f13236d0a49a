"""Dropout: what is dropped, what is scaled, what is kept for the backward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from mint.model.dropout import Dropout


def test_a_share_is_dropped_and_the_rest_scaled() -> None:
    layer, ones = Dropout(0.25), torch.ones(200, 200, requires_grad=True)
    torch.manual_seed(0)
    output = layer(ones)
    assert output.unique().tolist() == [0.0, torch.tensor(1 / 0.75).item()]
    assert abs(float((output == 0).float().mean()) - 0.25) < 0.01
    weights = torch.randn(200, 200)
    (gradient,) = torch.autograd.grad((output * weights).sum(), ones)
    torch.testing.assert_close(gradient, weights * output.detach())
    torch.manual_seed(0)
    assert torch.equal(layer(ones), output)
    assert not torch.equal(layer(ones), output)


def test_out_of_training_and_without_a_share_nothing_happens() -> None:
    ones = torch.ones(3)
    assert Dropout(0.25).eval()(ones) is ones
    assert Dropout(0.0)(ones) is ones


def test_one_byte_a_number_is_kept() -> None:
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        Dropout(0.5)(torch.ones(7, requires_grad=True))
    assert [(tensor.dtype, tensor.numel()) for tensor in kept] == [(torch.bool, 7)]
