"""Similarity ranking by stage 1 alone: how alike a clip and a text are (paper, section 2.2 and Table 6).

The similarity is the maximum over Bridge-Net's queries of the dot product between the query's output and the text's
[CLS] output, both projected and L2-normalised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from mint.types import MintError

if TYPE_CHECKING:
    from torch import Tensor

CELLS = 16_000_000
"""Largest number of dot products held at a time (64 MB in float32)."""


def similarity(queries: Tensor, texts: Tensor) -> Tensor:
    """Return the similarity of every clip and every text.

    Args:
        queries: [N, Q, E], L2-normalised.
        texts: [C, E], L2-normalised.

    Returns:
        [N, C] float32, on the device of `queries`.

    Raises:
        MintError: shapes that do not fit, or embeddings that are not finite.
    """
    check_embeddings(queries, texts)
    return maximum(queries, texts)


def maximum(queries: Tensor, texts: Tensor) -> Tensor:
    """Return the `similarity` of embeddings that are known to be good [N, C]."""
    scores = torch.empty(len(queries), len(texts), device=queries.device)
    # Some clips at a time: the products of all queries with all texts may not fit into memory.
    at_once = max(1, CELLS // max(1, queries.shape[1] * len(texts)))
    for start in range(0, len(queries), at_once):
        some = queries[start : start + at_once]  # [B, Q, E]
        products = some.float().flatten(0, 1) @ texts.float().T  # [B*Q, C]
        scores[start : start + at_once] = products.unflatten(0, some.shape[:2]).amax(dim=1)  # [B, C]
    return scores


def ensemble(texts: Tensor, owner: Tensor, classes: int) -> Tensor:
    """Return one embedding for each class: the mean of its texts' embeddings, normalised again.

    Args:
        texts: [P, E], L2-normalised.
        owner: [P] int64, the class that each text belongs to.
        classes: C.

    Returns:
        [C, E], L2-normalised.

    Raises:
        MintError: a class without a text, or an owner outside the classes.
    """
    if len(owner) != len(texts):
        raise MintError(f"{len(texts)} text embeddings but {len(owner)} owners; give one for each")
    if len(owner) and not 0 <= int(owner.min()) <= int(owner.max()) < classes:
        raise MintError(f"owners run from {int(owner.min())} to {int(owner.max())}; the {classes} classes count from 0")

    counts = torch.bincount(owner, minlength=classes)
    if (counts == 0).any():
        raise MintError(f"class {int((counts == 0).nonzero()[0])} has no text; give each class at least one")

    sums = torch.zeros(classes, texts.shape[1], dtype=texts.dtype, device=texts.device).index_add_(0, owner, texts)
    return functional.normalize(sums / counts[:, None].to(texts.dtype), dim=-1)


def check_embeddings(queries: Tensor, texts: Tensor) -> None:
    """Refuse embeddings whose shapes do not fit or which are not finite."""
    if queries.ndim != 3 or texts.ndim != 2 or queries.shape[2] != texts.shape[1] or queries.shape[1] == 0:
        raise MintError(
            f"query embeddings have shape {tuple(queries.shape)} and text embeddings {tuple(texts.shape)}; "
            "they must be [clips, queries, width] and [texts, width] of one width"
        )
    for name, embeddings in (("query", queries), ("text", texts)):
        if not torch.isfinite(embeddings).all():
            raise MintError(f"the {name} embeddings hold NaN or infinite values; the model's weights are broken")
