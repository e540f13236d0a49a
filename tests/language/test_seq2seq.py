"""The adapter of the T5 family against transformers itself: one row and one candidate at a time."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mint.builders.language import build_language
from mint.config import LanguageConfig, recipe_from_dict
from mint.language import seq2seq
from mint.language.seq2seq import IGNORED, Seq2SeqLanguageModel, pack_candidates
from mint.model.freeze import fingerprint
from mint.types import MintError
from tiny_languages import SENTENCES, tiny_language, tiny_seq2seq

PROMPTS = ["This is a sound of", "", "Identify the instruments in this segment of music:"]
CANDIDATES = ["dog", "dog barking", "dog barking in the rain", "rock", "rock", "bass guitar", "r", ""]
ANSWERS = ["dog barking", "rock", "guitar, bass guitar"]

close = partial(torch.testing.assert_close, atol=1e-4, rtol=1e-5)  # sums of log-probabilities reach -50


@pytest.fixture(scope="module", params=["t5", "flan", "mt5"])
def language(request: pytest.FixtureRequest) -> Seq2SeqLanguageModel:
    return tiny_seq2seq(request.param)


def soft_prompts(language: Seq2SeqLanguageModel, rows: int, queries: int = 3) -> Tensor:
    return torch.randn(rows, queries, language.width, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def plain_scores(language: Seq2SeqLanguageModel, soft: Tensor, prompts: list[str], candidates: list[str]) -> Tensor:
    """Each candidate by itself through the whole model; the sum of its tokens' log-softmax."""
    scores = torch.zeros(len(prompts), len(candidates))
    embed, end = language.model.get_input_embeddings(), language.tokenizer.eos_token_id
    for row, prompt in enumerate(prompts):
        before = torch.tensor([*language.tokenizer(prompt)["input_ids"], end])
        embedded = torch.cat([soft[row].to(embed.weight.dtype), embed(before)])[None]
        for column, candidate in enumerate(candidates):
            labels = torch.tensor([[*language.tokenizer(candidate)["input_ids"], end]])
            logits = language.model(inputs_embeds=embedded, labels=labels).logits[0].float().log_softmax(dim=-1)
            scores[row, column] = logits[torch.arange(labels.shape[1]), labels[0]].sum()
    return scores


def test_prompt_and_answer_end_each_on_their_own(language: Seq2SeqLanguageModel) -> None:
    rows = language.collate(["This is a sound of", "a"], ["dog", "a dog barking"])
    end = language.tokenizer.eos_token_id
    for row, (prompt, answer) in enumerate([("This is a sound of", "dog"), ("a", "a dog barking")]):
        assert rows["prompt_ids"][row][rows["prompt_mask"][row]].tolist() == [
            *language.tokenizer(prompt).input_ids,
            end,
        ]
        assert rows["labels"][row][rows["labels"][row] != IGNORED].tolist() == [
            *language.tokenizer(answer).input_ids,
            end,
        ]
    assert not rows["prompt_mask"].all()
    assert (rows["labels"] == IGNORED).any()


def test_loss_and_gradient_equal_transformers_own(language: Seq2SeqLanguageModel) -> None:
    rows = language.collate(PROMPTS, ANSWERS)
    soft = soft_prompts(language, 3).requires_grad_()
    loss = language.loss(soft, **rows)
    embedded = torch.cat([soft, language.model.get_input_embeddings()(rows["prompt_ids"])], dim=1)
    mask = torch.cat([torch.ones(3, 3), rows["prompt_mask"]], dim=1).long()
    theirs = language.model(inputs_embeds=embedded, attention_mask=mask, labels=rows["labels"]).loss
    torch.testing.assert_close(loss, theirs, atol=1e-5, rtol=0.0)
    ours, expected = (torch.autograd.grad(value, soft)[0] for value in (loss, theirs))
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0.0)


def test_the_model_is_frozen_and_its_dropout_off(language: Seq2SeqLanguageModel) -> None:
    before, soft = fingerprint(language.model), soft_prompts(language, 3).requires_grad_()
    rows = language.collate(PROMPTS, ANSWERS)
    language.model.train()
    first = language.loss(soft, **rows)
    first.backward()
    assert torch.equal(first, language.loss(soft, **rows))
    assert fingerprint(language.model) == before
    assert all(parameter.grad is None for parameter in language.model.parameters())


def test_scores_equal_one_candidate_at_a_time(language: Seq2SeqLanguageModel) -> None:
    soft = soft_prompts(language, 3)
    sums, counts = language.score(soft, PROMPTS, CANDIDATES)
    expected = plain_scores(language, soft, PROMPTS, CANDIDATES)
    close(sums, expected)
    assert counts.tolist() == [len(language.tokenizer(candidate)["input_ids"]) + 1 for candidate in CANDIDATES]
    assert expected.std() > 1
    close(language.loss(soft, **language.collate(PROMPTS, ANSWERS)), _mean_of_answers(language, soft))


def _mean_of_answers(language: Seq2SeqLanguageModel, soft: Tensor) -> Tensor:
    sums, counts = language.score(soft, PROMPTS, ANSWERS)
    return -sums.diagonal().sum() / counts.sum()


@pytest.mark.parametrize(("tokens", "logits"), [(1, 1 << 26), (40, 1000)])
def test_memory_may_be_bounded_at_any_size(monkeypatch: pytest.MonkeyPatch, tokens: int, logits: int) -> None:
    language = tiny_seq2seq("flan")
    candidates = [" ".join(SENTENCES[i % 4].split()[i % 3 : i % 3 + i % 5 + 1]) for i in range(30)]
    soft = soft_prompts(language, 2)
    whole, _ = language.score(soft, PROMPTS[:2], candidates)
    monkeypatch.setattr(seq2seq, "LOGITS_AT_ONCE", logits)
    monkeypatch.setattr(seq2seq, "pack_candidates", partial(pack_candidates, tokens_at_once=tokens))
    close(language.score(soft, PROMPTS[:2], candidates)[0], whole)
    close(whole, plain_scores(language, soft, PROMPTS[:2], candidates))


def test_packs() -> None:
    rows = [[0] * size for size in (3, 4, 9, 1, 1, 5)]
    assert list(pack_candidates(rows, 7)) == [[0, 1], [2], [3, 4, 5]]
    assert list(pack_candidates([], 7)) == []


def test_the_encoder_runs_once_whatever_the_number_of_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    language, calls = tiny_seq2seq(), []
    language.model.encoder.register_forward_hook(lambda *_: calls.append(1))
    language.score(soft_prompts(language, 3), PROMPTS, CANDIDATES * 30)
    assert len(calls) == 1


def test_scores_of_a_bfloat16_model() -> None:
    language = tiny_seq2seq("flan")
    language.model.bfloat16()
    soft = soft_prompts(language, 3)
    sums, _ = language.score(soft, PROMPTS, CANDIDATES)
    assert sums.dtype == torch.float32
    torch.testing.assert_close(sums, plain_scores(language, soft, PROMPTS, CANDIDATES), atol=0.5, rtol=0.03)
    loss = language.loss(soft.requires_grad_(), **language.collate(PROMPTS, ANSWERS))
    assert loss.dtype == torch.float32
    assert torch.autograd.grad(loss, soft)[0].dtype == torch.float32


@torch.no_grad()
def plain_greedy(language: Seq2SeqLanguageModel, soft: Tensor, prompt: str, length: int) -> str:
    """The likeliest token, one after the other, through the whole model each time."""
    end, embed = language.tokenizer.eos_token_id, language.model.get_input_embeddings()
    embedded = torch.cat([soft, embed(torch.tensor([*language.tokenizer(prompt)["input_ids"], end]))])[None]
    tokens = [language.model.config.decoder_start_token_id]
    while len(tokens) <= length and tokens[-1] != end:
        logits = language.model(inputs_embeds=embedded, decoder_input_ids=torch.tensor([tokens])).logits
        tokens.append(int(logits[0, -1].argmax()))
    return str(language.tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def test_generation_is_greedy(language: Seq2SeqLanguageModel) -> None:
    soft = soft_prompts(language, 3)
    expected = [plain_greedy(language, part, prompt, 8) for part, prompt in zip(soft, PROMPTS, strict=True)]
    assert language.generate(soft, PROMPTS, max_new_tokens=8) == expected


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_beams": 2, "length_penalty": 2.0}])
def test_generation_in_a_batch_equals_one_by_one(language: Seq2SeqLanguageModel, options: dict[str, Any]) -> None:
    soft = soft_prompts(language, 3)
    together = language.generate(soft, PROMPTS, max_new_tokens=6, **options)
    assert together == [
        language.generate(soft[row : row + 1], [prompt], max_new_tokens=6, **options)[0]
        for row, prompt in enumerate(PROMPTS)
    ]


def test_built_from_a_folder_in_bfloat16(tmp_path: Path) -> None:
    language = tiny_seq2seq("flan")
    language.model.save_pretrained(tmp_path)
    language.tokenizer.save_pretrained(tmp_path)
    built = build_language(LanguageConfig(family="seq2seq", weights=str(tmp_path)))
    soft = soft_prompts(language, 3)
    close(built.score(soft, PROMPTS, CANDIDATES)[0], language.score(soft, PROMPTS, CANDIDATES)[0])
    small = build_language(LanguageConfig(family="seq2seq", weights=str(tmp_path), dtype="bfloat16"))
    assert {parameter.dtype for parameter in small.model.parameters()} == {torch.bfloat16}  # type: ignore[attr-defined]
    assert small.identity == f"{built.identity} in bfloat16"


def test_mistakes(tmp_path: Path) -> None:
    causal = tiny_language()
    with pytest.raises(MintError, match=r"language\.family seq2seq cannot read 'llama'; it reads t5, mt5"):
        Seq2SeqLanguageModel(causal.model, causal.tokenizer, "tiny")
    with pytest.raises(MintError, match=r"language: language.answer_end is 'x', but seq2seq models have their own end"):
        recipe_from_dict({"name": "a", "stage": 2, "language": {"family": "seq2seq", "answer_end": "x"}})
    with pytest.raises(MintError, match=r"cannot load .*nowhere' by AutoConfig \(.*give a local folder or"):
        build_language(LanguageConfig(family="seq2seq", weights=str(tmp_path / "nowhere")))
