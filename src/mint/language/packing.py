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
"""Number of widths of the packed rows that are tried, between the longest text and twice its length."""


@dataclass(frozen=True)
class Packing:
    """Where the tokens of B padded rows of length L stand in R rows of length N."""

    source: Tensor
    """[R, N] int64: index of each token in the padded rows, flattened; 0 where there is none."""
    target: Tensor
    """[B, L] int64: index of each token in the packed rows, flattened; 0 for padding."""
    owners: Tensor
    """[R, N] int64: the padded row that a token is from; -1 where there is none."""
    positions: Tensor
    """[R, N] int64: position of a token in its own text."""

    def pack(self, rows: Tensor) -> Tensor:
        """Return padded rows as packed ones, [B, L, D] -> [R, N, D]."""
        return rows.flatten(0, 1)[self.source]

    def attention_mask(self, dtype: torch.dtype) -> Tensor:
        """Return what is added to the attention's scores, [R, 1, N, N]: each token sees its own text up to itself."""
        same_text = self.owners[:, :, None] == self.owners[:, None]  # [R, N, N]
        seen = same_text.tril()[:, None]  # [R, 1, N, N]
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


def pack_rows(mask: Tensor) -> Packing:
    """Pack rows that are padded on the right.

    Args:
        mask: [B, L] bool, True: a token; at least one in each row.
    """
    lengths = mask.sum(dim=1).tolist()
    rows = group_texts(lengths)
    width = _width(rows, lengths)

    # Where no text stands, index 0 is packed: its owner, -1, is seen by no text.
    source, positions = torch.zeros(2, len(rows), width, dtype=torch.long)
    owners = torch.full((len(rows), width), -1)
    target = torch.zeros(mask.shape, dtype=torch.long)
    for row, texts in enumerate(rows):
        first = 0
        for text in texts:
            length = lengths[text]
            columns, steps = slice(first, first + length), torch.arange(length)
            source[row, columns] = text * mask.shape[1] + steps
            positions[row, columns] = steps
            owners[row, columns] = text
            target[text, :length] = row * width + first + steps
            first += length

    device = mask.device
    return Packing(source.to(device), target.to(device), owners.to(device), positions.to(device))


def group_texts(lengths: Sequence[int]) -> list[list[int]]:
    """Return the indices of the texts of each row.

    Of some widths that one is taken which needs the smallest area, and of equal ones the narrowest.
    """
    # Wider rows hold more texts with less waste, but attention over them costs the square of the width.
    longest = max(lengths)
    best: list[list[int]] = []
    smallest = None
    # From the longest text to twice its length.
    for step in range(WIDTHS + 1):
        rows = first_fit(lengths, longest + longest * step // WIDTHS)
        area = len(rows) * _width(rows, lengths)
        if smallest is None or area < smallest:
            best, smallest = rows, area
    return best


def first_fit(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Return the texts of each row of a width: the longest come first, each in the first row that has room."""
    rows: list[list[int]] = []
    room: list[int] = []
    for text in sorted(range(len(lengths)), key=lambda text: -lengths[text]):
        row = next((row for row, left in enumerate(room) if left >= lengths[text]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(width)
        rows[row].append(text)
        room[row] -= lengths[text]
    return rows


def _width(rows: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    """Return the length of the longest row."""
    longest = 0
    for texts in rows:
        longest = max(longest, sum(lengths[text] for text in texts))
    return longest
