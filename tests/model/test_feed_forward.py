"""The feed-forward equals BERT's, forward and backward, and keeps no GELU."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertIntermediate, BertOutput

from mint.model.feed_forward import FeedForward, GeluLinear
from tiny_models import present, randomise


def inputs(rows: int = 7, width: int = 12) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(1)).requires_grad_()


def made(dropout: float = 0.0) -> FeedForward:
    layer = FeedForward(12, 48, dropout, 1e-12)
    randomise(layer, seed=3)
    return layer


def test_it_is_berts() -> None:
    config = BertConfig(hidden_size=12, intermediate_size=48, hidden_dropout_prob=0.0)
    first, second = BertIntermediate(config), BertOutput(config)  # type: ignore[no-untyped-call]
    ours = made()
    first.dense.load_state_dict(ours.expand.state_dict())
    second.dense.load_state_dict(ours.contract.state_dict())
    second.LayerNorm.load_state_dict(ours.norm.state_dict())
    hidden, same = inputs(), inputs()
    output, expected = ours(hidden), second(first(same), same)
    torch.testing.assert_close(output, expected)
    weights = torch.randn(output.shape)
    found = torch.autograd.grad((output * weights).sum(), [hidden, *ours.parameters()])
    other = torch.autograd.grad(
        (expected * weights).sum(),
        [same, *first.dense.parameters(), *second.dense.parameters(), *second.LayerNorm.parameters()],
    )
    for one, another in zip(found, other, strict=True):
        torch.testing.assert_close(one, another)


def test_gradients_by_finite_differences() -> None:
    tensors = [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in ((3, 5), (2, 5), (2,))]
    assert torch.autograd.gradcheck(GeluLinear.apply, tensors)


@pytest.mark.parametrize("frozen", ["contract.weight", "contract.bias", "all"])
def test_what_is_frozen_gets_no_gradient(frozen: str) -> None:
    layer = made()
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(frozen != "all" and name != frozen)
    hidden = inputs()
    layer(hidden).square().sum().backward()
    assert hidden.grad is not None
    for name, parameter in layer.named_parameters():
        assert (parameter.grad is None) == (frozen in ("all", name)), name


def test_under_autocast_it_is_the_plain_layers() -> None:
    ours, hidden, same = made(), inputs(), inputs()
    plain = copy.deepcopy(ours)
    with torch.autocast("cpu", torch.bfloat16):
        output = ours(hidden)
        expected = plain.norm(same + plain.contract(functional.gelu(plain.expand(same))))
    torch.testing.assert_close(output, expected)
    for result, layer in ((output, ours), (expected, plain)):
        result.square().sum().backward()
        assert {present(parameter.grad).dtype for parameter in layer.parameters()} == {torch.float32}
    for (name, one), another in zip(ours.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, another.grad, msg=name)
    torch.testing.assert_close(hidden.grad, same.grad)


def test_the_gelu_is_not_kept() -> None:
    kept: list[torch.Size] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.shape)
        return tensor

    layer = made()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(inputs())
    assert kept.count(torch.Size([7, 48])) == 1
