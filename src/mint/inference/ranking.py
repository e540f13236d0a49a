"""Scores of labels as people read them: from the best to the worst, with probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def rank_labels(scores: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return labels from the best to the worst, each with its score and its softmax probability among them all."""
    # Less the best one, or the exponentials of long labels would all be 0.
    best = max(scores.values())
    weights = {label: math.exp(score - best) for label, score in scores.items()}
    total = sum(weights.values())

    return [
        {"label": label, "probability": weights[label] / total, "score": scores[label]}
        for label in sorted(scores, key=lambda label: -scores[label])
    ]
