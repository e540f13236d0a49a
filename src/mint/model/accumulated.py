"""What passes between a batch of stage 1 and a larger one that it is a part of (see `mint.training.accumulation`)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Negatives:
    """The hard negatives of B pairs."""

    clips: Tensor
    """[B], place in the global batch of each text's wrong clip."""
    captions: Tensor
    """[B, L] the pairs' own, -1 after their end."""
    wrong_captions: Tensor
    """[B, L] each clip's wrong text."""
    valid: Tensor
    """[3, B] bool: the pairs, the clips with a wrong text, the texts with a wrong clip."""

    def rows(self, own: slice) -> Negatives:
        """Those of some of the pairs."""
        return Negatives(self.clips[own], self.captions[own], self.wrong_captions[own], self.valid[:, own])


@dataclass(frozen=True)
class AlcPart:
    """ALC of the whole batch: its loss, and the gradients of the mean over parts, for one part."""

    loss: Tensor
    by_clips: Tensor
    """[B, Q, E], times the number of parts."""
    by_texts: Tensor
    """[B, E], times the number of parts."""
    by_temperature: Tensor
    """[1]."""

    def tied(self, clips: Tensor, texts: Tensor, temperature: Tensor) -> Tensor:
        """The loss, tied to this part's clips [B, Q, E] and texts [B, E], so that its gradients reach them."""
        tie = (clips * self.by_clips).sum() + (texts * self.by_texts).sum() + (temperature * self.by_temperature).sum()
        return self.loss + tie - tie.detach()


@dataclass(frozen=True)
class AlmPart:
    """ALM of one part, with negatives from the whole batch."""

    negatives: Negatives
    wrong_audio: tuple[Tensor, ...]
    """Frozen features [B, T, audio width] and mask [B, T] of the wrong clips."""
    weight: Tensor
    """Of this part's mean over its valid pairs: the mean over parts is then that over all."""


@dataclass(frozen=True)
class Part:
    """What a part of an accumulated batch knows of the whole; None for an objective that is off."""

    alc: AlcPart | None
    alm: AlmPart | None
    atg_weight: Tensor
    """Of this part's mean over its tokens."""
