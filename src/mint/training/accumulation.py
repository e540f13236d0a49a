"""Accumulated gradients: those of the whole batch, and where asked its contrast too (after GradCache, Gao et al. 2021).

The Trainer takes the plain mean over a step's micro-batches, whatever they hold. `weights_of` makes it a mean over what
they hold, as `mint.model.gather` does over ranks: in stage 2 over the answers' tokens, in stage 1 over the texts' (ATG)
and the pairs (ALC, ALM).

ALC and ALM compare pairs, and by themselves do so within each micro-batch: fewer negatives than the batch has. With
accumulated negatives (`micro_batches_of`) a step goes over its micro-batches twice. First without gradients: all clips
and texts are embedded, ALC over all of them gives its gradient by each embedding, and ALM's negatives are drawn among
all. Then each micro-batch runs as it would alone, with ALC tied to its embeddings by those gradients, and with its
negatives' clips fetched: loss and gradients are those of the whole batch, and what is kept for the backward pass is one
micro-batch's. Dropout draws the same in both passes. With several ranks the whole is that of all micro-batches of all
ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import accumulate, pairwise, starmap
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mint.model import gather
from mint.model.accumulated import MicroBatch, MicroBatchAlc, MicroBatchAlm
from mint.model.stage1 import Stage1

Batch = Mapping[str, Tensor]
"""The arguments of the stage's `forward`."""


def weights_of(stage: Any, batches: Sequence[Batch]) -> list[dict[str, Tensor]]:
    """Return the weight of each micro-batch of a step, by name of the loss.

    The mean over all micro-batches and ranks of the losses, each times its weight, is then that over all terms. The
    weights of a batch that is not split are empty: there is nothing to weigh.

    Args:
        stage: the stage model.
        batches: this rank's micro-batches; all ranks have as many.
    """
    if len(batches) == 1:
        return [{}]

    terms = [stage.terms(**batch) for batch in batches]
    local = torch.stack([torch.stack(tuple(counts.values())) for counts in terms])  # [micro-batches, losses]
    # The sum over ranks: a rank with shorter answers counts less than the others, as one micro-batch among its own.
    counts = gather.over_ranks(local.float())
    weights = counts * len(batches) / counts.sum(dim=0)
    return [dict(zip(names, row, strict=True)) for names, row in zip(terms, weights, strict=True)]


def weighed(losses: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the losses times their weights; `loss` is their sum."""
    if not weights:
        return losses
    # The model's own `loss` is the plain sum, and gives way to the weighed one.
    products = {name: losses[name] * weight for name, weight in weights.items()}
    return {"loss": torch.stack(list(products.values())).sum(), **products}


def micro_batches_of(
    stage: Stage1, batches: Sequence[Batch], autocast: Callable[[], AbstractContextManager[None]]
) -> Iterator[tuple[MicroBatch, int]]:
    """Yield what each micro-batch of a step needs to know of the whole batch.

    They are made one after the other, as they are needed.

    Args:
        stage: in training mode.
        batches: this rank's micro-batches; all ranks have as many.
        autocast: makes the context of the forward passes.

    Yields:
        The argument `micro_batch` of `Stage1.forward`, and the seed under which that is to run (see `seeded`).
    """
    # A first pass without gradients embeds all clips and texts.
    seeds = torch.randint(1 << 62, (len(batches),)).tolist()
    of_clips, of_texts = [], []
    with torch.no_grad(), autocast():
        for batch, seed in zip(batches, seeds, strict=True):
            some_clips, some_texts = _embed(stage, batch, seed)
            of_clips.append(some_clips)
            of_texts.append(some_texts)
    # Leaves of a graph that ends here: of ALC only its gradient by each embedding is used further.
    clips = torch.cat(of_clips).requires_grad_()  # [B, Q, E]
    texts = torch.cat(of_texts).requires_grad_()  # [B, E]

    # The objectives that contrast pairs, on the whole batch.
    whole: dict[str, Tensor] = {}
    for name in batches[0]:
        whole[name] = _joined([batch[name] for batch in batches])
    draws = whole.pop("draws")  # [B]
    with autocast():
        scores = stage.scores(clips, texts)
        loss = stage.contrast(*scores) if stage.alc else None
        negatives = stage.negatives(*scores, whole["text_ids"], whole["text_mask"], draws) if stage.alm else None
    if loss is not None:
        by_clips, by_texts, by_temperature = torch.autograd.grad(loss, [clips, texts, stage.temperature])

    # What of it belongs to each micro-batch.
    sizes = [len(batch["draws"]) for batch in batches]
    pairs = list(starmap(slice, pairwise(accumulate(sizes, initial=0))))
    if negatives is not None:
        pair_weights = _weights([negatives.valid[:, some].sum() for some in pairs])
    # The first token of a text, [CLS] or the decoder's, is given and not predicted.
    token_weights = _weights([batch["text_mask"][:, 1:].sum() for batch in batches])

    for index, (some, seed) in enumerate(zip(pairs, seeds, strict=True)):
        alc, alm, count = None, None, len(batches)
        if loss is not None:
            # Times their number, since the Trainer divides the gradient of each by it.
            alc = MicroBatchAlc(loss.detach(), by_clips[some] * count, by_texts[some] * count, by_temperature)
        if negatives is not None:
            mined = negatives.of_pairs(some)
            wrong_audio = gather.fetch_rows(mined.clips, whole["audio_features"], whole["audio_mask"])
            alm = MicroBatchAlm(mined, wrong_audio, pair_weights[index])
        yield MicroBatch(alc, alm, token_weights[index]), seed


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators of random numbers inside the block, and restore them afterwards."""
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
        torch.manual_seed(seed)
        yield


def _embed(stage: Stage1, batch: Batch, seed: int) -> tuple[Tensor, Tensor]:
    """Embed clips [B, Q, E] and texts [B, E] by the pass of `Stage1.forward`, so that dropout draws the same."""
    with seeded(seed):
        audio = stage.bridge.project_audio(batch["audio_features"], batch["audio_mask"])
        return stage.shared(stage.represent(audio, batch["text_ids"], batch["text_mask"], contrast=True))


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """Join batches [B, T, ...] into one, padded with zeros to the longest T; or batches [B], which have none."""
    if tensors[0].ndim == 1:
        return torch.cat(list(tensors))

    longest = max(tensor.shape[1] for tensor in tensors)
    # `pad` counts from the last axis: nothing for those behind T.
    after = (0, 0) * (tensors[0].ndim - 2)
    return torch.cat([functional.pad(tensor, (*after, 0, longest - tensor.shape[1])) for tensor in tensors])


def _weights(counts: Sequence[Tensor]) -> list[Tensor]:
    """Return weights of means over `counts` terms, so that the mean of the weighted means is that over all terms."""
    total = torch.stack(list(counts)).sum()
    share = gather.share(total, total.device)
    return [share * len(counts) * count / total for count in counts]
