"""The start of stage 2: the projection is aligned with the language model's embeddings.

See `mint.model.projection` for the method.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mint.data.batches.items import ItemDataset
from mint.data.batches.sampler import MixtureSampler
from mint.model.evaluating import evaluating
from mint.model.projection import Moments, WhitenedLinear
from mint.model.stage2 import Stage2

EXAMPLES = 8192
"""The most examples that are fitted to: a closed form needs no more."""
BATCH = 64
"""Examples whose query outputs are computed at once."""


@torch.no_grad()
def align_start(stage2: Stage2, dataset: ItemDataset, sampler: MixtureSampler, collate: Callable[..., Any]) -> None:
    """Fit the projection to the answers of the training items, each task by its share of the mixture.

    Args:
        stage2: the model on its device; only its projection changes.
        dataset: the training items with their features.
        sampler: the mixture.
        collate: the collator of stage 2.
    """
    projection, embedding = stage2.projection, stage2.language.embedding.weight
    assert isinstance(projection, WhitenedLinear)
    device = projection.weight.device
    moments = Moments(projection.in_features, projection.out_features, device)
    indices, weights = chosen_items(sampler)
    # Moments, and not the examples themselves: their query outputs would fill the memory.
    with evaluating(stage2):
        for first in range(0, len(indices), BATCH):
            batch = collate([dataset[index, 0] for index in indices[first : first + BATCH]])
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            # The language model's prompt, which does not run here.
            labels, _, _ = (batch.pop(name) for name in ("labels", "prompt_ids", "prompt_mask"))

            inputs = stage2.projection_inputs(
                stage2.extract(**batch)
            )  # [B, K, D'], a row for each time that the layer runs
            count = projection.out_features // embedding.shape[1]  # soft prompts that a row gives
            targets = answer_embeddings(embedding, labels, count).flatten(1)  # [B, W]
            rows = inputs.shape[1]
            # Where queries share the layer, each of them is an example with the same target.
            of_batch = torch.tensor(weights[first : first + BATCH], device=device)
            moments.add(inputs.flatten(0, 1), targets.repeat_interleave(rows, dim=0), of_batch.repeat_interleave(rows))
    projection.align(moments)


def chosen_items(sampler: MixtureSampler) -> tuple[list[int], list[float]]:
    """Return the indices of the items to fit to, at even distances in each task, and their weights.

    Together the items of a task weigh as much as its share of the draws.
    """
    indices: list[int] = []
    weights: list[float] = []
    for task, group in sampler.groups.items():
        share = sampler.counts[task] / sampler.length
        count = min(len(group), round(EXAMPLES * share))
        # A task that is not drawn has no say in where the layer starts.
        if not count:
            continue
        indices += group[np.linspace(0, len(group) - 1, count).astype(int)].tolist()
        weights += [share / count] * count
    return indices, weights


def answer_embeddings(embedding: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return what the soft prompts of some answers should be, [B, count, D].

    Several soft prompts are the first tokens of the answer, without its end; one, and those that a short answer leaves
    over, are the mean of the answer's tokens.

    Args:
        embedding: the language model's embeddings, [V, D].
        labels: the answers [B, L], -100 where there is no answer.
        count: number of soft prompts.
    """
    rows = []
    for row in labels:
        tokens = row[row != -100]
        # An empty answer is its end alone.
        tokens = tokens[:-1] if len(tokens) > 1 else tokens
        embedded = embedding[tokens].float()  # [L, D]
        # A single soft prompt has to stand for all tokens, not for the first.
        first = embedded[:count] if count > 1 else embedded[:0]
        mean = embedded.mean(dim=0, keepdim=True)
        rows.append(torch.cat([first, mean.expand(count - len(first), -1)]))
    return torch.stack(rows)
