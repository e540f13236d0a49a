"""The causal adapter against transformers itself: one row, one candidate, one token at a time."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig

from mint.builders.language import build_language
from mint.config import LanguageConfig
from mint.language import causal
from mint.language.candidates import grow_trees
from mint.language.causal import IGNORED, CausalLanguageModel
from mint.types import MintError
from tiny_languages import FAMILIES, SENTENCES, byte_tokenizer, piece_tokenizer, tiny_language

PROMPTS = ["This is a sound of", "", "Identify the instruments in this segment of music:"]
CANDIDATES = [
    "dog",
    "dog barking",
    "dog barking in the rain",
    "dogs",
    "rock",
    "rock",
    "drum and bass",
    "bass",
    "bass guitar",
    "r",
    "",
]
"""Shared beginnings, one the beginning of another, a duplicate, a single token, and the end alone."""

close = partial(torch.testing.assert_close, atol=1e-4, rtol=0.0)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> CausalLanguageModel:
    """A tiny model of each family."""
    return tiny_language(request.param)


def soft_prompts(language: CausalLanguageModel, rows: int, queries: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(rows, queries, language.width, generator=torch.Generator().manual_seed(seed))


def words(count: int) -> list[str]:
    """Random candidates from few words, so that many share beginnings."""
    generator = torch.Generator().manual_seed(1)
    vocabulary = " ".join(SENTENCES).split()[:9]
    picks = torch.randint(0, len(vocabulary), (count, 4), generator=generator)
    lengths = torch.randint(1, 5, (count,), generator=generator)
    return [" ".join(vocabulary[i] for i in row[:n]) for row, n in zip(picks.tolist(), lengths.tolist(), strict=True)]


@torch.no_grad()
def plain_scores(language: CausalLanguageModel, soft: Tensor, prompts: list[str], candidates: list[str]) -> Tensor:
    """Each candidate by itself as a full sequence; the sum of its tokens' log-softmax."""
    model, embed = language.model, language.model.get_input_embeddings()
    scores = torch.zeros(len(prompts), len(candidates))
    for row, prompt in enumerate(prompts):
        before = language.tokenizer(prompt)["input_ids"]
        for column, candidate in enumerate(candidates):
            after = [*language.tokenizer(" " + candidate)["input_ids"], language.tokenizer.eos_token_id]
            embedded = torch.cat([soft[row].to(embed.weight.dtype), embed(torch.tensor(before + after).long())])[None]
            logits = model(inputs_embeds=embedded).logits[0].float().log_softmax(dim=-1)
            start = soft.shape[1] + len(before) - 1
            scores[row, column] = sum(logits[start + i, token] for i, token in enumerate(after))
    return scores


def test_rows_hold_prompt_answer_and_end(language: CausalLanguageModel) -> None:
    tokens, end, pad = language.tokenizer, language.tokenizer.eos_token_id, language.tokenizer.pad_token_id
    rows = language.collate(["This is a sound of", ""], ["dog", "rock"])
    prompt, dog, rock = (tokens(text)["input_ids"] for text in ("This is a sound of", " dog", " rock"))
    missing = len(prompt) + len(dog) - len(rock)
    assert rows["prompt_ids"].tolist() == [[*prompt, *dog, end], [*rock, end] + [pad] * missing]
    assert rows["labels"].tolist() == [[IGNORED] * len(prompt) + [*dog, end], [*rock, end] + [IGNORED] * missing]
    assert rows["prompt_mask"].sum(dim=1).tolist() == [len(prompt) + len(dog) + 1, len(rock) + 1]
    assert rows["prompt_mask"].dtype == torch.bool
    assert tokens.decode([*prompt, *dog]) == "This is a sound of dog"


@pytest.mark.parametrize("tokenizer", [byte_tokenizer, piece_tokenizer])
def test_one_space_lies_between_prompt_and_answer(tokenizer: Any) -> None:
    language = tiny_language(tokenizer=tokenizer())
    ids = language.collate(["the sound of"], ["a dog"])["prompt_ids"][0, :-1]
    assert language.tokenizer.decode(ids) == "the sound of a dog"
    assert ids.tolist() == language.tokenizer("the sound of a dog")["input_ids"]


def test_loss_and_gradient_equal_transformers_own(family: CausalLanguageModel) -> None:
    rows = family.collate(PROMPTS, ["dog barking", "rock", "guitar, bass guitar"])
    soft = soft_prompts(family, 3).requires_grad_()
    loss = family.loss(soft, **rows)
    embedded = torch.cat([soft, family.model.get_input_embeddings()(rows["prompt_ids"])], dim=1)
    theirs = family.model(
        inputs_embeds=embedded,
        attention_mask=torch.cat([torch.ones(3, 3), rows["prompt_mask"]], dim=1).long(),
        labels=torch.cat([torch.full((3, 3), IGNORED), rows["labels"]], dim=1),
    ).loss
    torch.testing.assert_close(loss, theirs, atol=1e-5, rtol=0.0)
    ours, expected = (torch.autograd.grad(value, soft)[0] for value in (loss, theirs))
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("name", sorted(set(causal.MODELS) - set(FAMILIES)))
def test_every_other_family_that_is_read_scores_as_transformers_does(name: str) -> None:
    language = tiny_language(name)
    soft = soft_prompts(language, 3)
    sums, counts = language.score(soft, PROMPTS, CANDIDATES)
    close(sums, plain_scores(language, soft, PROMPTS, CANDIDATES))
    assert sums.std() > 1
    answers = CANDIDATES[2:5]  # of several lengths, so that texts share rows
    sums, counts = language.score(soft, PROMPTS, answers)
    close(language.loss(soft, **language.collate(PROMPTS, answers)), -sums.diagonal().sum() / counts.sum())


@pytest.mark.parametrize("name", ["gemma2", "granite", "cohere", "bloom", "mamba", "mpt", "gpt_neo", "bert"])
def test_families_that_would_be_computed_wrongly_are_refused(name: str, tmp_path: Path) -> None:
    """Logits that are scaled or capped, positions or windows that no mask of ours knows, and what is not causal."""
    AutoConfig.for_model(name).save_pretrained(tmp_path)
    with pytest.raises(MintError, match=rf"^language\.family causal cannot read '{name}'; it reads llama, mistral, "):
        build_language(LanguageConfig(family="causal", weights=str(tmp_path)))


def test_loss_is_that_of_the_scores(family: CausalLanguageModel) -> None:
    answers = ["dog barking", "rock", "guitar, bass guitar"]
    soft = soft_prompts(family, 3)
    sums, counts = family.score(soft, PROMPTS, answers)
    close(family.loss(soft, **family.collate(PROMPTS, answers)), -sums.diagonal().sum() / counts.sum())


def test_scores_equal_one_candidate_at_a_time(family: CausalLanguageModel) -> None:
    soft = soft_prompts(family, 3)
    sums, counts = family.score(soft, PROMPTS, CANDIDATES)
    expected = plain_scores(family, soft, PROMPTS, CANDIDATES)
    close(sums, expected)
    assert counts.tolist() == [len(family.tokenizer(" " + candidate)["input_ids"]) + 1 for candidate in CANDIDATES]
    assert torch.equal(sums[:, 4], sums[:, 5])
    distinct = [column for column in range(len(CANDIDATES)) if column != 5]
    assert torch.equal(sums[:, distinct].argsort(dim=1), expected[:, distinct].argsort(dim=1))
    assert sums.std() > 1


@pytest.mark.parametrize("max_nodes", [pytest.param(1, marks=pytest.mark.slow), 7, 40, 512])
def test_hundreds_of_candidates_in_trees_of_any_size(
    language: CausalLanguageModel, monkeypatch: pytest.MonkeyPatch, max_nodes: int
) -> None:
    candidates = list(dict.fromkeys(words(300)))
    assert len(candidates) > 150
    soft = soft_prompts(language, 2)
    monkeypatch.setattr(causal, "grow_trees", partial(grow_trees, max_nodes=max_nodes))
    sums, _ = language.score(soft, PROMPTS[:2], candidates)
    expected = plain_scores(language, soft, PROMPTS[:2], candidates)
    close(sums, expected)
    assert torch.equal(sums.argsort(dim=1), expected.argsort(dim=1))


def test_logits_may_be_computed_a_few_rows_at_a_time(
    family: CausalLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft = soft_prompts(family, 3)
    whole, _ = family.score(soft, PROMPTS, CANDIDATES)
    monkeypatch.setattr(causal, "LOGITS_AT_ONCE", 1)
    close(family.score(soft, PROMPTS, CANDIDATES)[0], whole)


def test_scores_do_not_depend_on_who_else_is_in_the_batch(family: CausalLanguageModel) -> None:
    soft = soft_prompts(family, 3)
    together, _ = family.score(soft, PROMPTS, CANDIDATES)
    order = [7, 3, 0, 10, 5, 1, 9, 2, 8, 6, 4]
    shuffled, _ = family.score(soft, PROMPTS, [CANDIDATES[column] for column in order])
    close(shuffled, together[:, order])
    for row in range(3):
        close(family.score(soft[row : row + 1], PROMPTS[row : row + 1], CANDIDATES)[0][0], together[row])
    for column, candidate in enumerate(CANDIDATES):
        close(family.score(soft, PROMPTS, [candidate])[0][:, 0], together[:, column])


def test_scores_do_not_depend_on_the_attention_implementation() -> None:
    language = tiny_language("llama")
    soft = soft_prompts(language, 3)
    expected, _ = language.score(soft, PROMPTS, CANDIDATES)
    language.model.set_attn_implementation("eager")
    close(language.score(soft, PROMPTS, CANDIDATES)[0], expected)


def test_scores_of_a_bfloat16_model() -> None:
    language = tiny_language("llama")
    language.model.bfloat16()
    soft = soft_prompts(language, 3)
    sums, _ = language.score(soft, PROMPTS, CANDIDATES)
    assert sums.dtype == torch.float32
    torch.testing.assert_close(sums, plain_scores(language, soft, PROMPTS, CANDIDATES), atol=0.5, rtol=0.02)


def test_no_candidates_give_no_scores(language: CausalLanguageModel) -> None:
    sums, counts = language.score(soft_prompts(language, 2), PROMPTS[:2], [])
    assert sums.shape == (2, 0)
    assert counts.shape == (0,)


@torch.no_grad()
def plain_greedy(language: CausalLanguageModel, soft: Tensor, prompt: str, length: int) -> list[int]:
    """The likeliest token, one after the other, over the full sequence each time."""
    embed, tokens = language.model.get_input_embeddings(), list[int]()
    before = language.tokenizer(prompt)["input_ids"]
    while len(tokens) < length and language.end not in tokens:
        embedded = torch.cat([soft, embed(torch.tensor(before + tokens).long())])[None]
        tokens.append(int(language.model(inputs_embeds=embedded).logits[0, -1].argmax()))
    return tokens


def generated_tokens(
    language: CausalLanguageModel, soft: Tensor, prompts: list[str], **options: Any
) -> list[list[int]]:
    """What `generate` produces before it becomes text, each row up to its end."""
    rows: list[list[int]] = []

    def keep(produced: Tensor | list[list[int]], **_: Any) -> list[str]:
        rows.extend(map(list, produced) if isinstance(produced, list) else produced.tolist())
        return [""] * len(produced)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(language.tokenizer, "batch_decode", keep)
        language.generate(soft, prompts, **options)
    return [row[: row.index(language.end) + 1] if language.end in row else row for row in rows]


def test_generation_is_greedy_and_each_row_stops_by_itself(family: CausalLanguageModel) -> None:
    soft = soft_prompts(family, 3)
    sequences = [plain_greedy(family, part, prompt, 8) for part, prompt in zip(soft, PROMPTS, strict=True)]
    language = CausalLanguageModel(family.model, family.tokenizer, "test")
    # A token that one row comes to is made the end.
    language.end = next(token for token in sequences[0][1:] if token not in sequences[1] or token not in sequences[2])
    expected = [plain_greedy(language, part, prompt, 8) for part, prompt in zip(soft, PROMPTS, strict=True)]
    assert len({len(row) for row in expected}) > 1
    assert generated_tokens(language, soft, PROMPTS, max_new_tokens=8) == expected


def test_generated_text_is_clean(language: CausalLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken = [*language.tokenizer(" a dog")["input_ids"], language.end]
    monkeypatch.setattr(causal, "continue_greedily", lambda *_: [spoken])
    assert language.generate(soft_prompts(language, 1), ["What is this?"]) == ["a dog"]
    padded = torch.tensor([[*spoken, language.pad, language.pad]])
    monkeypatch.setattr(language.model, "generate", lambda **_: padded)
    assert language.generate(soft_prompts(language, 1), ["What is this?"], num_beams=2) == ["a dog"]


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_beams": 2, "length_penalty": 2.0}])
def test_generation_in_a_batch_equals_one_by_one(family: CausalLanguageModel, options: dict[str, Any]) -> None:
    soft = soft_prompts(family, 3)
    together = family.generate(soft, PROMPTS, max_new_tokens=10, **options)
    alone = [
        family.generate(soft[row : row + 1], [prompt], max_new_tokens=10, **options)[0]
        for row, prompt in enumerate(PROMPTS)
    ]
    assert together == alone
    assert len(set(together)) > 1


@torch.no_grad()
def test_exhaustive_beams_find_the_likeliest_answer_of_two_tokens(family: CausalLanguageModel) -> None:
    soft, embed, vocabulary = soft_prompts(family, 1), family.model.get_input_embeddings(), len(family.tokenizer)
    first = family.model(inputs_embeds=soft).logits[0, -1].log_softmax(dim=-1)
    followed = torch.cat([soft.expand(vocabulary, -1, -1), embed(torch.arange(vocabulary))[:, None]], dim=1)
    second = family.model(inputs_embeds=followed).logits[:, -1].log_softmax(dim=-1)
    both = first[:, None] + second
    both[family.end] = -torch.inf
    best = list(divmod(int(both.argmax()), vocabulary)) if both.max() > first[family.end] else [family.end]
    options = {"max_new_tokens": 2, "num_beams": vocabulary, "length_penalty": 0.0}
    assert generated_tokens(family, soft, [""], **options) == [best]


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_rows_beyond_the_last_position_are_refused(family: str) -> None:
    """On the CPU they would be an IndexError, on a GPU an assertion after which nothing computes any more."""
    language = tiny_language(family)
    soft_prompt = torch.zeros(1, 4, language.width)
    longest = "€" * 252  # a token of its own each, beside the soft prompt
    while len(language.prompt_tokens(longest)) > 252:
        longest = longest[:-1]
    rest = 256 - 4 - len(language.prompt_tokens(longest))
    longest += "z" * rest
    assert len(language.prompt_tokens(longest)) == 252

    # The last token of an answer is predicted, not read: an answer of one token and the end needs one position more.
    assert len(language.generate(soft_prompt, [longest], max_new_tokens=1)) == 1
    with pytest.raises(MintError, match="need 257 tokens, and the language model has 256 positions; give a shorter"):
        language.generate(soft_prompt, [longest + "z"])
    answer = language.answer_tokens("z")
    shorter = longest[: len(longest) - len(answer) + 1]
    assert language.score(soft_prompt, [shorter], ["z"])[0].isfinite().all()
    with pytest.raises(MintError, match=r"need \d+ tokens, and the language model has 256 positions"):
        language.score(soft_prompt, [longest], ["z" * 9])


def test_models_that_rotate_their_positions_take_any_length() -> None:
    assert tiny_language("llama").positions is None
