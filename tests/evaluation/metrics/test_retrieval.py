"""Retrieval against a plain full-matrix version, with ties, several captions a clip, and re-ranking."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mint.evaluation.metrics import retrieval as module
from mint.evaluation.metrics.retrieval import Retrieval, retrieve
from mint.types import MintError


def unit(*shape: int, seed: int = 0) -> Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def naive(scores: np.ndarray, right: np.ndarray, k: int) -> tuple[float, float]:
    """Recall and average precision at k of full matrices [R, I], by sorting each row with the wrong items first."""
    recalls, precisions = [], []
    for row, good in zip(scores, right, strict=True):
        order = sorted(range(len(row)), key=lambda item: (-round(row[item], 5), good[item]))
        relevant = [good[item] for item in order]
        recalls.append(any(relevant[:k]))
        found = [sum(relevant[: place + 1]) / (place + 1) for place in range(min(k, len(row))) if relevant[place]]
        precisions.append(sum(found) / min(k, sum(good)))
    return float(np.mean(recalls)), float(np.mean(precisions))


def full(queries: Tensor, texts: Tensor) -> np.ndarray:
    return np.asarray(torch.einsum("nqe,me->nmq", queries, texts).amax(-1).double())


def assert_equals_naive(found: Retrieval, scores: np.ndarray, owner: Tensor) -> None:
    right = np.arange(len(scores))[:, None] == owner.numpy()[None]
    described = right.any(axis=1)
    for k in (1, 2, 5, 10):
        for ranks, expected in (
            (found.text_to_audio, naive(scores.T, right.T, k)),
            (found.audio_to_text, naive(scores[described], right[described], k)),
        ):
            actual = (float(ranks.recall(k).mean()), float(ranks.average_precision(k).mean()))
            assert actual == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("cells", [1, 64, 10**9])
@pytest.mark.parametrize("seed", range(4))
def test_equals_naive(seed: int, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CELLS", cells)
    queries, texts = unit(13, 3, 6, seed=seed), unit(40, 6, seed=seed + 100)
    texts[5], texts[6], queries[4], queries[9] = texts[1], texts[1], queries[2], queries[2]  # ties both ways
    owner = torch.randint(12, (40,), generator=torch.Generator().manual_seed(seed))  # clip 12 has no caption
    assert_equals_naive(retrieve(queries, texts, owner), full(queries, texts), owner)


def test_more_captions_than_ranks() -> None:
    queries, texts = unit(3, 2, 6), unit(60, 6, seed=1)
    owner = torch.arange(60) % 3
    assert_equals_naive(retrieve(queries, texts, owner), full(queries, texts), owner)
    indifferent = retrieve(
        queries, texts, owner, reranker=lambda clips, texts: torch.ones(len(clips)), temperature=0.1, top=60
    )
    assert_equals_naive(indifferent, full(queries, texts), owner)


def test_perfect_model() -> None:
    queries = torch.eye(6)[:, None]
    found = retrieve(queries, torch.eye(6).repeat(2, 1), torch.arange(12) % 6)
    for ranks in (found.text_to_audio, found.audio_to_text):
        assert ranks.recall(1).mean() == 1
        assert ranks.average_precision(10).mean() == 1


def test_constant_scores_find_nothing() -> None:
    queries, texts = unit(1, 1, 32).repeat(50, 4, 1), unit(1, 32, seed=1).repeat(100, 1)
    for reranker in (None, lambda clips, texts: torch.zeros(len(clips))):
        found = retrieve(queries, texts, torch.arange(100) % 50, reranker=reranker, temperature=0.1, top=12)
        for ranks in (found.text_to_audio, found.audio_to_text):
            assert ranks.recall(10).sum() == 0
            assert ranks.average_precision(10).sum() == 0


def test_what_ties_at_the_cut_is_not_re_ranked() -> None:
    queries, texts = unit(1, 1, 32).repeat(50, 4, 1), unit(1, 32, seed=1).repeat(50, 1)
    found = retrieve(
        queries, texts, torch.arange(50), reranker=lambda clips, texts: 1.0 * (clips == texts), temperature=0.1, top=12
    )
    assert found.text_to_audio.recall(10).sum() == 0
    assert found.audio_to_text.recall(10).sum() == 0


def test_memory_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CELLS", 300)
    seen: list[int] = []
    original = module._ranks

    def spy(own: Tensor, wrong: Tensor, most: int) -> Tensor:
        seen.append(wrong.numel())
        return original(own, wrong, most)

    monkeypatch.setattr(module, "_ranks", spy)
    retrieve(unit(100, 2, 4), unit(100, 4, seed=1), torch.arange(100))
    assert len(seen) > 2
    assert max(seen) <= 300


@pytest.mark.parametrize("cells", [90, 10**9])
def test_reranking_orders_the_first_items_by_match_and_similarity(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CELLS", cells)
    queries, texts = unit(30, 2, 6), unit(45, 6, seed=1)
    owner = torch.arange(45) % 30
    match = torch.randn(30, 45, generator=torch.Generator().manual_seed(2))
    scores, top = full(queries, texts), 12
    found = retrieve(
        queries, texts, owner, reranker=lambda clips, texts: match[clips, texts], temperature=0.07, top=top
    )
    assert found.text_to_audio.reranked == found.audio_to_text.reranked == top
    right = np.arange(30)[:, None] == owner.numpy()[None]
    for ranks, first, second, good in (
        (found.text_to_audio, scores.T, match.T.double().numpy(), right.T),
        (found.audio_to_text, scores, match.double().numpy(), right),
    ):
        cut = np.sort(first, axis=1)[:, -top]
        final = np.where(first >= cut[:, None], first / 0.07 + second, -1000 + first)
        for k in (1, 5, 10):
            actual = (float(ranks.recall(k).mean()), float(ranks.average_precision(k).mean()))
            assert actual == pytest.approx(naive(final, good, k), abs=1e-12)


def test_a_perfect_reranker_mends_what_it_sees() -> None:
    queries, texts, owner = unit(20, 2, 6), unit(20, 6, seed=1), torch.arange(20)
    found = retrieve(
        queries, texts, owner, reranker=lambda clips, texts: 100.0 * (clips == texts), temperature=0.1, top=20
    )
    assert found.text_to_audio.recall(1).mean() == 1
    assert found.audio_to_text.average_precision(10).mean() == 1


@pytest.mark.parametrize("owner", [[0, 1, 2, 3], [0, 0, 1, 3], [1, 1, 1, 1]])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_chance_is_the_average_over_all_orders(owner: list[int], k: int) -> None:
    found = retrieve(unit(4, 1, 3), unit(4, 3, seed=1), torch.tensor(owner))
    right = np.arange(4)[:, None] == np.array(owner)[None]
    orders = [np.array(order, dtype=float) for order in permutations(range(4))]
    for ranks, good in ((found.text_to_audio, right.T), (found.audio_to_text, right[right.any(axis=1)])):
        figures = [naive(np.tile(order, (len(good), 1)), good, k) for order in orders]
        assert ranks.chance_recall(k) == pytest.approx(np.mean([figure[0] for figure in figures]))
        assert ranks.chance_average_precision(k) == pytest.approx(np.mean([figure[1] for figure in figures]))


def test_values_are_grouped_by_clip() -> None:
    found = retrieve(unit(5, 1, 3), unit(4, 3, seed=1), torch.tensor([4, 1, 4, 3]))
    sums, counts = found.text_to_audio.per_clip(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert (sums.tolist(), counts.tolist()) == ([2.0, 4.0, 4.0], [1, 1, 2])


@pytest.mark.parametrize(
    ("clips", "owner", "words"),
    [
        (0, [0, 0], "0 clips and 2 captions"),
        (2, [0], r"owners of shape \(1,\)"),
        (2, [0, 2], "from 0 to 2"),
        (2, [-1, 0], "from -1 to 0"),
    ],
)
def test_mistakes_are_named(clips: int, owner: list[int], words: str) -> None:
    with pytest.raises(MintError, match=words):
        retrieve(unit(clips, 1, 3), unit(2, 3), torch.tensor(owner))


def test_bad_reranking_is_refused() -> None:
    with pytest.raises(MintError, match="top is 5"):
        retrieve(unit(2, 1, 3), unit(2, 3), torch.tensor([0, 1]), top=5)
    with pytest.raises(MintError, match="re-ranker gave NaN"):
        retrieve(
            unit(2, 1, 3),
            unit(2, 3),
            torch.tensor([0, 1]),
            reranker=lambda clips, texts: torch.full((len(clips),), torch.nan),
            temperature=0.1,
        )
    for temperature in (None, 0.0, -1.0):
        with pytest.raises(MintError, match=f"temperature is {temperature}"):
            retrieve(
                unit(2, 1, 3),
                unit(2, 3),
                torch.tensor([0, 1]),
                reranker=lambda clips, texts: torch.zeros(len(clips)),
                temperature=temperature,
            )
