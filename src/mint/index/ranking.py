"""Exact search in two passes: one over the codes of all windows, and one over the vectors of those that may count.

The codes take a quarter of the room of the vectors, and each has an error bound. The first pass gives for every window
the highest and the lowest score that it can have. A window that cannot be as good as the K-th best clip at its worst is
out; the score of every other one is computed from its vectors, in double precision. So the ranking is that of the
vectors, whatever the codes lose. Blocks of windows are small: all that is held of a segment is two numbers a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mint.index.segment import Segment

Combination = Literal["best", "mean"]
"""How the Q cosines of a window become its score: the best of them, or their mean."""

NUMBERS_AT_ONCE = 1 << 21
"""Codes that are made floating-point numbers together: 8 MiB, which stay in the processor's cache."""


@dataclass(frozen=True)
class Hit:
    """A clip that a search gave, with the window that fits best."""

    path: str
    score: float
    """The similarity: a cosine, at most 1."""
    start: float
    """Seconds into the file where the window begins."""
    end: float
    """Seconds into the file where the window ends."""


def rank(segments: Sequence[Segment], query: Tensor, top: int, combination: Combination) -> list[Hit]:
    """Return the best clips, the best first; clips of one score are in the order of their paths and times.

    Args:
        segments: the segments of an index.
        query: [E] for the best of a window's vectors; [Q, E], for their mean, each with the vector of its own row.
        top: number of clips.
        combination: how cosines become scores.
    """
    query = query.detach().cpu().double()
    bounds = [_bounds(segment, query, combination) for segment in segments]

    # A clip's lowest score is that of its best window.
    lowest = []
    for segment, (low, _) in zip(segments, bounds, strict=True):
        lowest.append(np.maximum.reduceat(low, segment.first_window[:-1]) if len(segment) else low)
    all_lowest = np.concatenate(lowest) if lowest else np.empty(0, np.float32)
    threshold = -np.inf
    if top < len(all_lowest):
        threshold = np.partition(all_lowest, len(all_lowest) - top)[len(all_lowest) - top]

    candidates: list[tuple[float, int, int, int]] = []
    for number, (segment, (_, high)) in enumerate(zip(segments, bounds, strict=True)):
        # Windows of removed clips have no score at all.
        windows = np.flatnonzero((high >= threshold) & (high > -np.inf))
        scores = _exact(segment, windows, query, combination)
        candidates += _best_of_clips(segment, number, windows, scores)

    return _hits(segments, candidates, top)


def _bounds(segment: Segment, query: Tensor, combination: Combination) -> tuple[NDArray[np.float32], ...]:
    """Return the lowest and the highest score that each window can have, [W] each; of removed clips -inf."""
    columns = segment.columns
    codes, scales, errors = columns["codes"], columns["scales"], columns["errors"]
    low, high = torch.empty(len(codes)), torch.empty(len(codes))

    # The bounds hold for a query of length 1.
    single, length = query.float(), float(query.norm(dim=-1).max()) * (1 + 1e-6)
    step = max(1, NUMBERS_AT_ONCE // max(1, codes[:1].numel()))
    for first in range(0, len(codes), step):
        block = slice(first, first + step)
        numbers = codes[block].float()  # [B, Q, E]
        if combination == "best":
            products = (numbers.flatten(0, 1) @ single).view(numbers.shape[:2])  # [B, Q]
        else:
            products = torch.einsum("bqe,qe->bq", numbers, single)

        cosines = products.mul_(scales[block])
        slack = errors[block] * length
        if combination == "best":
            torch.amax(cosines - slack, dim=1, out=low[block])
            torch.amax(cosines + slack, dim=1, out=high[block])
        else:
            torch.mean(cosines - slack, dim=1, out=low[block])
            torch.mean(cosines + slack, dim=1, out=high[block])

    if not segment.is_live.all():
        is_removed = torch.from_numpy(np.repeat(~segment.is_live, segment.clips["num_windows"]))
        low[is_removed] = high[is_removed] = -torch.inf
    return low.numpy(), high.numpy()


def _exact(
    segment: Segment, windows: NDArray[np.int64], query: Tensor, combination: Combination
) -> NDArray[np.float32]:
    """Return the scores of some windows [N] by their vectors."""
    vectors = segment.columns["vectors"]
    scores = np.empty(len(windows), np.float32)
    step = max(1, NUMBERS_AT_ONCE // max(1, vectors[:1].numel()))
    for first in range(0, len(windows), step):
        block = slice(first, first + step)
        numbers = vectors[torch.from_numpy(windows[block])].double()  # [B, Q, E]
        if combination == "best":
            cosines = (numbers * query).sum(dim=2).amax(dim=1)
        else:
            cosines = (numbers * query).sum(dim=2).mean(dim=1)
        scores[block] = cosines.numpy()
    return scores


def _best_of_clips(
    segment: Segment, number: int, windows: NDArray[np.int64], scores: NDArray[np.float32]
) -> list[tuple[float, int, int, int]]:
    """Return score, number of the segment, clip and window of the best window of each clip."""
    clips = np.searchsorted(segment.first_window, windows, side="right") - 1

    # By clip, then the best first; of equal windows the earliest.
    order = np.lexsort((windows, -scores, clips))
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = clips[order[1:]] != clips[order[:-1]]
    chosen = order[is_first]
    numbers = [number] * len(chosen)
    return list(zip(scores[chosen].tolist(), numbers, clips[chosen].tolist(), windows[chosen].tolist(), strict=True))


def _hits(segments: Sequence[Segment], candidates: list[tuple[float, int, int, int]], top: int) -> list[Hit]:
    """Return the best candidates."""
    candidates.sort(key=lambda candidate: -candidate[0])

    # Paths are read of those alone that may be shown: the best, and the equals of the last of them.
    if len(candidates) > top:
        last = candidates[top - 1][0]
        candidates = [candidate for candidate in candidates if candidate[0] >= last]

    hits = []
    for score, number, clip, window in candidates:
        start, end = segments[number].times(window)
        hits.append(Hit(segments[number].entry(clip).path, score, start, end))
    hits.sort(key=lambda hit: (-hit.score, hit.path, hit.start))
    return hits[:top]
