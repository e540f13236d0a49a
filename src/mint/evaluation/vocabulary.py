"""Scores of vocabulary ranking from its log-likelihoods: sum, mean, or corrected by the prior.

The sum over tokens is the paper's way (its reference [30]); it disfavours long labels. The mean divides by the number
of tokens. The prior-corrected score subtracts what the model says of the label without hearing anything in particular:
the mean over the clips that are ranked together.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Scoring = Literal["sum", "mean", "prior"]


def finish_scores(sums: Tensor, counts: Tensor, scoring: Scoring = "sum") -> Tensor:
    """Scores [N, C] from summed log-likelihoods [N, C] and token counts [C]."""
    if scoring == "mean":
        return sums / counts
    if scoring == "prior":
        return sums - sums.mean(dim=0, keepdim=True)
    return sums
