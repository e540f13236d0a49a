"""Feature maps that an encoder's own classifier takes for a class, drawn without a recording.

A draw begins with the features of a real waveform, a random sound made by rule (`mint.data.corpora.drawn.synthesis`),
among those that come nearest to the class. It then moves along the gradient of the class's logit against those of its
rivals, by Newton's step, until the class is about as likely as it is in real recordings. What keeps the result like
real features is how little it moves: in the share of zeros, norm, spread of logits and number of classes that are heard
beside the first one it agrees with recordings, where gradient ascent from noise does not (docs/results.md).

The idea of learning from inputs that are drawn from a trained network itself is data-free knowledge distillation
(Lopes et al. 2017, "Data-free knowledge distillation for deep neural networks"; Yin et al. 2020, "Dreaming to
distill: data-free knowledge transfer via DeepInversion"). No code of theirs is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mint.types import NamedClasses

NEAREST = 30
"""Sounds of the pool that a class's draws begin with."""
STEPS = 10
STEP_SHARE = 0.5
"""Share of Newton's step that is taken: the features that reach their lowest value on the way change the gradient."""
KEPT = 0.6
"""Share of the features that a step may move, drawn anew for each, so that no two draws of a class move alike."""
GOALS = (-0.5, 3.0)
"""Range of the class's logit where the draw may stop: the likeliest class of real recordings has about these."""
LEAD = 0.3
"""Logits that the class should be ahead of its rivals."""
BACKGROUND = 0.4
"""Largest share of a second sound in the beginning, which half of the draws do not have at all."""


@dataclass(frozen=True)
class Pool:
    """Features of random sounds, to begin with."""

    maps: Tensor
    """[N, G, D], G tokens that the classifier reads together."""
    nearest: Tensor
    """[C, NEAREST] int64: for each class the sounds that come nearest to it."""


def make_pool(maps: Tensor, classes: NamedClasses) -> Pool:
    """Return the pool of some feature maps [N, G, D]."""
    logits = classes.logits(maps.mean(dim=1))  # [N, C]

    # Halved logits look further down the list: what is nearest to a rare class is rarely what it is taken for.
    nearness = torch.log_softmax(logits / 2, dim=1)
    return Pool(maps, nearness.topk(min(NEAREST, len(maps)), dim=0).indices.T)


def draw_maps(
    pool: Pool, classes: NamedClasses, targets: Tensor, are_rivals: Tensor, generator: torch.Generator
) -> Tensor:
    """Draw a feature map for each target.

    Args:
        pool: what to begin with.
        classes: the classifier.
        targets: [B] int64, numbers of classes.
        are_rivals: [C] bool, False: a heading above other classes, which may well be heard beside the target.
        generator: source of all chance.

    Returns:
        [B, G, D] float32.
    """
    count = len(targets)
    rows = torch.arange(count)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    choice = torch.randint(pool.nearest.shape[1], (count,), generator=generator)
    other = torch.randint(len(pool.maps), (count,), generator=generator)
    share = uniform(0, BACKGROUND, count, 1, 1) * (uniform(0, 1, count, 1, 1) < 0.5)
    maps = (1 - share) * pool.maps[pool.nearest[targets, choice]] + share * pool.maps[other]  # [B, G, D]
    maps = maps * torch.exp(0.2 * torch.randn(count, 1, 1, generator=generator))

    goals = uniform(*GOALS, count)
    # A sound is not equally loud in all tokens.
    loudness = uniform(0.6, 1.4, count, maps.shape[1], 1)
    loudness = loudness / loudness.mean(dim=1, keepdim=True)
    for _ in range(STEPS):
        mean = maps.mean(dim=1)  # [B, D]
        logits = classes.logits(mean)  # [B, C]
        own = logits[rows, targets]
        rivals = logits.masked_fill(~are_rivals, -torch.inf)
        rivals[rows, targets] = -torch.inf

        # Newton's step towards the goal, or ahead of the strongest rival, along the features that can still move.
        needed = torch.maximum(goals - own, 0.7 * (rivals.amax(dim=1) - own) + LEAD).clamp(min=0)  # [B]
        gradient = classes.weight[targets] - 0.5 * torch.softmax(rivals, dim=1) @ classes.weight  # [B, D]
        gradient = gradient * (uniform(0, 1, *gradient.shape) < KEPT)
        if classes.least is not None:
            gradient = gradient * ((mean > classes.least) | (gradient > 0))
        length = STEP_SHARE * needed / (gradient.square().sum(dim=1) + 1e-3)  # [B]
        maps = maps + (length[:, None] * gradient)[:, None] * loudness
        if classes.least is not None:
            maps = maps.clamp(min=classes.least)
    return maps
