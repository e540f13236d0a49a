"""Eval mode inside a block, each module's own mode after it, and threads whose blocks overlap."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from mint.model.evaluating import evaluating


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)))


def test_eval_mode_without_gradients_inside_and_every_mode_as_it_was_afterwards() -> None:
    model = network()
    model[2].eval()  # a frozen part of a model that is trained
    before = [module.training for module in model.modules()]
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        assert not model(torch.ones(2, 8)).requires_grad
        with evaluating(model):
            pass
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before == [True, True, True, False, False]


def test_modes_are_restored_after_an_error() -> None:
    model = network()
    with pytest.raises(RuntimeError), evaluating(model):
        model(torch.ones(2, 9))
    assert all(module.training for module in model.modules())


def test_a_thread_that_ends_leaves_the_others_in_eval_mode() -> None:
    """The first thread enters before the second and leaves while the second still computes."""
    model = network()
    entered, left = threading.Event(), threading.Event()
    modes: list[bool] = []

    def second() -> None:
        with evaluating(model):
            entered.set()
            assert left.wait(10)
            modes.extend(module.training for module in model.modules())

    thread = threading.Thread(target=second)
    with evaluating(model):
        thread.start()
        assert entered.wait(10)
    left.set()
    thread.join()
    assert modes == [False] * 5
    assert all(module.training for module in model.modules())
