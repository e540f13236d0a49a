"""Greedy search against transformers' `generate`: the same tokens, and nothing computed for rows that have ended."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mint.language.causal import CausalLanguageModel
from mint.language.greedy import continue_greedily, is_plain
from tiny_languages import FAMILIES, tiny_language

PROMPTS = ["This is", "", "A dog barks in", "It is raining and"]


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_transformers(family: str) -> None:
    language = tiny_language(family)
    embedded, mask = beginnings(language)
    first = search(language, embedded, mask, [], 12)

    # Tokens that some rows come to early are made the ends, so that rows leave the batch one after the other.
    ends = [first[0][2], first[2][5]]
    expected = language.model.generate(
        inputs_embeds=embedded,
        attention_mask=mask.long(),
        eos_token_id=ends,
        pad_token_id=language.pad,
        max_new_tokens=12,
        do_sample=False,
    )

    rows = search(language, embedded, mask, ends, 12)
    assert len({len(row) for row in rows}) > 1
    for row, padded in zip(rows, expected.tolist(), strict=True):
        assert row == padded[: len(row)]
        assert len(row) == 12 or row[-1] in ends


def test_rows_that_have_ended_are_not_computed() -> None:
    language = tiny_language()
    embedded, mask = beginnings(language)
    first = search(language, embedded, mask, [], 6)
    ends = [first[0][1]]
    computed: list[int] = []

    def count(module: Any, inputs: Any, output: Any) -> None:
        computed.append(len(output.last_hidden_state))

    handle = language.decoder.register_forward_hook(count)
    rows = search(language, embedded, mask, ends, 6)
    handle.remove()

    # A token needs one pass; the last one of a row is not read.
    assert sum(computed) == sum(map(len, rows))
    assert computed[0] == len(PROMPTS) > computed[-1]


@pytest.mark.parametrize(
    ("options", "own", "expected"),
    [
        ({"do_sample": False, "max_new_tokens": 5}, {}, True),
        ({"do_sample": False, "max_new_tokens": 5}, {"temperature": 0.6, "eos_token_id": 3}, True),
        ({"do_sample": False, "max_new_tokens": 5}, {"repetition_penalty": 1.1}, False),
        ({"do_sample": False, "max_length": 5}, {}, False),
        ({"do_sample": True, "max_new_tokens": 5}, {}, False),
        ({"do_sample": False, "max_new_tokens": 5, "num_beams": 2}, {}, False),
    ],
)
def test_whatever_has_a_rule_on_top_is_left_to_transformers(
    options: dict[str, Any], own: dict[str, Any], expected: bool
) -> None:
    assert is_plain(options, own) is expected


def beginnings(language: CausalLanguageModel) -> tuple[Tensor, Tensor]:
    """Return rows of random soft prompts and prompts of different lengths, and their mask."""
    soft_prompt = torch.randn(len(PROMPTS), 3, language.width, generator=torch.Generator().manual_seed(0))
    return language._embed_prefix(soft_prompt, PROMPTS)


def search(
    language: CausalLanguageModel, embedded: Tensor, mask: Tensor, ends: list[int], max_tokens: int
) -> list[list[int]]:
    """Return what the search finds with a language model's parts."""
    return continue_greedily(language.decoder, language.head, embedded, mask, ends, max_tokens)
