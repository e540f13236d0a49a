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
        """Return the log-odds of a match [P] of pairs, given as indices of clips [P] and of texts [P].

        The re-ranker splits the pairs into batches itself.
        """
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
    reranked: int | None = None
    """How many of the first items of each query a re-ranker has put in order; None: there was no re-ranker."""

    def recall(self, k: int) -> Tensor:
        """Return whether a right item is among the first k, for each query [R] float64."""
        return (self.best[:, 0] <= k).double()

    def average_precision(self, k: int) -> Tensor:
        """Return the mean over the right items (at most k) of the precision at their rank, 0 beyond k [R] float64."""
        found = torch.arange(1, self.best.shape[1] + 1, dtype=torch.float64, device=self.best.device)
        precision = torch.where(self.best <= k, found / self.best.double(), 0.0)
        return precision.sum(dim=1) / self.right.clamp(max=k)

    def chance_recall(self, k: int) -> float:
        """Return what a random order gives on average: k/N where one item is right."""
        # The chance that none of the first k, drawn one after the other without putting back, is right.
        wrong = 1 - torch.zeros_like(self.right, dtype=torch.float64)  # [R]
        for rank in range(min(k, self.items)):
            wrong *= (self.items - self.right - rank).clamp(min=0) / (self.items - rank)
        return float((1 - wrong).mean())

    def chance_average_precision(self, k: int) -> float:
        """Return what a random order gives on average."""
        # Above a right item at some rank, each other place is right with the share of the other right items.
        ranks = torch.arange(1, min(k, self.items) + 1, dtype=torch.float64, device=self.right.device)
        right = self.right[:, None].double()
        precision = (1 + (ranks - 1) * (right - 1) / max(1, self.items - 1)) / ranks  # [R, k], where a right item is
        return float(((right / self.items * precision).sum(dim=1) / self.right.clamp(max=k)).mean())

    def per_clip(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum and number of the queries' values for each clip that has a query, for a bootstrap."""
        # Queries of one clip are not independent, so that the bootstrap draws clips.
        _, row = torch.unique(self.clip, return_inverse=True)
        clips = int(row.max()) + 1
        sums = torch.zeros(clips, dtype=values.dtype, device=values.device).index_add_(0, row, values)
        return sums, torch.bincount(row, minlength=clips)


@dataclass(frozen=True)
class Retrieval:
    """The ranks of both directions."""

    text_to_audio: Ranks
    """One query a caption; one right clip."""
    audio_to_text: Ranks
    """One query a clip that has a caption; its captions are right."""


def retrieve(
    queries: Tensor,
    texts: Tensor,
    owner: Tensor,
    *,
    reranker: Reranker | None = None,
    temperature: float | None = None,
    top: int = 128,
) -> Retrieval:
    """Rank clips by captions and captions by clips.

    Args:
        queries: [N, Q, E], L2-normalised outputs of the queries.
        texts: [M, E], L2-normalised captions.
        owner: [M] int64, the clip that each caption describes. A clip without captions is only ever a wrong answer.
        reranker: puts the `top` items of each query in the order of the log-odds of a match plus similarity over
            temperature. Both are logits then; BLIP-2 adds the cosine itself, which hardly counts beside a logit.
        temperature: of the similarities, as ALC has learnt it; needed with a re-ranker.
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
    if reranker is not None and not (temperature is not None and temperature > 0):
        raise MintError(f"temperature is {temperature}; give that of stage 1 with a re-ranker")
    check_embeddings(queries, texts)

    # C clips have captions, clip `clips[c]` as many as `texts_of[c]`; caption m is of the clip `clips[group[m]]`.
    owner = owner.to(queries.device)
    clips, group, texts_of = torch.unique(owner, return_inverse=True, return_counts=True)
    captions = _grouped(group, texts_of)
    rerank = None if reranker is None or temperature is None else _Rerank(reranker, temperature, top)

    # Both directions read strips of rows of the matrix of similarities, which never exists as a whole.
    text_rows = torch.arange(len(texts), device=owner.device).split(_strip(len(queries)))
    by_text = ((rows, maximum(queries, texts[rows]).T, owner[rows, None]) for rows in text_rows)
    clip_rows = torch.arange(len(clips), device=owner.device).split(_strip(len(texts)))
    by_clip = ((clips[rows], maximum(queries[clips[rows]], texts), captions[rows]) for rows in clip_rows)

    reranked = None if rerank is None else top
    return Retrieval(
        Ranks(_best(by_text, rerank, texts_ask=True), torch.ones_like(owner), owner, len(queries), reranked),
        Ranks(_best(by_clip, rerank, texts_ask=False), texts_of, clips, len(texts), reranked),
    )


@dataclass(frozen=True)
class _Rerank:
    """How the first items of each query are put in another order."""

    reranker: Reranker
    temperature: float
    top: int

    def scores(self, query: Tensor, scores: Tensor, texts_ask: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Score the first items of each query again.

        Args:
            query: index of each query [B].
            scores: similarities to all items [B, I].
            texts_ask: whether the queries are texts and the items clips.

        Returns:
            The items [B, K], their scores [B, K] float64, and which of them surely belong to the first K [B, K] bool:
            those that do not tie with an item beyond.
        """
        best = scores.topk(min(self.top + 1, scores.shape[1]), dim=1)
        values, items = best.values[:, : self.top], best.indices[:, : self.top]
        clear = torch.ones_like(items, dtype=torch.bool)
        if best.values.shape[1] > self.top:
            clear = values > best.values[:, self.top :] + TIE

        queries = query[:, None].expand_as(items)
        clips, texts = (items, queries) if texts_ask else (queries, items)
        log_odds = self.reranker(clips.flatten(), texts.flatten()).to(values).view_as(values)
        if not torch.isfinite(log_odds).all():
            raise MintError("the re-ranker gave NaN or infinite match scores; the model's weights are broken")

        # Log-odds plus similarity over temperature, times the temperature: `TIE` is in units of similarity.
        return items, values.double() + self.temperature * log_odds.double(), clear


def _strip(items: int) -> int:
    """Return how many rows of similarities to so many items may be held at a time."""
    return max(1, CELLS // items)


def _grouped(group: Tensor, sizes: Tensor) -> Tensor:
    """Return the members of each group [G, K], -1 after the last, from the group of each member [M] and sizes [G]."""
    members = torch.argsort(group, stable=True)  # [M], group after group
    first = sizes.cumsum(0) - sizes  # [G]
    column = torch.arange(len(group), device=group.device) - first[group[members]]  # [M]
    table = torch.full((len(sizes), int(sizes.max())), -1, dtype=torch.int64, device=group.device)
    table[group[members], column] = members
    return table


def _best(strips: Iterable[tuple[Tensor, Tensor, Tensor]], rerank: _Rerank | None, *, texts_ask: bool) -> Tensor:
    """Return the ranks of the right items.

    Args:
        strips: queries [B], their scores [B, I] and their right items [B, K], -1 where there are no more.
        rerank: None to rank by the scores alone.
        texts_ask: whether the queries are texts.
    """
    best = []
    for query, scores, right in strips:
        most = min(right.shape[1], DEPTH)
        if rerank is None:
            exists = right >= 0
            index = torch.where(exists, right, right[:, :1])
            right_scores = scores.gather(1, index).masked_fill(~exists, -torch.inf)
            best.append(_ranks(right_scores, scores.scatter(1, index, -torch.inf), most))
        else:
            items, final, clear = rerank.scores(query, scores, texts_ask)
            is_right = (items[:, :, None] == right[:, None, :]).any(dim=2)  # [B, top]
            right_scores = final.masked_fill(~(is_right & clear), -torch.inf)
            best.append(_ranks(right_scores, final.masked_fill(is_right, -torch.inf), most))
    return torch.cat(best)


def _ranks(right: Tensor, wrong: Tensor, most: int) -> Tensor:
    """Return the ranks of the `most` best right items [B, most], given scores of right [B, K] and wrong items [B, I].

    Whatever is wrong and no worse stands before them; a score of minus infinity is no item.
    """
    right = right.topk(most, dim=1).values
    ranks = torch.empty(right.shape, dtype=torch.int64, device=right.device)
    for index in range(most):
        ahead = (wrong >= right[:, index, None] - TIE).sum(dim=1)
        ranks[:, index] = torch.where(right[:, index].isfinite(), ahead + index + 1, NEVER)
    return ranks
