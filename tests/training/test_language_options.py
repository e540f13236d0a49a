"""Options of the language model, from the recipe through training to the use of the run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from mint import Mint
from mint.builders.encoder import build_encoder
from mint.builders.language import build_language
from mint.cli import main
from mint.config import LanguageConfig, LoraConfig, Recipe, load_recipe
from mint.data.features.prepare import read_examples
from mint.language.causal import CausalLanguageModel
from mint.training import train as run
from mint.training.dry_run.plan import plan
from tiny_runs import recipe, train_recipe

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

LORA = LoraConfig(rank=4, dropout=0.1)


def with_language(corpus: Path, **options: Any) -> Recipe:
    """A stage 2 with options of its language model, long enough to be learnt from."""
    made = recipe(2, corpus, max_steps=20, save_steps=6, save_total_limit=9, learning_rate=1e-2)
    return replace(made, language=LanguageConfig(family="tiny", **options))


def test_chat_from_recipe_to_use(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip, labels = corpus.parent / "low0.wav", ["low", "middle", "high"]
    for chat in (True, False):
        train_recipe(with_language(corpus, chat_template=chat), tmp_path / str(chat))
    folder = tmp_path / "True"
    saved = load_recipe(folder / "recipe.yaml").language
    assert saved is not None
    assert saved.chat_template
    used = Mint.from_pretrained(folder)
    scores = used.classify(clip, labels, prompt="The pitch is")
    language: Any = used.load_stage2().model.language
    assert isinstance(language, CausalLanguageModel)
    asked = [{"role": "user", "content": "The pitch is"}]
    theirs = language.tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
    assert [*language.opening, *language.prompt_tokens("The pitch is")] == theirs
    assert scores != Mint.from_pretrained(tmp_path / "False").classify(clip, labels, prompt="The pitch is")
    command = ["classify", str(folder), str(clip), "--labels", ",".join(labels), "--prompt", "The pitch is", "--json"]
    assert main(command) == 0
    printed = json.loads(capsys.readouterr().out)[0]["labels"]
    assert {one["label"]: one["score"] for one in printed} == pytest.approx(scores, abs=1e-4)


def adapters(weights: Path) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in load_file(weights).items() if name.startswith("lora.")}


@pytest.fixture(scope="module")
def adapted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with adapters, trained without an interruption; the base model's bytes are looked at."""
    pytest.importorskip("peft")
    language: Any = build_language(LanguageConfig(family="tiny"))
    before = {name: parameter.clone() for name, parameter in language.model.named_parameters()}
    output = tmp_path_factory.mktemp("adapted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINT_CACHE", str(corpus.parent / "cache"))
        patch.setattr(run, "build_language", lambda *_: language)
        train_recipe(with_language(corpus, lora=LORA), output)
    after = {name.replace(".base_layer", ""): parameter for name, parameter in language.model.named_parameters()}
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {name for name in after if name not in before} == {name for name in after if ".lora_" in name}
    return output


def test_adapters_are_trained_and_saved_with_what_is_trained(adapted: Path) -> None:
    saved = adapters(adapted / "model.safetensors")
    parts = [
        (f"lora.model/layers/{block}/self_attn/{name}_proj.{part}.weight")
        for block in (0, 1)
        for name in "qv"
        for part in "AB"
    ]
    assert sorted(saved) == sorted(parts)
    assert all(tensor.any() for tensor in saved.values())  # B was zero
    assert {name.partition(".")[0] for name in load_file(adapted / "model.safetensors")} == {
        "bridge",
        "projection",
        "lora",
    }
    assert adapters(adapted / "checkpoint-20" / "model.safetensors").keys() == saved.keys()


def test_adapters_go_on_after_an_interruption(corpus: Path, adapted: Path, tmp_path: Path) -> None:
    """From step 18, dropout in the adapters included."""
    shutil.copytree(adapted / "checkpoint-18", tmp_path / "checkpoint-18")
    train_recipe(with_language(corpus, lora=LORA), tmp_path)
    ours, whole = (load_file(path / "model.safetensors") for path in (tmp_path, adapted))
    assert ours.keys() == whole.keys()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in ours.items())


def test_adapters_are_used(corpus: Path, adapted: Path, tmp_path: Path) -> None:
    clip, labels = corpus.parent / "low0.wav", ["low", "middle", "high"]
    used = Mint.from_pretrained(adapted)
    scores = used.classify(clip, labels, prompt="The pitch is")
    copied = used.save_pretrained(tmp_path / "copy")
    assert Mint.from_pretrained(copied).classify(clip, labels, prompt="The pitch is") == scores
    stage: Any = used.load_stage2().model
    assert not any(module.training for module in stage.modules())
    with torch.no_grad():
        for parameter in stage.lora.parameters():
            parameter.zero_()
    assert used.classify(clip, labels, prompt="The pitch is") != scores


def test_adapters_in_the_plan(corpus: Path) -> None:
    pytest.importorskip("peft")
    counts = {}
    for lora in (LORA, None):
        wanted = with_language(corpus, lora=lora)
        planned = plan(wanted, read_examples([corpus]), build_encoder(wanted.encoder), 1)
        counts[lora] = {name: (trained, frozen) for name, trained, frozen in planned.parameters}
    assert counts[LORA].pop("lora") == (2 * 2 * (32 + 32) * LORA.rank, 0)
    assert counts[LORA] == counts[None]
