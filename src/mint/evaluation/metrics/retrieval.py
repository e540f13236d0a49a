"""Audio-text retrieval both ways, as the Clotho community counts it (paper, section 4.1 and Table 3).

Each caption is a query for its clip, and the captions' results are averaged. Each clip is a query for its captions:
R@k looks at the best-ranked of them, average precision at all. This follows LAION-CLAP's `evaluate_clotho_audiocaps`
but for three points:

- its audio-to-text average precision takes a clip's captions in file order where its own docstring says sorted by rank;
  here they are sorted, which is average precision proper;
- a clip with more than k captions divides by k, so that a perfect ranking has 1;
- ties are pessimistic: whatever scores within `TIE` of a right item, and is not itself right, stands before it. A model
  that gives one score to everything has R@k = 0, and a caption shared word for word by two clips counts against both.

The matrix of similarities exists only in strips of rows, each computed once for either way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from mint.evaluation.metrics.similarity import CELLS, check_embeddings, maximum
from mint.evaluation.settings import DEPTH
from mint.types import MintError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

TIE = 1e-6
"""Scores closer than this are equal: it is the rounding error of a dot product of unit vectors in float32."""
NEVER = torch.iinfo(torch.int64).max
"""Rank of what is not found."""


class Reranker(Protocol):
    """Scores pairs more carefully than their similarity does: the matching head of stage 1."""

    def __call__(self, clips: Tensor, texts: Tensor) -> Tensor:
        """Match scores [P] of pairs, given as indices of clips [P] and of texts [P]; it splits them into batches."""
        ...


@dataclass(frozen=True)
class Ranks:
    """Where the right items of each query stand, in one direction."""

    best: Tensor
    """[R, K] int64, 1 is the top; the ranks of the query's right items, best first, `NEVER` where there are fewer."""
    right: Tensor
    """[R] int64, number of right items."""
    clip: Tensor
    """[R] int64, the clip that the query belongs to."""
    items: int
    """Number of items ranked."""

    def recall(self, k: int) -> Tensor:
        """Whether a right item is among the first k, for each query [R] float64."""
        return (self.best[:, 0] <= k).double()

    def average_precision(self, k: int) -> Tensor:
        """Mean over the right items (k of them at most) of the precision at their rank, 0 beyond k [R] float64."""
        found = torch.arange(1, self.best.shape[1] + 1, dtype=torch.float64, device=self.best.device)
        precision = torch.where(self.best <= k, found / self.best.double(), 0.0)
        return precision.sum(dim=1) / self.right.clamp(max=k)

    def chance_recall(self, k: int) -> float:
        """What a random order gives on average: k/N where one item is right."""
        wrong = 1 - torch.zeros_like(self.right, dtype=torch.float64)
        for rank in range(min(k, self.items)):
            wrong *= (self.items - self.right - rank).clamp(min=0) / (self.items - rank)
        return float((1 - wrong).mean())

    def chance_average_precision(self, k: int) -> float:
        """What a random order gives on average."""
        ranks = torch.arange(1, min(k, self.items) + 1, dtype=torch.float64, device=self.right.device)
        right = self.right[:, None].double()
        precision = (1 + (ranks - 1) * (right - 1) / max(1, self.items - 1)) / ranks  # [R, k], where a right item is
        return float(((right / self.items * precision).sum(dim=1) / self.right.clamp(max=k)).mean())

    def per_clip(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Sum and number of the queries' values for each clip that has a query: what a bootstrap over clips needs."""
        _, place = torch.unique(self.clip, return_inverse=True)
        clips = int(place.max()) + 1
        sums = torch.zeros(clips, dtype=values.dtype, device=values.device).index_add_(0, place, values)
        return sums, torch.bincount(place, minlength=clips)


@dataclass(frozen=True)
class Retrieval:
    """Both directions."""

    text_to_audio: Ranks
    """One query a caption; one right clip."""
    audio_to_text: Ranks
    """One query a clip that has a caption; its captions are right."""


def retrieve(
    queries: Tensor, texts: Tensor, owner: Tensor, *, reranker: Reranker | None = None, top: int = 128
) -> Retrieval:
    """Rank clips by captions and captions by clips.

    Args:
        queries: [N, Q, E], L2-normalised outputs of the queries.
        texts: [M, E], L2-normalised captions.
        owner: [M] int64, the clip that each caption describes. A clip without captions is only ever a wrong answer.
        reranker: puts the `top` items of each query in the order of match score plus similarity (as BLIP-2 does).
        top: how many are re-ranked, at least `DEPTH`.

    Raises:
        MintError: no clips or captions, an owner outside the clips, shapes that differ, embeddings not finite.
    """
    if len(queries) == 0 or len(texts) == 0:
        raise MintError(
            f"retrieval over {len(queries)} clips and {len(texts)} captions; at least one of each is needed"
        )
    if owner.shape != (len(texts),):
        raise MintError(f"{len(texts)} captions but owners of shape {tuple(owner.shape)}; give one for each caption")
    if not 0 <= int(owner.min()) <= int(owner.max()) < len(queries):
        raise MintError(
            f"owners run from {int(owner.min())} to {int(owner.max())}; the {len(queries)} clips count from 0"
        )
    if top < DEPTH:
        raise MintError(f"top is {top}; re-rank at least {DEPTH} items")
    check_embeddings(queries, texts)
    owner = owner.to(queries.device)
    clips, group, texts_of = torch.unique(owner, return_inverse=True, return_counts=True)
    captions = _grouped(group, texts_of)
    by_text = (
        (rows, maximum(queries, texts[rows]).T, owner[rows, None])
        for rows in torch.arange(len(texts), device=owner.device).split(_strip(len(queries)))
    )
    by_clip = (
        (clips[rows], maximum(queries[clips[rows]], texts), captions[rows])
        for rows in torch.arange(len(clips), device=owner.device).split(_strip(len(texts)))
    )
    return Retrieval(
        Ranks(_best(by_text, reranker, top, rows_are_texts=True), torch.ones_like(owner), owner, len(queries)),
        Ranks(_best(by_clip, reranker, top, rows_are_texts=False), texts_of, clips, len(texts)),
    )


def _strip(items: int) -> int:
    return max(1, CELLS // items)


def _grouped(group: Tensor, sizes: Tensor) -> Tensor:
    """The members of each group [G, K], -1 after the last, from the group of each member [M] and its size [G]."""
    members = torch.argsort(group, stable=True)
    first = sizes.cumsum(0) - sizes
    place = torch.arange(len(group), device=group.device) - first[group[members]]
    table = torch.full((len(sizes), int(sizes.max())), -1, dtype=torch.int64, device=group.device)
    table[group[members], place] = members
    return table


def _best(
    strips: Iterable[tuple[Tensor, Tensor, Tensor]], reranker: Reranker | None, top: int, *, rows_are_texts: bool
) -> Tensor:
    """Ranks of the right items, from strips of (query [B], scores [B, I], its right items [B, K], -1: no more)."""
    best = []
    for query, scores, right in strips:
        most = min(right.shape[1], DEPTH)
        if reranker is None:
            there, index = right >= 0, torch.where(right >= 0, right, right[:, :1])
            own = scores.gather(1, index).masked_fill(~there, -torch.inf)
            best.append(_ranks(own, scores.scatter(1, index, -torch.inf), most))
            continue
        kept = scores.topk(min(top + 1, scores.shape[1]), dim=1)
        values, candidates = kept.values[:, :top], kept.indices[:, :top]
        found = (candidates[:, :, None] == right[:, None, :]).any(dim=2)
        clear = values > kept.values[:, top:] + TIE if kept.values.shape[1] > top else torch.ones_like(found)
        asked = query[:, None].expand_as(candidates)
        clips, texts = (candidates, asked) if rows_are_texts else (asked, candidates)
        match = reranker(clips.flatten(), texts.flatten()).to(values).view_as(values)
        if not torch.isfinite(match).all():
            raise MintError("the re-ranker gave NaN or infinite match scores; the model's weights are broken")
        final = match + values
        own = final.masked_fill(~(found & clear), -torch.inf)
        best.append(_ranks(own, final.masked_fill(found, -torch.inf), most))
    return torch.cat(best)


def _ranks(own: Tensor, wrong: Tensor, most: int) -> Tensor:
    """Ranks of the `most` best right items [B, most], given scores of right items [B, K] and of wrong ones [B, I].

    Whatever is wrong and no worse stands before them; a score of minus infinity is no item.
    """
    own = own.topk(most, dim=1).values
    ranks = torch.empty(own.shape, dtype=torch.int64, device=own.device)
    for place in range(most):
        ahead = (wrong >= own[:, place, None] - TIE).sum(dim=1)
        ranks[:, place] = torch.where(own[:, place].isfinite(), ahead + place + 1, NEVER)
    return ranks
