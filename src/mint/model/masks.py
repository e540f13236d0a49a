"""The three self-attention masks of Bridge-Net (paper, section 2.2), as pure boolean functions.

True in row i, column j: position i may attend to position j. Positions are Q queries, then L text tokens. Each function
takes the text's padding mask [B, L] (True: real) and returns [B, 1, Q + L, Q + L], to be broadcast over heads.
Padding columns are False everywhere; padding rows see what a real token at their place would, so that no row is empty
(their outputs are never used). The masks stay boolean to the end: `scaled_dot_product_attention` takes them so.

The three are drawn for Q = 2 queries (q) and L = 3 tokens (t) without padding, x for True.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def unimodal(num_queries: int, text_mask: Tensor) -> Tensor:
    """Mask of ALC: neither side sees the other, so that nothing leaks from the text into the queries.

    ::

            q q t t t
        q   x x . . .
        q   x x . . .
        t   . . x x x
        t   . . x x x
        t   . . x x x
    """
    side = _is_text(num_queries, text_mask)
    return (side[:, None] == side[None, :]) & _real_columns(num_queries, text_mask)


def bidirectional(num_queries: int, text_mask: Tensor) -> Tensor:
    """Mask of ALM, and of the instruction in stage 2: everything sees everything.

    ::

            q q t t t
        q   x x x x x
        q   x x x x x
        t   x x x x x
        t   x x x x x
        t   x x x x x
    """
    columns = _real_columns(num_queries, text_mask)
    return columns.expand(-1, -1, columns.shape[-1], -1)


def causal(num_queries: int, text_mask: Tensor) -> Tensor:
    """Mask of ATG: queries see queries; a text token sees all queries, the text before it and itself.

    ::

            q q t t t
        q   x x . . .
        q   x x . . .
        t   x x x . .
        t   x x x x .
        t   x x x x x
    """
    side = _is_text(num_queries, text_mask)
    length = side.shape[0]
    no_later = torch.ones(length, length, dtype=torch.bool, device=side.device).tril()
    to_query = ~side[None, :]
    return (to_query | (side[:, None] & no_later)) & _real_columns(num_queries, text_mask)


def unimodal_and_causal(num_queries: int, text_mask: Tensor) -> Tensor:
    """Masks of ALC and ATG in one pass over the queries, the text that is generated (g) and the text by itself.

    ::

            q q g g g t t t
        q   x x . . . . . .
        q   x x . . . . . .
        g   x x x . . . . .
        g   x x x x . . . .
        g   x x x x x . . .
        t   . . . . . x x x
        t   . . . . . x x x
        t   . . . . . x x x

    The text's padding mask is that of both, and the result [B, 1, Q + 2 L, Q + 2 L].
    """
    length = text_mask.shape[1]
    generated = causal(num_queries, text_mask)
    alone = key_padding(text_mask).expand(-1, -1, length, -1)
    return torch.cat([functional.pad(generated, (0, length)), functional.pad(alone, (generated.shape[-1], 0))], dim=2)


def key_padding(mask: Tensor) -> Tensor:
    """Mask [B, 1, 1, K] that lets every row see the real columns of `mask` [B, K] only."""
    return mask[:, None, None, :]


def _is_text(num_queries: int, text_mask: Tensor) -> Tensor:
    """[Q + L], False for queries, True for text."""
    positions = torch.arange(num_queries + text_mask.shape[1], device=text_mask.device)
    return positions >= num_queries


def _real_columns(num_queries: int, text_mask: Tensor) -> Tensor:
    """[B, 1, 1, Q + L]: the queries are always real."""
    queries = text_mask.new_ones(text_mask.shape[0], num_queries)
    return key_padding(torch.cat([queries, text_mask], dim=1))
