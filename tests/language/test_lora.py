"""Adapters: what they compute, what of the model they leave alone, and what can be asked of them."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from mint.config import recipe_from_dict
from mint.language.lora import attach_lora
from mint.types import MintError
from tiny_languages import tiny_language, tiny_seq2seq
from tiny_models import randomise

pytest.importorskip("peft")

PROMPTS = ["This is a sound of", "rock"]
ANSWERS = ["dog barking", "guitar, bass guitar"]
MODELS: dict[str, Callable[[], Any]] = {"llama": tiny_language, "opt": lambda: tiny_language("opt"), "t5": tiny_seq2seq}


@pytest.fixture(params=MODELS)
def language(request: pytest.FixtureRequest) -> Any:
    return MODELS[request.param]()


def loss(language: Any) -> torch.Tensor:
    soft = torch.randn(2, 3, language.width, generator=torch.Generator().manual_seed(0))
    return language.loss(soft, **language.collate(PROMPTS, ANSWERS))


def test_adapters_start_as_nothing_and_then_add_low_rank_products(language: Any) -> None:
    """The loss and the scores are those of a model whose weights are W + alpha / rank B A."""
    merged = copy.deepcopy(language.model)
    before = loss(language)
    adapters = attach_lora(language.model, rank=2, alpha=6, dropout=0.0)
    torch.testing.assert_close(loss(language), before)
    randomise(adapters, seed=3)
    for name, layer in adapters.items():
        assert isinstance(layer, nn.ModuleDict)
        weight = merged.get_submodule(name.replace("/", ".")).weight
        weight.data += 3.0 * layer["B"].weight @ layer["A"].weight  # type: ignore[operator]
    adapted = loss(language)
    assert abs(adapted - before) > 1e-3
    soft = torch.randn(2, 3, language.width, generator=torch.Generator().manual_seed(1))
    scores, _ = language.score(soft, PROMPTS, [*ANSWERS, "dog"])
    plain = type(language)(merged, language.tokenizer, identity="merged")
    torch.testing.assert_close(loss(plain), adapted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plain.score(soft, PROMPTS, [*ANSWERS, "dog"])[0], scores, atol=1e-4, rtol=1e-5)


def test_gradients_reach_the_adapters_and_nothing_else(language: Any) -> None:
    adapters = attach_lora(language.model, rank=2, alpha=4, dropout=0.0)
    randomise(adapters, seed=3)
    loss(language).backward()
    own = {id(parameter) for parameter in adapters.parameters()}
    assert own
    for name, parameter in language.model.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == (id(parameter) in own), name
        assert parameter.requires_grad == (id(parameter) in own), name


def test_dropout_follows_the_adapters_alone() -> None:
    language = tiny_language()
    adapters = attach_lora(language.model, rank=2, alpha=4, dropout=0.5)
    randomise(adapters, seed=3)
    language.model.train()  # has no effect on a frozen model
    assert loss(language) == loss(language)
    adapters.train()
    assert loss(language) != loss(language)
    inside = {id(module) for module in adapters.modules()}
    assert not any(module.training for module in language.model.modules() if id(module) not in inside)
    adapters.eval()
    assert loss(language) == loss(language)


def test_adapters_of_a_bfloat16_model_are_float32() -> None:
    language = tiny_language()
    language.model.bfloat16()
    adapters = attach_lora(language.model, rank=2, alpha=4, dropout=0.0)
    randomise(adapters)
    loss(language).backward()
    assert {parameter.dtype for parameter in adapters.parameters()} == {torch.float32}
    assert all(parameter.grad is not None for parameter in adapters.parameters())


def test_targets() -> None:
    adapters = attach_lora(tiny_language().model, rank=3, alpha=4, dropout=0.0, targets=("down_proj", "k_proj"))
    names = [f"model/layers/{block}/{layer}" for block in (0, 1) for layer in ("self_attn/k_proj", "mlp/down_proj")]
    assert list(adapters) == names
    assert {name: tuple(weight.shape) for name, weight in adapters[names[0]].state_dict().items()} == {
        "A.weight": (3, 32),
        "B.weight": (16, 3),
    }


@pytest.mark.parametrize("targets", [("nothing",), ("lm_head",), ("embed_tokens",)])
def test_targets_that_cannot_be(targets: tuple[str, ...]) -> None:
    with pytest.raises(MintError, match=rf"language.lora.targets \['{targets[0]}'\].*; name layers inside the blocks"):
        attach_lora(tiny_language().model, rank=2, alpha=4, dropout=0.0, targets=targets)


def test_without_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MintError, match=r"language.lora needs the package peft; pip install 'mint-audio\[lora\]'"):
        attach_lora(tiny_language().model, rank=2, alpha=4, dropout=0.0)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"rank": 0}, r"language.lora.rank is 0; it must be at least 1"),
        ({"dropout": 1.0}, r"language.lora.dropout is 1.0; it must lie in \[0, 1\)"),
        ({"rang": 4}, r"unknown key 'language.lora.rang'; did you mean 'rank'\?"),
    ],
)
def test_mistakes_in_a_recipe(lora: dict[str, Any], message: str) -> None:
    with pytest.raises(MintError, match=message):
        recipe_from_dict({"name": "x", "stage": 2, "language": {"lora": lora}})


def test_stage_1_has_no_adapters() -> None:
    with pytest.raises(MintError, match=r"`language` and `start` belong to stage 2; remove them"):
        recipe_from_dict({"name": "x", "stage": 1, "language": {"lora": {"rank": 4}}})
