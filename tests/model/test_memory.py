"""Weights that lie anywhere in memory are moved, and stay what they are."""

from __future__ import annotations

import torch
from torch import nn

from mint.model.memory import ALIGNMENT, align_weights


def test_weights_are_moved_and_stay_what_they_are() -> None:
    first, second, norm = nn.Linear(5, 3), nn.Linear(5, 3), nn.BatchNorm1d(3)
    model = nn.Sequential(first, second, norm)
    storage = torch.arange(40.0)
    first.weight = nn.Parameter(storage[1:16].view(3, 5), requires_grad=False)
    second.weight = first.weight  # tied
    norm.running_mean = storage[33:36]
    aligned = first.bias.data_ptr()
    assert first.weight.data_ptr() % ALIGNMENT != 0
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    align_weights(model)
    assert all(tensor.data_ptr() % ALIGNMENT == 0 for tensor in model.state_dict().values())
    assert second.weight is first.weight
    assert not first.weight.requires_grad
    assert first.bias.data_ptr() == aligned  # what is aligned stays where it is
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    align_weights(object())
