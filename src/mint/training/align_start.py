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

EXAMPLES = 4096
"""The most examples that are fitted to, at even distances among the items: a closed form needs no more."""
ANSWER_SLOTS = 2
"""Soft prompts of the start that stand for the answer."""
BATCH = 64
"""Examples whose query outputs are computed at once."""


@torch.no_grad()
def align_start(stage2: Stage2, dataset: ItemDataset, collate: Callable[..., Any]) -> None:
    """Fit the projection to the answers of the training items, to short answers where there are any.

    Args:
        stage2: the model on its device; only its projection changes.
        dataset: the training items with their features.
        collate: the collator of stage 2.
    """
    device = stage2.projection.weight.device
    chosen = chosen_items(dataset.items)
    queries, targets = [], []
    with evaluating(stage2):
        for first in range(0, len(chosen), BATCH):
            batch = collate([dataset[index, 0] for index in chosen[first : first + BATCH]])
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            # The language model's prompt, which does not run here.
            labels, prompt_ids, prompt_mask = (batch.pop(name) for name in ("labels", "prompt_ids", "prompt_mask"))

            outputs = stage2.extract(**batch).float()  # [B, Q, D]
            embedding = stage2.language.embedding.weight
            queries.append(outputs)
            targets.append(example_turn(embedding, prompt_ids, prompt_mask, labels, outputs.shape[1]))

    assert isinstance(stage2.projection, WhitenedLinear)
    align_projection(stage2.projection, torch.cat(queries), torch.cat(targets))


def chosen_items(items: Items) -> list[int]:
    """Return the indices of the items to fit to: questions with an answer, or, where there are none, captions."""
    asking = items.asking() or range(len(items))
    evenly = np.linspace(0, len(asking) - 1, min(len(asking), EXAMPLES)).astype(int)
    return [asking[position] for position in evenly]


def mean_embedding(embedding: Tensor, labels: Tensor) -> Tensor:
    """Return the mean embedding of each answer's tokens but the last, which ends it: [B, D].

    Args:
        embedding: the language model's embeddings, [V, D].
        labels: the answers [B, L], -100 where there is no answer.
    """
    means = []
    for row in labels:
        tokens = row[row != -100]
        if len(tokens) > 1:
            tokens = tokens[:-1]
        means.append(embedding[tokens].float().mean(dim=0))
    return torch.stack(means)


def example_turn(embedding: Tensor, prompt_ids: Tensor, prompt_mask: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return soft prompts [B, count, D] that read like an earlier turn: the end of the prompt, the answer, its end.

    A language model that has just seen its prompt answered is likely to answer it again: it copies. Soft prompts of the
    answer alone, without the prompt before it, are hardly read at all (docs/results.md).

    Args:
        embedding: [V, D].
        prompt_ids: [B, L].
        prompt_mask: [B, L] bool, True: real.
        labels: [B, L'], -100 where there is no answer.
        count: number of soft prompts; with three or fewer all of them are the answer.
    """
    answers = mean_embedding(embedding, labels)  # [B, D]
    turns = answers[:, None].repeat(1, count, 1)  # [B, count, D]
    before = count - ANSWER_SLOTS - 1
    if before < 1:
        return turns

    for row in range(len(turns)):
        prompt = prompt_ids[row][prompt_mask[row].bool()][-before:]
        end = labels[row][labels[row] != -100][-1]
        # Where the prompt is shorter than its place, ends of earlier turns fill it.
        turns[row, : before - len(prompt)] = embedding[end].float()
        turns[row, before - len(prompt) : before] = embedding[prompt].float()
        turns[row, -1] = embedding[end].float()
    return turns
