"""A run goes on, and is used, with the frozen models that it began with: commits of the hub, and bytes of folders."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from mint import Mint
from mint.cli import main
from mint.config import EncoderConfig, LanguageConfig, Recipe, load_recipe
from mint.evaluation.evaluate_run import evaluate_run
from mint.training import train as run
from mint.training.checks import pinned
from mint.types import MintError
from tiny_encoders import tiny_waveform_model, waveform_extractor
from tiny_hub import TinyHub
from tiny_languages import tiny_language
from tiny_runs import recipe, train_recipe, write_recipe

FIRST, SECOND = "a" * 40, "b" * 40


def fall(*_: object) -> None:
    raise KeyboardInterrupt


def publish(hub: TinyHub, commit: str, seed: int) -> None:
    language = tiny_language(seed=seed)
    hub.publish("org/language", commit, language.model, language.tokenizer)
    hub.publish("org/encoder", commit, tiny_waveform_model("data2vec", seed), waveform_extractor())


def test_hub_names_are_pinned_from_the_start(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = TinyHub(tmp_path / "hub", monkeypatch)
    publish(hub, FIRST, 0)
    path, output = write_recipe(tmp_path / "recipe.yaml", 2, corpus), tmp_path / "run"
    models = ["encoder.family=waveform", "encoder.weights=org/encoder", "bridge.cross_attention_every=1"]
    models += ["language.family=causal", "language.weights=org/language"]
    command = ["train", str(path), *models, "--output", str(output), "--resume"]
    with monkeypatch.context() as patch:
        patch.setattr(run, "run_trainer", fall)
        assert main(command) == 130
    begun = load_recipe(output / "recipe.yaml")
    assert begun.language is not None
    assert (begun.encoder.revision, begun.language.revision) == (FIRST, FIRST)
    assert json.loads((output / "run.json").read_text())["frozen"]["language"] == f"org/language@{FIRST}"

    publish(hub, SECOND, 1)
    with monkeypatch.context() as patch:
        patch.setattr(run, "save_run", fall)
        assert main(command) == 130  # at its end, with a checkpoint
    assert main(command) == 0
    assert load_recipe(output / "recipe.yaml") == begun
    encoder = f"data2vec-audio org/encoder@{FIRST}; last layer; normalised waveform"
    assert json.loads((output / "run.json").read_text())["frozen"] == {
        "encoder": encoder,
        "language": f"org/language@{FIRST}",
    }
    clip = corpus.parent / "low0.wav"
    assert Mint.from_pretrained(output).classify(clip, ["low", "high"])
    shutil.rmtree(output / "checkpoint-2")
    (output / "model.safetensors").unlink()
    assert main([*command, f"language.revision={SECOND}"]) == 2
    assert f"holds a run with language.revision '{FIRST}', not '{SECOND}'" in capsys.readouterr().err


def test_stage_2_has_the_encoder_of_the_stage_1_that_it_starts_from(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = TinyHub(tmp_path / "hub", monkeypatch)
    publish(hub, FIRST, 0)
    encoder = EncoderConfig(family="waveform", weights="org/encoder")
    first = pinned(replace(recipe(1, corpus), encoder=encoder), tmp_path / "stage1")
    train_recipe(first, tmp_path / "stage1")
    publish(hub, SECOND, 1)
    second = replace(recipe(2, corpus), encoder=encoder, start=str(tmp_path / "stage1"))
    assert pinned(second, tmp_path / "stage2").encoder.revision == FIRST
    assert pinned(replace(second, start=None), tmp_path / "stage2").encoder.revision == SECOND
    named = replace(second, encoder=replace(encoder, revision="main"))
    assert pinned(named, tmp_path / "stage2").encoder.revision == "main"


@pytest.fixture
def local(corpus: Path, tmp_path: Path) -> Recipe:
    """A stage 2 before a language model in a folder."""
    language = tiny_language()
    language.model.save_pretrained(tmp_path / "language")
    language.tokenizer.save_pretrained(tmp_path / "language")
    config = LanguageConfig(family="causal", weights=str(tmp_path / "language"))
    return replace(recipe(2, corpus), language=config)


def change_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_a_run_is_not_used_with_another_language_model(corpus: Path, local: Recipe, tmp_path: Path) -> None:
    train_recipe(local, tmp_path / "run")
    clip, labels = corpus.parent / "low0.wav", ["low", "high"]
    assert Mint.from_pretrained(tmp_path / "run").classify(clip, labels)
    change_weights(tmp_path / "language")
    message = (
        r"run was trained with the language model 'sha256:\w+', but here is 'sha256:\w+'; restore its weights, or train"
    )
    with pytest.raises(MintError, match=message):
        Mint.from_pretrained(tmp_path / "run").classify(clip, labels)
    with pytest.raises(MintError, match=message):
        evaluate_run(tmp_path / "run")


def test_a_run_is_not_evaluated_with_another_encoder(corpus: Path, tmp_path: Path) -> None:
    train_recipe(recipe(1, corpus), tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**record, "frozen": {"encoder": "another one"}}))
    with pytest.raises(MintError, match="was trained with the encoder 'another one', but here is 'tiny: "):
        evaluate_run(tmp_path)


def test_a_run_does_not_go_on_with_another_language_model(
    local: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "save_run", fall)
    with pytest.raises(KeyboardInterrupt):
        train_recipe(local, tmp_path / "run")
    change_weights(tmp_path / "language")
    with pytest.raises(
        MintError, match=r"was trained with the language model 'sha256:\w+', but here is 'sha256:\w+'; res"
    ):
        train_recipe(local, tmp_path / "run")
