"""Calibration: whether a model that is 80 % sure is right in 80 % of the clips.

Scores are log-likelihoods of the candidates, so their softmax is what the model believes among the labels that it was
given. Confidence is that of the highest; the expected calibration error (ECE; Guo et al. 2017) is the mean distance
between confidence and accuracy over bins of equal width, weighted by clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from mint.evaluation.metrics.classification import hits
from mint.types import MintError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from mint.evaluation.metrics.classification import Floats

BINS = 10


@dataclass(frozen=True)
class Calibration:
    """A reliability diagram: the bins that hold a clip, lowest confidence first."""

    confidence: Floats
    """Mean confidence of each bin [K]."""
    accuracy: Floats
    """Share of its clips that are right [K]."""
    clips: tuple[int, ...]
    """Clips in each bin [K]."""
    error: float
    """ECE, in [0, 1]."""


def calibrate(scores: ArrayLike, labels: ArrayLike, *, temperature: float = 1.0, bins: int = BINS) -> Calibration:
    """Compare confidence with accuracy, bin by bin.

    Args:
        scores: [N, C] log-likelihoods, or similarities with their temperature.
        labels: [N] int, the right class.
        temperature: scores are divided by it.
        bins: of equal width, from 0 to 1.

    Raises:
        MintError: as `metrics.accuracy`; or scores that are infinite, or a temperature that is not above 0.
    """
    if not temperature > 0:
        raise MintError(f"temperature is {temperature}; give a number above 0")
    right = hits(scores, labels)  # [N]
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        raise MintError("some scores are infinite; the confidence of those clips is not defined")

    confidence = softmax(values / temperature, axis=1).max(axis=1)  # [N]
    # A confidence of exactly 1 belongs to the last bin.
    bin_of_clip = np.minimum((confidence * bins).astype(np.int64), bins - 1)

    counts = np.bincount(bin_of_clip, minlength=bins)
    filled = counts > 0
    counts = counts[filled]
    mean_confidence = np.bincount(bin_of_clip, confidence, bins)[filled] / counts
    accuracy = np.bincount(bin_of_clip, right, bins)[filled] / counts

    error = float((counts * np.abs(accuracy - mean_confidence)).sum() / len(values))
    return Calibration(mean_confidence, accuracy, tuple(counts.tolist()), error)
