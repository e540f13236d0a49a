"""A frozen model: no gradients, eval mode whatever is called, and copies that are frozen themselves."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from mint.model.freeze import freeze

if TYPE_CHECKING:
    from collections.abc import Callable


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Dropout(0.5)))


@pytest.mark.parametrize(
    "copied",
    [lambda model: model, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["itself", "deepcopy", "pickle"],
)
def test_no_gradients_and_eval_mode_inside_and_out(copied: Callable[[nn.Module], nn.Module]) -> None:
    frozen = network()
    freeze(frozen)
    model = copied(frozen)
    assert model.train() is model
    inside = list(model.modules())
    for module in inside:
        assert module.train(True) is module
    assert len(inside) == 4
    assert not any(module.training for module in inside)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(model(torch.ones(1, 3)), frozen(torch.ones(1, 3)))
