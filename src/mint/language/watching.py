"""Watching a text while it is written: each token is shown to the caller, who may end the row."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

Watch = Callable[[int, int], bool]
"""Takes a row of the batch and its next token, unless that ends the row; returns whether the row goes on."""


class WatchedEnd:
    """A stopping criterion of transformers' `generate` that shows the tokens to a `Watch`; not for beam search.

    Args:
        watch: takes the tokens.
        ends: tokens that end a row by themselves.
    """

    def __init__(self, watch: Watch, ends: Collection[int]) -> None:
        self._watch = watch
        self._ends = ends
        self._ended: set[int] = set()

    def __call__(self, input_ids: Tensor, _: Any, **__: Any) -> Tensor:
        """Return which rows of [B, L] end with their last token, [B] bool."""
        for row, token in enumerate(input_ids[:, -1].tolist()):
            # Rows that have ended are filled up while others go on.
            if row not in self._ended and (token in self._ends or not self._watch(row, token)):
                self._ended.add(row)
        return torch.tensor([row in self._ended for row in range(len(input_ids))], device=input_ids.device)
