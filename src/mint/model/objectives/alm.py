"""ALM, audio-language matching, and its hard negatives (paper, section 2.2; after BLIP and BLIP-2).

The published code draws negatives with `torch.multinomial` in a loop, from the generator of the process. Here the draw
is the Gumbel-max form of the same distribution, with noise that is a hash of the two examples' own draw numbers: no
loop, no host synchronisation, and the same negatives whatever the number of ranks and whether or not a run was resumed.
Examples with the same caption are never each other's negative.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

MATCHED = 1
"""Class of a true pair; 0 is a mismatch."""


def draw_negatives(scores: Tensor, forbidden: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one negative for each row, in proportion to the softmax of its scores.

    Args:
        scores: [B, G] similarities over temperature.
        forbidden: [B, G] bool: the pair itself, and every example with the same caption.
        noise: [B, G] standard Gumbel noise.

    Returns:
        columns [B], and valid [B] bool: False where a row had nothing but forbidden columns.
    """
    # The Gumbel-max trick: the largest of scores plus Gumbel noise is a draw from their softmax.
    drawn = (scores.detach() + noise).masked_fill(forbidden, -torch.inf)
    return drawn.argmax(dim=1), ~forbidden.all(dim=1)


def pair_noise(rows: Tensor, columns: Tensor, salt: int) -> Tensor:
    """Return Gumbel noise [B, G] that depends on the draw numbers of the two examples and on nothing else.

    Args:
        rows: [B] int64 draw numbers of the rows' examples.
        columns: [G] int64 draw numbers of the columns' examples.
        salt: separates the draws of the two directions.
    """
    bits = _mix((_mix(rows) + salt)[:, None] ^ columns[None, :])  # [B, G] int64

    # 52 of the bits become a number in [0, 1), kept off both ends, where the logarithms are infinite.
    uniform = ((bits >> 11) & ((1 << 52) - 1)).double() / (1 << 52)
    return -torch.log(-torch.log(uniform.clamp(1e-12, 1 - 1e-12))).float()


def same_caption(ids: Tensor, all_ids: Tensor) -> Tensor:
    """Return [B, G] bool: which token sequences [B, L] and [G, L] are equal; padding must have one value everywhere."""
    return (ids[:, None, :] == all_ids[None, :, :]).all(dim=-1)


def alm_loss(logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
    """Return the mean cross-entropy of matched against mismatched over the valid pairs.

    Args:
        logits: [N, 2], averaged over queries.
        labels: [N], `MATCHED` or 0.
        valid: [N] bool.
    """
    losses = functional.cross_entropy(logits, labels, reduction="none")
    return (losses * valid).sum() / valid.sum()


def _mix(bits: Tensor) -> Tensor:
    """Apply the finaliser of SplitMix64, a bijection of int64 that spreads every input bit over all output bits."""
    bits = bits + _signed(0x9E3779B97F4A7C15)
    bits = (bits ^ _logical_shift(bits, 30)) * _signed(0xBF58476D1CE4E5B9)
    bits = (bits ^ _logical_shift(bits, 27)) * _signed(0x94D049BB133111EB)
    return bits ^ _logical_shift(bits, 31)


def _logical_shift(bits: Tensor, count: int) -> Tensor:
    return (bits >> count) & ((1 << (64 - count)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
