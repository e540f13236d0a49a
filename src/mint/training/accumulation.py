"""Accumulated gradients: those of the whole batch, and where asked its contrast too (after GradCache, Gao et al. 2021).

The Trainer takes the plain mean over a step's micro-batches, whatever they hold. `weights_of` makes it a mean over what
they hold, as `mint.model.gather` does over ranks: in stage 2 over the answers' tokens, in stage 1 over the texts' (ATG)
and the pairs (ALC, ALM).

ALC and ALM compare pairs, and by themselves do so within each micro-batch: fewer negatives than the batch has. With
accumulated negatives (`parts_of`) a step goes over its micro-batches twice. First without gradients: all clips and
texts are embedded, ALC over all of them gives its gradient by each embedding, and ALM's negatives are drawn among all.
Then each micro-batch runs as it would alone, with ALC tied to its embeddings by those gradients, and with its
negatives' clips fetched: loss and gradients are those of the whole batch, and what is kept for the backward pass is one
micro-batch's. Dropout draws the same in both passes. With several ranks the whole is that of all micro-batches of all
ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mint.model import gather
from mint.model.accumulated import AlcPart, AlmPart, Part
from mint.model.stage1 import Stage1

Batch = Mapping[str, Tensor]
"""The arguments of the stage's `forward`."""


def weights_of(stage: Any, batches: Sequence[Batch]) -> list[dict[str, Tensor]]:
    """What each micro-batch of a step counts for, by name of the loss.

    The mean over all micro-batches and ranks of the losses, each times its weight, is then that over all terms. Empty
    for a batch in one: there is nothing to weigh.

    Args:
        stage: the stage model.
        batches: this rank's; all ranks have as many.
    """
    if len(batches) == 1:
        return [{}]
    terms = [stage.terms(**batch) for batch in batches]
    own = torch.stack([torch.stack(list(one.values())) for one in terms])  # [parts, losses]
    counts = gather.over_ranks(own.float())
    weights = counts * len(batches) / counts.sum(dim=0)
    return [dict(zip(one, row, strict=True)) for one, row in zip(terms, weights, strict=True)]


def weighed(losses: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The losses times their weights; `loss` is their sum."""
    if not weights:
        return losses
    parts = {name: losses[name] * weight for name, weight in weights.items()}
    return {"loss": torch.stack(list(parts.values())).sum(), **parts}


def parts_of(
    stage: Stage1, batches: Sequence[Batch], autocast: Callable[[], AbstractContextManager[None]]
) -> Iterator[tuple[Part, int]]:
    """What each micro-batch of a step needs to be a part of the whole; made one after the other, as they are needed.

    Args:
        stage: in training mode.
        batches: this rank's; all ranks have as many.
        autocast: makes the context of the forward passes.

    Yields:
        The argument `part` of `Stage1.forward`, and the seed under which that is to run (see `seeded`).
    """
    seeds = torch.randint(1 << 62, (len(batches),)).tolist()
    with torch.no_grad(), autocast():
        embedded = [_embed(stage, batch, seed) for batch, seed in zip(batches, seeds, strict=True)]
    clips, texts = (torch.cat(rows).requires_grad_() for rows in zip(*embedded, strict=True))
    whole = {name: _joined([batch[name] for batch in batches]) for name in batches[0] if name != "draws"}
    draws = torch.cat([batch["draws"] for batch in batches])
    with autocast():
        scores = stage.scores(clips, texts)
        loss = stage.contrast(*scores) if stage.alc else None
        negatives = stage.negatives(*scores, whole["text_ids"], whole["text_mask"], draws) if stage.alm else None
    if loss is not None:
        by_clips, by_texts, by_temperature = torch.autograd.grad(loss, [clips, texts, stage.temperature])
    ends = accumulate((len(batch["draws"]) for batch in batches), initial=0)
    rows = [slice(first, last) for first, last in pairwise(ends)]
    if negatives is not None:
        pair_weights = _weights([negatives.valid[:, own].sum() for own in rows])
    token_weights = _weights([batch["text_mask"][:, 1:].sum() for batch in batches])
    for index, (own, seed) in enumerate(zip(rows, seeds, strict=True)):
        alc, alm, count = None, None, len(batches)
        if loss is not None:
            alc = AlcPart(loss.detach(), by_clips[own] * count, by_texts[own] * count, by_temperature)
        if negatives is not None:
            mined = negatives.rows(own)
            wrong_audio = gather.fetch_rows(mined.clips, whole["audio_features"], whole["audio_mask"])
            alm = AlmPart(mined, wrong_audio, pair_weights[index])
        yield Part(alc, alm, token_weights[index]), seed


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers from a seed, and afterwards as if nothing had been."""
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
        torch.manual_seed(seed)
        yield


def _embed(stage: Stage1, batch: Batch, seed: int) -> tuple[Tensor, Tensor]:
    """Clips [B, Q, E] and texts [B, E], by the pass of `Stage1.forward`, so that dropout draws the same."""
    with seeded(seed):
        audio = stage.bridge.project_audio(batch["audio_features"], batch["audio_mask"])
        return stage.shared(stage.represent(audio, batch["text_ids"], batch["text_mask"], contrast=True))


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """Batches [B, T, ...] as one, padded with zeros to the longest T."""
    longest = max(tensor.shape[1] for tensor in tensors)
    after = (0, 0) * (tensors[0].ndim - 2)
    return torch.cat([functional.pad(tensor, (*after, 0, longest - tensor.shape[1])) for tensor in tensors])


def _weights(counts: Sequence[Tensor]) -> list[Tensor]:
    """Of means over so many terms: the mean over parts and ranks of the weighted means is that over all terms."""
    total = torch.stack(list(counts)).sum()
    share = gather.share(total, total.device)
    return [share * len(counts) * count / total for count in counts]
