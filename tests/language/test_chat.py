"""Chat templates: the sequence is transformers' own, and every use of the model reads that sequence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mint.assets import resolve
from mint.builders.language import build_language
from mint.config import LanguageConfig, recipe_from_dict
from mint.language.causal import IGNORED, CausalLanguageModel
from mint.language.chat import frame_message
from mint.language.gguf import converted
from mint.types import MintError
from tiny_languages import byte_tokenizer, piece_tokenizer, tiny_language

TEMPLATES = {
    "as SmolLM and Qwen": (
        "{% if messages[0]['role'] != 'system' %}system\nYou answer.<|end|>\n{% endif %}"
        "{% for message in messages %}{{ message['role'] + '\n' + message['content'] + '<|end|>' + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant\n' }}{% endif %}"
    ),
    "as Llama 3": (
        "{{ eos_token }}{% for message in messages %}{{ message['role'] + '\n\n' + message['content'] | trim }}"
        "{{ '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant\n\n' }}{% endif %}"
    ),
    "one that can think": (
        "{% for message in messages %}{{ message['role'] + '\n' + message['content'] + '<|end|>' + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant\n{% if enable_thinking is defined and enable_thinking is false %}"
        "(no thought)\n{% endif %}{% endif %}"
    ),
}
PROMPTS = ["This is a sound of", "Identify the instruments in this segment of music:", "rock"]
ANSWERS = ["dog barking", "guitar, bass guitar", "a cat"]


def chatting(template: str, family: str = "llama") -> CausalLanguageModel:
    """A tiny model with a chat template, and its soft prompts in it."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    plain = tiny_language(family, tokenizer=tokenizer)
    return CausalLanguageModel(plain.model, tokenizer, identity="tiny", chat_template=True)


@pytest.fixture(params=TEMPLATES)
def language(request: pytest.FixtureRequest) -> CausalLanguageModel:
    return chatting(TEMPLATES[request.param])


def asked(language: CausalLanguageModel, prompt: str) -> list[int]:
    """Transformers' own tokens of a question."""
    tokenizer: Any = language.tokenizer
    message = [{"role": "user", "content": prompt}]
    ids: list[int] = tokenizer.apply_chat_template(message, add_generation_prompt=True, enable_thinking=False)[
        "input_ids"
    ]
    return ids


def answered(language: CausalLanguageModel, prompt: str, answer: str) -> list[int]:
    """The same with the answer and the end of the model's turn."""
    return [*asked(language, prompt), *language.tokenizer(answer)["input_ids"], language.end]


def place(language: CausalLanguageModel) -> int:
    """Where the messages of two conversations begin: up to there their tokens are the same."""
    one, other = asked(language, "rock"), asked(language, "This")
    return next(index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)


def soft_prompts(language: CausalLanguageModel, rows: int) -> Tensor:
    return torch.randn(rows, 4, language.width, generator=torch.Generator().manual_seed(0))


def embedded(language: CausalLanguageModel, soft: Tensor, ids: list[int]) -> Tensor:
    """A conversation [K, D] with the soft prompt where the message begins."""
    words = language.embedding(torch.tensor(ids))
    return torch.cat([words[: place(language)], soft, words[place(language) :]])


def test_tokens_are_those_of_apply_chat_template(language: CausalLanguageModel) -> None:
    rows = language.collate(PROMPTS, ANSWERS)
    for index, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        after = rows["prompt_ids"][index][rows["prompt_mask"][index]].tolist()
        assert [*language.opening, *after] == answered(language, prompt, answer)
        assert len(language.opening) == place(language)
        answer_ids = answered(language, prompt, answer)[len(asked(language, prompt)) :]
        labels = rows["labels"][index]
        assert labels[labels != IGNORED].tolist() == answer_ids
        assert labels.tolist()[len(after) - len(answer_ids) : len(after)] == answer_ids


def test_the_answer_is_where_the_template_has_the_models_own() -> None:
    language = chatting(TEMPLATES["as SmolLM and Qwen"])
    messages = [{"role": "user", "content": "rock"}, {"role": "assistant", "content": "a cat"}]
    theirs = language.tokenizer.apply_chat_template(messages)["input_ids"]
    rows = language.collate(["rock"], ["a cat"])
    ours = [*language.opening, *rows["prompt_ids"][0].tolist()]
    assert language.tokenizer.decode(theirs[len(ours) :]) == "\n"
    assert theirs[: len(ours)] == ours


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_loss_and_gradient_equal_transformers_own(family: str) -> None:
    language = chatting(TEMPLATES["as SmolLM and Qwen"], family)
    soft = soft_prompts(language, 3).requires_grad_()
    loss = language.loss(soft, **language.collate(PROMPTS, ANSWERS))
    total, count = torch.zeros(()), 0
    for row, prompt, answer in zip(soft, PROMPTS, ANSWERS, strict=True):
        ids = answered(language, prompt, answer)
        length = len(ids) - len(asked(language, prompt))
        logits = language.model(inputs_embeds=embedded(language, row, ids)[None]).logits[0, -length - 1 : -1]
        total = total - logits.log_softmax(dim=-1)[range(length), ids[-length:]].sum()
        count += length
    torch.testing.assert_close(loss, total / count, atol=1e-5, rtol=0.0)
    ours, expected = (torch.autograd.grad(value, soft)[0] for value in (loss, total / count))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0.0)


@torch.no_grad()
def test_scores_equal_one_candidate_at_a_time(language: CausalLanguageModel) -> None:
    soft, candidates = soft_prompts(language, 3), ["dog", "dog barking", "rock", "a", ""]
    sums, counts = language.score(soft, PROMPTS, candidates)
    for row, prompt in enumerate(PROMPTS):
        for column, candidate in enumerate(candidates):
            ids = answered(language, prompt, candidate)
            length = len(ids) - len(asked(language, prompt))
            logits = language.model(inputs_embeds=embedded(language, soft[row], ids)[None]).logits[0, -length - 1 : -1]
            expected = logits.log_softmax(dim=-1)[range(length), ids[-length:]].sum()
            torch.testing.assert_close(sums[row, column], expected, atol=1e-4, rtol=0.0)
            assert counts[column] == length


@torch.no_grad()
def test_generation_continues_the_conversation(language: CausalLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    soft = soft_prompts(language, 3)
    seen: list[dict[str, Any]] = []

    def keep(**options: Any) -> Tensor:
        seen.append(options)
        return torch.zeros(3, 1, dtype=torch.long)

    monkeypatch.setattr(language.model, "generate", keep)
    language.generate(soft, PROMPTS, num_beams=2)
    for row, prompt in enumerate(PROMPTS):
        real = seen[0]["inputs_embeds"][row][seen[0]["attention_mask"][row].bool()]
        torch.testing.assert_close(real, embedded(language, soft[row], asked(language, prompt)))


def test_no_chat_without_being_asked_for() -> None:
    tokenizer = byte_tokenizer()
    expected = tiny_language(tokenizer=byte_tokenizer()).collate(PROMPTS, ANSWERS)
    tokenizer.chat_template = TEMPLATES["as Llama 3"]
    found = tiny_language(tokenizer=tokenizer).collate(PROMPTS, ANSWERS)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_recipe_chooses() -> None:
    for chosen in (False, True):
        language = build_language(LanguageConfig(family="tiny", chat_template=chosen))
        assert isinstance(language, CausalLanguageModel)
        opening, prompt = (
            language.tokenizer.decode(ids) for ids in (language.opening, language.prompt_tokens("Why? "))
        )
        assert (opening, prompt) == (("user: ", "Why?<end>assistant: ") if chosen else ("", "Why? "))


@pytest.mark.parametrize(
    "template", ["{{ 'nothing' }}", "{{ raise_exception('users may not speak') }}", "{{ messages[0]['content'] * 2 }}"]
)
def test_a_template_that_cannot_be_used(template: str) -> None:
    with pytest.raises(MintError, match=r"language.chat_template: that of tiny cannot be used, as it does not write"):
        chatting(template)


def test_mistakes() -> None:
    with pytest.raises(MintError, match=r"is true, but the tokenizer of Model-X has none; set it to false, or choose"):
        frame_message(piece_tokenizer(), "Model-X")
    with pytest.raises(MintError, match=r"language.chat_template is true, but chat templates are not supported"):
        recipe_from_dict(
            {"name": "x", "stage": 2, "language": {"family": "seq2seq", "weights": "x", "chat_template": True}}
        )


@pytest.mark.slow
def test_the_genuine_template() -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(converted(Path(resolve("asset:smollm2"))))
    plain = tiny_language()
    language = CausalLanguageModel(plain.model, tokenizer, identity="SmolLM2", chat_template=True)
    for prompt in [*PROMPTS, "Count to 12:"]:
        assert [*language.opening, *language.prompt_tokens(prompt)] == asked(language, prompt)
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": "piano, 3 guitars"}]
        theirs = tokenizer.apply_chat_template(messages)["input_ids"]
        ours = [*language.opening, *language.prompt_tokens(prompt), *language.answer_tokens("piano, 3 guitars")]
        assert theirs[: len(ours)] == ours
