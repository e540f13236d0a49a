"""The start of stage 2: the projection is aligned with the language model's embeddings.

See `mint.model.projection` for the method.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mint.data.batches.items import ItemDataset, Items
from mint.model.evaluating import evaluating
from mint.model.projection import WhitenedLinear, align_projection
from mint.model.stage2 import Stage2

EXAMPLES = 2048
"""At most, drawn evenly from the items: a closed form needs no more."""
BATCH = 64


@torch.no_grad()
def align_start(stage2: Stage2, dataset: ItemDataset, collate: Callable[..., Any]) -> None:
    """Set the projection by what the training items answer; answers are short where there are such.

    Args:
        stage2: on its device; only its projection changes.
        dataset: the training items with their features.
        collate: stage 2's collator.
    """
    device = stage2.projection.weight.device
    chosen = chosen_items(dataset.items)
    queries, targets = [], []
    with evaluating(stage2):
        for first in range(0, len(chosen), BATCH):
            batch = collate([dataset[index, 0] for index in chosen[first : first + BATCH]])
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            labels = batch.pop("labels")
            for name in ("prompt_ids", "prompt_mask"):
                del batch[name]
            queries.append(stage2.extract(**batch).float())
            targets.append(mean_embedding(stage2.language.embedding.weight, labels))
    assert isinstance(stage2.projection, WhitenedLinear)
    align_projection(stage2.projection, torch.cat(queries), torch.cat(targets))


def chosen_items(items: Items) -> list[int]:
    """Indices of the items to fit to: questions with an answer, or, where there are none, captions."""
    asked = items.asking() or range(len(items))
    return [asked[place] for place in np.linspace(0, len(asked) - 1, min(len(asked), EXAMPLES)).astype(int)]


def mean_embedding(embedding: Tensor, labels: Tensor) -> Tensor:
    """Mean over each answer's tokens but the last, its end: [B, D].

    Args:
        embedding: [V, D].
        labels: [B, L], -100 where there is no answer.
    """
    rows = [row[row != -100] for row in labels]
    return torch.stack([embedding[row[:-1] if len(row) > 1 else row].float().mean(dim=0) for row in rows])
