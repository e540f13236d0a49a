"""Texts of several lengths, one after another in common rows, so that little is computed for padding.

Labels of two tokens and captions of thirty are trained in one batch (paper, section 2.3); the published code pads all
to the longest. Texts that share a row do not see one another, and count their positions from their own beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

WIDTHS = 8
"""Between the longest text and twice its length so many widths of the packed rows are tried."""


@dataclass(frozen=True)
class Packing:
    """Where the tokens of B padded rows of length L stand in R rows of length N."""

    source: Tensor
    """[R, N] int64: place in the padded rows, flattened; 0 where nothing stands."""
    target: Tensor
    """[B, L] int64: place in the packed rows, flattened; 0 for padding."""
    owners: Tensor
    """[R, N] int64: the padded row that a token is from; -1 where nothing stands."""
    positions: Tensor
    """[R, N] int64: of a token in its own text."""

    def pack(self, rows: Tensor) -> Tensor:
        """[B, L, D] to [R, N, D]."""
        return rows.flatten(0, 1)[self.source]

    def attention_mask(self, dtype: torch.dtype) -> Tensor:
        """[R, 1, N, N], added to the scores: each token sees its own text up to itself."""
        same = self.owners[:, :, None] == self.owners[:, None]
        seen = same.tril()[:, None]
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


def pack_rows(mask: Tensor) -> Packing:
    """Pack rows that are padded on the right.

    Args:
        mask: [B, L] bool, True: real; at least one token a row.
    """
    lengths = mask.sum(dim=1).tolist()
    rows = share_rows(lengths)
    width = max(sum(lengths[text] for text in row) for row in rows)
    source, positions = torch.zeros(2, len(rows), width, dtype=torch.long)
    owners = torch.full((len(rows), width), -1)
    target = torch.zeros(mask.shape, dtype=torch.long)
    for number, row in enumerate(rows):
        first = 0
        for text in row:
            length = lengths[text]
            here, steps = slice(first, first + length), torch.arange(length)
            source[number, here] = text * mask.shape[1] + steps
            positions[number, here] = steps
            owners[number, here] = text
            target[text, :length] = number * width + first + steps
            first += length
    return Packing(*(part.to(mask.device) for part in (source, target, owners, positions)))


def share_rows(lengths: Sequence[int]) -> list[list[int]]:
    """Which texts share a row: of some widths the one that needs the fewest places, and of equal ones the narrowest."""
    longest = max(lengths)
    layouts = [first_fit(lengths, longest + longest * step // WIDTHS) for step in range(WIDTHS + 1)]
    return min(layouts, key=lambda rows: len(rows) * max(sum(lengths[text] for text in row) for row in rows))


def first_fit(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Texts in rows of a width, each in the first row that has room, the longest first."""
    rows: list[list[int]] = []
    room: list[int] = []
    for text in sorted(range(len(lengths)), key=lambda text: -lengths[text]):
        place = next((row for row, left in enumerate(room) if left >= lengths[text]), len(rows))
        if place == len(rows):
            rows.append([])
            room.append(width)
        rows[place].append(text)
        room[place] -= lengths[text]
    return rows
