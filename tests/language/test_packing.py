"""Packed rows: every token stands in one place, sees its own text alone, and less is computed than with padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from mint.language.packing import group_texts, pack_rows
from tiny_languages import FAMILIES, tiny_language

LENGTHS = some.lists(some.integers(1, 40), min_size=1, max_size=24)


def padded(lengths: list[int]) -> torch.Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


@settings(deadline=None)
@given(LENGTHS)
def test_every_token_stands_once_and_sees_its_own_text_up_to_itself(lengths: list[int]) -> None:
    mask = padded(lengths)
    packing = pack_rows(mask)
    tokens = 1 + torch.arange(mask.numel()).view(mask.shape)
    packed = packing.pack(tokens[..., None])[..., 0]
    assert torch.equal(packed.flatten()[packing.target[mask]], tokens[mask])
    assert int((packing.owners >= 0).sum()) == sum(lengths)
    real = packing.owners >= 0
    assert torch.equal(packing.positions[real], (packed[real] - 1) % mask.shape[1])
    seen = packing.attention_mask(torch.float32)[:, 0] == 0
    owner = packing.owners
    for row in range(len(owner)):
        for place in range(owner.shape[1]):
            own = [other for other in range(place + 1) if owner[row, other] == owner[row, place]]
            assert seen[row, place].nonzero()[:, 0].tolist() == own


@settings(deadline=None)
@given(LENGTHS)
def test_there_are_never_more_places_than_with_padding(lengths: list[int]) -> None:
    rows = group_texts(lengths)
    assert sorted(text for row in rows for text in row) == list(range(len(lengths)))
    width = max(sum(lengths[text] for text in row) for row in rows)
    assert len(rows) * width <= len(lengths) * max(lengths)
    assert width <= 2 * max(lengths)


def test_long_and_short_texts_group_texts() -> None:
    rows = group_texts([30, 10, 30, 10, 30, 10, 20, 20])
    assert sorted(sorted((30, 10, 30, 10, 30, 10, 20, 20)[text] for text in row) for row in rows) == [
        *([[10, 30]] * 3),
        [20, 20],
    ]
    assert group_texts([7, 7, 7]) == [[0], [1], [2]]


@pytest.mark.parametrize("family", FAMILIES)
def test_who_shares_a_row_changes_neither_loss_nor_gradient(family: str) -> None:
    language: Any = tiny_language(family)
    prompts = ["This is", "Generate audio caption:", "The genre is", "Identify the instruments:", "It"]
    answers = ["rain", "a cat sings and a bird answers in the rain", "rock", "guitar, piano", "a dog"]
    soft = torch.randn(5, 3, language.width, generator=torch.Generator().manual_seed(0)).requires_grad_()
    batch = language.collate(prompts, answers)
    assert len(group_texts((3 + batch["prompt_mask"].sum(1)).tolist())) < 5
    together = language.loss(soft, **batch)
    counts = (batch["labels"] != -100).sum(dim=1)
    alone = torch.stack(
        [
            language.loss(soft[[row]], **language.collate([prompt], [answer]))
            for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
        ]
    )
    expected = (alone * counts).sum() / counts.sum()
    torch.testing.assert_close(together, expected, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad(loss, soft)[0] for loss in (together, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
