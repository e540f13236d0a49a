"""Similarity ranking against the definition."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from mint.evaluation.metrics import similarity as module
from mint.evaluation.metrics.similarity import ensemble, similarity
from mint.types import MintError


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize("cells", [1, 50, 10**9])
def test_similarity_is_the_best_query(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CELLS", cells)
    queries, texts = unit(9, 4, 8), unit(5, 8, seed=1)
    expected = torch.stack([torch.stack([(clip @ text).max() for text in texts]) for clip in queries])
    torch.testing.assert_close(similarity(queries, texts), expected)


def test_no_clips_give_no_scores() -> None:
    assert similarity(torch.zeros(0, 4, 8), unit(5, 8)).shape == (0, 5)


def test_half_precision_is_compared_in_single() -> None:
    queries, texts = unit(3, 2, 8), unit(4, 8, seed=1)
    found = similarity(queries.bfloat16(), texts.bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, similarity(queries.bfloat16().float(), texts.bfloat16().float()))


def test_ensemble_is_the_normalised_mean_of_each_class() -> None:
    texts, owner = unit(5, 8), torch.tensor([2, 0, 2, 1, 2])
    expected = torch.stack([texts[1], texts[3], normalize(texts[[0, 2, 4]].mean(0), dim=-1)])
    torch.testing.assert_close(ensemble(texts, owner, 3), expected)


@pytest.mark.parametrize(
    ("queries", "texts", "words"),
    [
        (unit(3, 8), unit(4, 8), r"shape \(3, 8\)"),
        (unit(3, 2, 8), unit(4, 9), "of one width"),
        (torch.full((3, 2, 8), torch.nan), unit(4, 8), "query embeddings hold NaN"),
        (unit(3, 2, 8), torch.full((4, 8), torch.inf), "text embeddings hold NaN or infinite"),
    ],
)
def test_bad_embeddings_are_named(queries: torch.Tensor, texts: torch.Tensor, words: str) -> None:
    with pytest.raises(MintError, match=words):
        similarity(queries, texts)


@pytest.mark.parametrize(
    ("owner", "words"),
    [
        ([0, 0], "class 1 has no text"),
        ([0, 3], "0 to 3"),
        ([-1, 0], "-1 to 0"),
        ([0], "2 text embeddings but 1 owners"),
    ],
)
def test_bad_owners_are_named(owner: list[int], words: str) -> None:
    with pytest.raises(MintError, match=words):
        ensemble(unit(2, 8), torch.tensor(owner), 3)
