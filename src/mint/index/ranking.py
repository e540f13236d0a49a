"""Exact search in two passes: one in half precision over all windows, and one over the vectors of those that may count.

Half precision takes half of the room and of the time, and its error has a bound. So the first pass gives for every
window the highest and the lowest score that it can have. A window that cannot be as good as the K-th best clip at its
worst is out; the score of every other one is computed from its vectors, in double precision. The ranking is that of
the vectors, whatever half precision loses. All that is held in memory is some bytes a vector.
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
"""Numbers of vectors that are read together in the second pass: 16 MiB in double precision."""


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
    margin = _error_bound(query)
    rough = [_rough(segment, query, combination) for segment in segments]

    # A clip is as good as its best window. The K-th best may be one margin worse than it looks, others one better.
    by_clip = []
    for segment, scores in zip(segments, rough, strict=True):
        by_clip.append(np.maximum.reduceat(scores, segment.first_window[:-1]) if len(segment) else scores)
    of_clips = np.concatenate(by_clip) if by_clip else np.empty(0, np.float32)
    threshold = -np.inf
    if top < len(of_clips):
        threshold = np.partition(of_clips, len(of_clips) - top)[len(of_clips) - top] - 2 * margin

    candidates: list[tuple[float, int, int, int]] = []
    for number, (segment, scores) in enumerate(zip(segments, rough, strict=True)):
        # Windows of removed clips have no score at all.
        windows = np.flatnonzero((scores >= threshold) & (scores > -np.inf))
        scores = _exact(segment, windows, query, combination)
        candidates += _best_of_clips(segment, number, windows, scores)

    return _hits(segments, candidates, top)


def _error_bound(query: Tensor) -> float:
    """Return by how much a score in half precision may be wrong, for vectors of length 1.

    Rounding changes no number by more than a 2048th of it: once in the vectors, once in the query and once in the
    result. One more of these stands for numbers too small for that, and the last term for sums in single precision.
    """
    length = float(query.norm(dim=-1).max())
    return (4 * 2.0**-11 + query.numel() * 2.0**-23) * max(1.0, length)


def _rough(segment: Segment, query: Tensor, combination: Combination) -> NDArray[np.float32]:
    """Return the scores [W] of all windows in half precision; -inf for those of removed clips."""
    halves = segment.columns["halves"]  # [W, Q, E]
    # One product over the whole segment: nothing is copied, and threads are started once.
    if combination == "best":
        products = halves.flatten(0, 1) @ query.half()  # [W * Q]
        scores = products.view(halves.shape[:2]).amax(dim=1).float()
    else:
        scores = (halves.flatten(1) @ query.half().flatten()).float() / halves.shape[1]

    if not segment.is_live.all():
        scores[torch.from_numpy(np.repeat(~segment.is_live, segment.clips["num_windows"]))] = -torch.inf
    return scores.numpy()


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
