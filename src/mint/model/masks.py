"""The self-attention masks of Bridge-Net (paper, section 2.2), as pure boolean functions.

True in row i, column j: position i may attend to position j. Positions are Q queries, then L text tokens. Each function
takes the text's padding mask [B, L] (True: real) and returns [B, 1, Q + L, Q + L], to be broadcast over heads.
Padding columns are False everywhere; padding rows may attend to what a real token in their position would, so that no
row is empty (their outputs are never used). The masks stay boolean to the end: `scaled_dot_product_attention` takes
boolean masks.

They are drawn for Q = 2 queries (q) and L = 3 tokens (t) without padding, x for True.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def unimodal(num_queries: int, text_mask: Tensor) -> Tensor:
    """Return the mask of ALC: neither side attends to the other, so that no text leaks into the queries.

    ::

            q q t t t
        q   x x . . .
        q   x x . . .
        t   . . x x x
        t   . . x x x
        t   . . x x x
    """
    side = _is_text(num_queries, text_mask)
    # [Q + L, Q + L] and [B, 1, 1, Q + L] give [B, 1, Q + L, Q + L].
    return (side[:, None] == side[None, :]) & _real_columns(num_queries, text_mask)


def bidirectional(num_queries: int, text_mask: Tensor) -> Tensor:
    """Return the mask of ALM, and of the instruction in stage 2: everything attends to everything.

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
    """Return the mask of ATG: queries attend to queries, a token to all queries, the text before it and itself.

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
    # [1, Q + L] against [Q + L, Q + L]: true where the column is a query, whatever asks.
    to_query = ~side[None, :]
    return (to_query | (side[:, None] & no_later)) & _real_columns(num_queries, text_mask)


def unimodal_and_causal(num_queries: int, text_mask: Tensor) -> Tensor:
    """Return the masks of ALC and ATG in one, over the queries, the text that is generated (g) and the text by itself.

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

    The text's padding mask is that of both texts. The result is [B, 1, Q + 2 L, Q + 2 L].
    """
    length = text_mask.shape[1]
    generated = causal(num_queries, text_mask)  # [B, 1, Q + L, Q + L]
    alone = key_padding(text_mask).expand(-1, -1, length, -1)  # [B, 1, L, L]

    # The two blocks stand on the diagonal; nothing attends from one to the other.
    upper = functional.pad(generated, (0, length))
    lower = functional.pad(alone, (generated.shape[-1], 0))
    return torch.cat([upper, lower], dim=2)


def key_padding(mask: Tensor) -> Tensor:
    """Return the mask [B, 1, 1, K] that lets every row attend to the real columns of `mask` [B, K] only."""
    return mask[:, None, None, :]


def _is_text(num_queries: int, text_mask: Tensor) -> Tensor:
    """Return [Q + L], False for queries, True for text."""
    positions = torch.arange(num_queries + text_mask.shape[1], device=text_mask.device)
    return positions >= num_queries


def _real_columns(num_queries: int, text_mask: Tensor) -> Tensor:
    """Return [B, 1, 1, Q + L], True where a column is real; the queries always are."""
    queries = text_mask.new_ones(text_mask.shape[0], num_queries)
    return key_padding(torch.cat([queries, text_mask], dim=1))
