"""The soft prompt as the answer of an earlier turn: every use of the model reads that sequence, as transformers'."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mint.builders.language import build_language
from mint.config import LanguageConfig, recipe_from_dict
from mint.language.causal import IGNORED, CausalLanguageModel
from mint.types import MintError
from tiny_languages import FAMILIES, tiny_language

PROMPTS = ["This is a sound of", "", "Identify the instruments in this segment of music:"]
ANSWERS = ["dog barking", "rock", "guitar, bass guitar"]


@pytest.fixture(params=FAMILIES)
def language(request: pytest.FixtureRequest) -> CausalLanguageModel:
    plain = tiny_language(request.param)
    return CausalLanguageModel(plain.model, plain.tokenizer, identity="tiny", earlier_turn=True)


def soft_prompts(language: CausalLanguageModel) -> Tensor:
    return torch.randn(len(PROMPTS), 4, language.width, generator=torch.Generator().manual_seed(0))


def whole_row(language: CausalLanguageModel, soft: Tensor, prompt: str, answer: str) -> tuple[Tensor, list[int]]:
    """[prompt; soft prompt; end; prompt; answer; end] embedded [1, K, D], and the tokens that the answer has."""
    tokens, embed = language.tokenizer, language.model.get_input_embeddings()
    asked = tokens(prompt)["input_ids"]
    after = [*tokens(" " + answer)["input_ids"], tokens.eos_token_id]

    def embedded(ids: list[int]) -> Tensor:
        return embed(torch.tensor(ids, dtype=torch.long))

    return torch.cat([embedded(asked), soft, embedded([tokens.eos_token_id, *asked, *after])])[None], after


def test_loss_and_gradient_equal_transformers_own(language: CausalLanguageModel) -> None:
    soft = soft_prompts(language).requires_grad_()
    loss = language.loss(soft, **language.collate(PROMPTS, ANSWERS))
    total, count = torch.zeros(()), 0
    for row, prompt, answer in zip(soft, PROMPTS, ANSWERS, strict=True):
        embedded, after = whole_row(language, row, prompt, answer)
        labels = torch.full(embedded.shape[:2], IGNORED)
        labels[0, -len(after) :] = torch.tensor(after)
        total = total + language.model(inputs_embeds=embedded, labels=labels).loss * len(after)
        count += len(after)
    torch.testing.assert_close(loss, total / count, atol=1e-5, rtol=0.0)

    ours, expected = (torch.autograd.grad(value, soft)[0] for value in (loss, total / count))
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0.0)


@torch.no_grad()
def test_ranking_equals_one_candidate_at_a_time(language: CausalLanguageModel) -> None:
    soft = soft_prompts(language)
    sums, _ = language.score(soft, PROMPTS, ANSWERS)
    expected = torch.zeros(len(PROMPTS), len(ANSWERS))
    for row, prompt in enumerate(PROMPTS):
        for column, answer in enumerate(ANSWERS):
            embedded, after = whole_row(language, soft[row], prompt, answer)
            logits = language.model(inputs_embeds=embedded).logits[0].log_softmax(dim=-1)
            start = embedded.shape[1] - len(after) - 1
            expected[row, column] = logits[range(start, start + len(after)), after].sum()
    torch.testing.assert_close(sums, expected, atol=1e-4, rtol=0.0)


@torch.no_grad()
def test_texts_are_those_of_transformers(language: CausalLanguageModel) -> None:
    soft = soft_prompts(language)
    ours = language.generate(soft, PROMPTS, max_new_tokens=6)
    for text, row, prompt in zip(ours, soft, PROMPTS, strict=True):
        embedded, after = whole_row(language, row, prompt, "")
        produced = language.model.generate(
            inputs_embeds=embedded[:, : -len(after)], max_new_tokens=6, do_sample=False, pad_token_id=language.pad
        )
        assert text == language.tokenizer.decode(produced[0], skip_special_tokens=True).strip()


def test_is_refused_where_it_cannot_be() -> None:
    for language, message in (
        ({"family": "seq2seq", "earlier_turn": True}, "language.earlier_turn is true, but seq2seq models"),
        (
            {"chat_template": True, "earlier_turn": True},
            "earlier_turn and language.chat_template are both true",
        ),
    ):
        with pytest.raises(MintError, match=message):
            recipe_from_dict({"name": "x", "stage": 2, "language": language})


def test_a_recipe_switches_it_on() -> None:
    built = build_language(LanguageConfig(family="tiny", earlier_turn=True))
    assert isinstance(built, CausalLanguageModel)
    assert built.earlier_turn
