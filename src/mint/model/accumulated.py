"""What a micro-batch of stage 1 knows of the whole batch that it belongs to (see `mint.training.accumulation`)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Negatives:
    """The hard negatives of B pairs."""

    clips: Tensor
    """[B], the index in the global batch of each text's wrong clip."""
    captions: Tensor
    """[B, L], the pairs' own captions, -1 after their end."""
    wrong_captions: Tensor
    """[B, L], each clip's wrong caption, -1 after its end."""
    valid: Tensor
    """[3, B] bool: the pairs, the clips with a wrong text, the texts with a wrong clip."""

    def of_pairs(self, pairs: slice) -> Negatives:
        """Return the negatives of some of the pairs."""
        return Negatives(self.clips[pairs], self.captions[pairs], self.wrong_captions[pairs], self.valid[:, pairs])


@dataclass(frozen=True)
class MicroBatchAlc:
    """The loss of ALC on the whole batch, with its gradients for one micro-batch of B pairs."""

    loss: Tensor
    """Scalar, without gradient."""
    by_clips: Tensor
    """[B, Q, E], the gradient by the clips times the number of micro-batches."""
    by_texts: Tensor
    """[B, E], the gradient by the texts times the number of micro-batches."""
    by_temperature: Tensor
    """[1], the gradient by the temperature."""

    def tied(self, clips: Tensor, texts: Tensor, temperature: Tensor) -> Tensor:
        """Tie the loss to this micro-batch's clips [B, Q, E] and texts [B, E], so that its gradients reach them."""
        # The tie has the gradients that are known, and adds nothing to the value.
        tie = (clips * self.by_clips).sum() + (texts * self.by_texts).sum() + (temperature * self.by_temperature).sum()
        return self.loss + tie - tie.detach()


@dataclass(frozen=True)
class MicroBatchAlm:
    """What ALM needs in one micro-batch: negatives that were drawn from the whole batch."""

    negatives: Negatives
    wrong_audio: tuple[Tensor, ...]
    """Frozen features [B, T, audio width] and mask [B, T] of the wrong clips."""
    weight: Tensor
    """Weight of the mean over its valid pairs: the mean over micro-batches is then that over all pairs."""


@dataclass(frozen=True)
class MicroBatch:
    """What a micro-batch knows of the whole batch; None for an objective that is off."""

    alc: MicroBatchAlc | None
    alm: MicroBatchAlm | None
    atg_weight: Tensor
    """Weight of the mean over its tokens: the mean over micro-batches is then that over all tokens."""
