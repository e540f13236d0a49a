"""What is frozen, and proof of it.

A frozen model is one whose parameters take no gradients, that stays in eval mode whatever is called on it, and that is
not a child of the model being trained: so it is neither in its `state_dict`, nor moved or switched by its methods.
"""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator


Held = TypeVar("Held")


class Frozen(Generic[Held]):
    """A holder of a module that does not register it as a child."""

    def __init__(self, held: Held) -> None:
        self.held = held


def freeze(module: nn.Module) -> nn.Module:
    """Turn gradients off and pin eval mode: `train()` has no effect any more, on the module or on one inside it."""
    module.requires_grad_(False).eval()
    for inside in module.modules():
        # Unlike a function defined here, a partial can be pickled, and a copy of the module gets its own.
        inside.train = functools.partial(_stay, inside)  # type: ignore[method-assign]
    return module


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    """Take the place of `module.train`."""
    return module


def count_by_module(module: nn.Module) -> Iterator[tuple[str, int, int]]:
    """Yield each direct child, and each parameter of the module's own, with its trained and frozen parameters.

    Yields:
        The name, the number of trained and the number of frozen parameters.
    """
    owners = [(name, list(child.parameters())) for name, child in module.named_children()]
    owners += [(name, [parameter]) for name, parameter in module.named_parameters(recurse=False)]
    for name, parameters in owners:
        counts = {True: 0, False: 0}
        for parameter in parameters:
            counts[parameter.requires_grad] += parameter.numel()
        yield name, counts[True], counts[False]


def fingerprint(module: nn.Module) -> str:
    """Return the SHA-256 of all parameters and buffers: equal before and after training if and only if frozen."""
    digest = hashlib.sha256()
    for name, tensor in sorted([*module.named_parameters(), *module.named_buffers()]):
        digest.update(name.encode())
        # As bytes: NumPy has no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
