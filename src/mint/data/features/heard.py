"""What a frozen encoder's own classifier hears in features: the scores of its named classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mint.types import NamedClasses


def heard_scores(windows: Sequence[Tensor], classes: NamedClasses) -> Tensor:
    """Return the mean scores [C] in [0, 1] over the patches of a clip.

    Args:
        windows: features [T, D] of the clip; the last patch of each may have fewer tokens than the others.
        classes: the classifier.
    """
    scores = []
    for window in windows:
        for patch in window.split(classes.tokens):
            scores.append(torch.sigmoid(classes.logits(patch.mean(dim=0))))
    return torch.stack(scores).mean(dim=0)
