"""From recipes to models and from finished runs back."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from mint import Mint
from mint.builders.encoder import build_encoder
from mint.builders.language import build_language
from mint.builders.stages import build_stage1, build_stage2, load_stage1
from mint.config import EncoderConfig, LanguageConfig, load_recipe
from mint.language.tiny import tiny_language
from mint.model.freeze import fingerprint
from mint.run_folder import load_weights
from mint.types import MintError
from tiny_runs import recipe, train_both, train_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINT_CACHE", str(folder / "cache"))
        yield train_both(folder)


def test_a_run_is_used_without_the_bert_that_it_started_from(run: Path, bert: Path, tmp_path: Path) -> None:
    plain = recipe(1, run.parent / "tones.jsonl")
    train_recipe(replace(plain, bridge=replace(plain.bridge, weights=str(bert))), tmp_path / "run" / "stage1")
    before = Mint.from_pretrained(tmp_path / "run").embed_text("a tone")
    shutil.rmtree(bert)
    assert torch.equal(Mint.from_pretrained(tmp_path / "run").embed_text("a tone"), before)


def test_seeds(run: Path) -> None:
    plain = recipe(1, run.parent / "tones.jsonl")
    first, same, other = (
        fingerprint(build_stage1(made, audio_width=16, vocab_size=259)[0])
        for made in (plain, plain, replace(plain, seed=1))
    )
    assert first == same != other


def test_tiny_models_are_the_same_on_every_call_and_leave_the_seed_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    model, _ = tiny_language()
    assert torch.equal(torch.rand(3), expected)
    assert fingerprint(model) == fingerprint(tiny_language()[0])


def test_stage_2_starts_from_stage_1(run: Path) -> None:
    made = load_recipe(run / "stage2" / "recipe.yaml")
    stage2, report = build_stage2(made, 16, 259, build_language(LanguageConfig(family="tiny")))
    weights = load_file(run / "stage1" / "model.safetensors")
    bridge = {f"bridge.{name}": tensor for name, tensor in stage2.bridge.state_dict().items()}
    assert all(torch.equal(tensor, weights[name]) for name, tensor in bridge.items())
    assert report is None
    with pytest.raises(MintError, match=r"start: .*stage1 does not fit the recipe: size mismatch for queries"):
        build_stage2(
            replace(made, bridge=replace(made.bridge, num_queries=5)), 16, 259, build_language(LanguageConfig("tiny"))
        )


def test_a_loaded_run_has_the_weights_that_were_trained(run: Path) -> None:
    model = load_stage1(run / "stage1")
    weights = load_file(run / "stage1" / "model.safetensors")
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_broken_runs(run: Path, tmp_path: Path) -> None:
    broken = tmp_path / "stage1"
    shutil.copytree(run / "stage1", broken)
    record = json.loads((broken / "run.json").read_text())

    record["frozen"]["encoder"] = "another one"
    (broken / "run.json").write_text(json.dumps(record))
    with pytest.raises(MintError, match="was trained with the encoder 'another one', but here is 'tiny: "):
        Mint.from_pretrained(broken)

    (broken / "run.json").write_text("{")
    with pytest.raises(MintError, match=r"cannot read .*run.json"):
        Mint.from_pretrained(broken)
    shutil.copy(run / "stage1" / "run.json", broken)

    weights = load_file(broken / "model.safetensors")
    save_file({name: tensor for name, tensor in weights.items() if name != "temperature"}, broken / "model.safetensors")
    with pytest.raises(MintError, match=r'stage1 does not fit the recipe: .*"temperature"'):
        Mint.from_pretrained(broken).embed_text("a tone")

    whole = (run / "stage1" / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MintError, match=r"model.safetensors is damaged \("):
        load_weights(broken)
    (broken / "model.safetensors").unlink()
    with pytest.raises(MintError, match=r"stage1 holds no model.safetensors; give the folder of a finished run"):
        load_weights(broken)


def test_device_of_the_encoder() -> None:
    encoder = build_encoder(EncoderConfig(family="tiny"), "meta")
    assert isinstance(encoder, torch.nn.Module)
    assert next(encoder.buffers()).device.type == "meta"
