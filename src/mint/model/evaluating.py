"""Eval mode for as long as something is predicted or measured."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class _Blocks:
    """The blocks that a model is in at the moment."""

    count: int
    trained: list[nn.Module]
    """Its modules that were in training mode before the first of these blocks."""


_LOCK = threading.Lock()
_RUNNING: dict[nn.Module, _Blocks] = {}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Keep a model in eval mode, without gradients, inside the block; each module's mode is restored afterwards.

    Blocks of several threads may overlap: the first switches the model and the last restores it, so that no thread
    turns dropout on under the computation of another.
    """
    with _LOCK:
        blocks = _RUNNING.get(model)
        if blocks is None:
            # A model in training holds parts that are not, such as a frozen one: each mode is kept.
            trained = [module for module in model.modules() if module.training]
            blocks = _RUNNING[model] = _Blocks(0, trained)
            model.eval()
        blocks.count += 1

    try:
        with torch.no_grad():
            yield
    finally:
        with _LOCK:
            blocks.count -= 1
            # Another thread may still compute: the last one to leave restores.
            if blocks.count == 0:
                del _RUNNING[model]
                for module in blocks.trained:
                    module.training = True
