"""A training run of either stage: what it learns, what it leaves alone, what it leaves behind."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from mint.builders.encoder import build_encoder
from mint.builders.language import build_language
from mint.config import EncoderConfig, LanguageConfig, LoraConfig, ObjectivesConfig, load_recipe
from mint.data.features.prepare import prepare_features, read_examples
from mint.language.causal import CausalLanguageModel
from mint.model.freeze import fingerprint
from mint.run_folder import is_finished
from mint.training import train as run
from mint.training.checks import check, check_models, has_begun
from mint.training.dry_run.plan import plan
from mint.training.train import train
from mint.types import MintError
from tiny_encoders import tiny_waveform_model, waveform_extractor
from tiny_languages import tiny_language, tiny_seq2seq
from tiny_runs import recipe, train_recipe, write_corpus

TRAINED = {
    1: {"bridge", "audio_projection", "text_projection", "temperature", "matching_head", "language_head"},
    2: {"bridge", "projection"},
}


def losses(output: Path) -> list[dict[str, float]]:
    """The records of the history that have a loss."""
    return [record for record in json.loads((output / "history.json").read_text()) if "loss" in record]


def parts(weights: Path) -> set[str]:
    """First parts of the names in a file of weights."""
    with safe_open(weights, framework="pt") as file:
        return {name.partition(".")[0] for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("stage", [1, 2])
def test_a_few_clips_are_learnt(stage: int, tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path, clips=1)
    train_recipe(recipe(stage, manifest, max_steps=60, learning_rate=1e-2), tmp_path / "run")
    values = [record["loss"] for record in losses(tmp_path / "run")]
    assert len(values) == 60
    assert all(math.isfinite(value) for value in values)
    assert np.mean(values[-5:]) < 0.8 * np.mean(values[:5])


def test_each_objective_is_logged(corpus: Path, tmp_path: Path) -> None:
    train_recipe(recipe(1, corpus, max_steps=4, logging_steps=2), tmp_path)
    records = losses(tmp_path)
    assert [record["step"] for record in records] == [2, 4]
    for record in records:
        assert record["loss"] == pytest.approx(record["alc"] + record["alm"] + record["atg"], rel=1e-5)


def test_a_loss_that_is_not_finite_is_seen(corpus: Path, tmp_path: Path) -> None:
    train_recipe(recipe(1, corpus, max_steps=6, learning_rate=1e30), tmp_path)
    assert math.isnan(losses(tmp_path)[-1]["loss"])


@pytest.mark.parametrize("stage", [1, 2])
def test_frozen_models_keep_their_bytes(
    stage: int, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    language = build_language(LanguageConfig(family="tiny"))
    assert isinstance(language, CausalLanguageModel)
    monkeypatch.setattr(run, "build_language", lambda *_: language)
    wanted = recipe(stage, corpus, max_steps=3, weight_decay=0.1)
    encoder = build_encoder(wanted.encoder)
    assert isinstance(encoder, nn.Module)
    before = fingerprint(encoder), fingerprint(language.model)
    examples = read_examples([corpus])
    train(wanted, tmp_path, examples, prepare_features(encoder, examples), encoder)
    assert (fingerprint(encoder), fingerprint(language.model)) == before
    assert not any(module.training for held in (encoder, language.model) for module in held.modules())
    assert not any(parameter.requires_grad for parameter in language.model.parameters())


@pytest.mark.parametrize("stage", [1, 2])
def test_only_what_is_trained_is_saved(stage: int, corpus: Path, tmp_path: Path) -> None:
    train_recipe(recipe(stage, corpus), tmp_path)
    files = [tmp_path / "model.safetensors", *tmp_path.glob("checkpoint-*/model.safetensors")]
    assert len(files) == 3
    assert [parts(file) for file in files] == [TRAINED[stage]] * 3


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        (1, {}),
        (1, {"objectives": ObjectivesConfig(alm=False, atg=False)}),
        (2, {}),
        (2, {"instruction_aware": False}),
    ],
)
def test_every_tensor_of_a_run_is_trained_or_used(
    stage: int, changes: dict[str, Any], corpus: Path, tmp_path: Path
) -> None:
    """What an objective or the instruction would need is not there where it is off; the rest has moved in a step."""
    wanted = replace(recipe(stage, corpus, max_steps=2, save_steps=1, learning_rate=0.1), **changes)
    train_recipe(wanted, tmp_path)
    first, last = (load_file(tmp_path / f"checkpoint-{step}" / "model.safetensors") for step in (1, 2))
    still = {name for name, weight in first.items() if weight.equal(last[name])}
    assert not {name for name in still if not name.endswith("position_embeddings.weight")}
    text_side = {name for name in first if "text_feed_forward" in name or "_embeddings" in name}
    blocks = {name.split(".")[2] for name in text_side if "feed_forward" in name}
    assert blocks == ({"0", "1"} if stage == 1 else set() if changes else {"0"})
    assert load_file(tmp_path / "model.safetensors").keys() == last.keys()


def test_the_folder_of_a_run(corpus: Path, tmp_path: Path) -> None:
    wanted = recipe(1, corpus)
    assert not has_begun(tmp_path)
    assert train_recipe(wanted, tmp_path / "run") == tmp_path / "run"
    assert is_finished(tmp_path / "run")
    assert load_recipe(tmp_path / "run" / "recipe.yaml") == wanted
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["frozen"] == {"encoder": build_encoder(wanted.encoder).identity}
    assert record["bridge"]["num_queries"] == 4
    assert not (tmp_path / "run" / "skipped.jsonl").exists()
    assert not list((tmp_path / "run").glob("*.tmp"))


def test_a_finished_run_is_kept(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_recipe(recipe(1, corpus), tmp_path)
    monkeypatch.setattr(run, "prepare", lambda *_: pytest.fail("the run is trained again"))
    assert train_recipe(recipe(1, corpus), tmp_path) == tmp_path
    with pytest.raises(MintError, match=r"holds a run with training.max_steps 3, not 4; choose another folder"):
        train_recipe(recipe(1, corpus, max_steps=4), tmp_path)


def test_a_bad_clip_is_skipped_and_listed(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path)
    (tmp_path / "low1.wav").write_text("not audio")
    odd = os.fsdecode(b"\xff.wav")  # not valid Unicode
    (tmp_path / "high0.wav").rename(tmp_path / odd)
    (tmp_path / odd).write_text("")
    manifest.write_text(manifest.read_text().replace("high0.wav", json.dumps(odd)[1:-1]))
    train_recipe(recipe(1, manifest), tmp_path / "run")
    skipped = [json.loads(line) for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert [one["id"] for one in skipped] == ["low1", "high0"]
    assert [one["audio"] for one in skipped] == [str(tmp_path / "low1.wav"), str(tmp_path / odd)]
    assert "not audio that can be decoded" in skipped[0]["reason"]
    assert is_finished(tmp_path / "run")


def test_nothing_to_train_on(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path)
    manifest.write_text(manifest.read_text().replace('"train"', '"test"'))
    with pytest.raises(MintError, match="recipe tiny-stage1: nothing to train on; the manifests have no usable"):
        train_recipe(recipe(1, manifest), tmp_path / "run")
    assert not has_begun(tmp_path / "run")


def test_mistakes_are_found_before_the_features(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(MintError, match="start: nowhere holds no finished run"):
        check(replace(recipe(2, corpus), start="nowhere"), tmp_path)
    check(recipe(2, corpus), tmp_path)
    long = recipe(1, corpus)
    with pytest.raises(MintError, match=r"max_text_tokens is 200, but tiny has 128 positions; choose as many or fewer"):
        check_models(replace(long, bridge=replace(long.bridge, max_text_tokens=200)), build_encoder(long.encoder))


@pytest.fixture(scope="module")
def first(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished stage 1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINT_CACHE", str(corpus.parent / "cache"))
        return train_recipe(recipe(1, corpus), tmp_path_factory.mktemp("first"))


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (
            {"family": "waveform"},
            "was trained with encoder.family 'tiny', and this recipe has 'waveform'; give both the",
        ),
        ({"weights": "other"}, "was trained with encoder.weights 'asset:yamnet', and this recipe has 'other'; give"),
    ],
)
def test_a_start_with_another_encoder(
    encoder: dict[str, Any], message: str, first: Path, corpus: Path, tmp_path: Path
) -> None:
    wanted = replace(recipe(2, corpus), start=str(first))
    check(wanted, tmp_path)
    with pytest.raises(MintError, match=re.escape(message)):
        check(replace(wanted, encoder=replace(wanted.encoder, **encoder)), tmp_path)
    check(replace(wanted, encoder=replace(wanted.encoder, weights=str(tmp_path))), tmp_path)  # its content is compared


def test_a_start_with_another_layer(first: Path, corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(first, tmp_path / "first")
    kept = tmp_path / "first" / "recipe.yaml"
    kept.write_text(kept.read_text().replace("family: tiny", "family: waveform", 1).replace("layer: null", "layer: 3"))
    wanted = replace(recipe(2, corpus), start=str(tmp_path / "first"))
    wanted = replace(wanted, encoder=replace(wanted.encoder, family="waveform"))
    with pytest.raises(MintError, match=r"was trained with encoder.layer 3, and this recipe has None; give both the"):
        check(wanted, tmp_path / "second")


def test_a_start_whose_encoder_had_other_weights(first: Path, corpus: Path, tmp_path: Path) -> None:
    """The same recipe, but the folder or branch that it names holds something else by now."""
    wanted = replace(recipe(2, corpus), start=str(first))
    encoder = build_encoder(wanted.encoder)
    check_models(wanted, encoder)
    encoder.identity = "tiny of a later day"
    message = (
        r"was trained with the encoder 'tiny: tanh .*', but here is 'tiny of a later day'; "
        "restore its weights, or train again"
    )
    with pytest.raises(MintError, match=message):
        check_models(wanted, encoder)
    examples = read_examples([corpus])
    with pytest.raises(MintError, match=message):
        train(wanted, tmp_path, examples, prepare_features(encoder, examples), encoder)


def test_a_start_that_is_no_stage_1(first: Path, corpus: Path, tmp_path: Path) -> None:
    second = train_recipe(replace(recipe(2, corpus), start=str(first)), tmp_path / "second")
    with pytest.raises(MintError, match=r"second is a run of stage 2; give the folder of its stage 1"):
        check(replace(recipe(2, corpus), start=str(second)), tmp_path / "third")


def test_an_epoch_without_a_batch(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(
        MintError, match=r"an epoch of 9 draws has no batch of 16 to train on; set training.dataloader_"
    ):
        train_recipe(recipe(1, corpus, per_device_train_batch_size=16, dataloader_drop_last=True), tmp_path)


@pytest.mark.parametrize(("clips", "batch", "accumulation"), [(9, 2, 1), (9, 2, 2), (403_050, 64, 1)])
@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_steps_of_ranks_that_are_not_there(
    clips: int, batch: int, accumulation: int, ranks: int, corpus: Path, tmp_path: Path
) -> None:
    """As in `RankBatches`: the last batch counts if each rank has a clip of it."""
    wanted = recipe(
        1,
        corpus,
        max_steps=-1,
        num_train_epochs=10,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
    )
    wanted = replace(wanted, data=replace(wanted.data, examples_per_epoch=clips))
    encoder = build_encoder(wanted.encoder)
    planned = plan(wanted, read_examples([corpus]), encoder, ranks)
    batches = [min(batch * ranks, clips - first) for first in range(0, clips, batch * ranks)]
    expected = math.ceil(sum(size >= ranks for size in batches) / accumulation)
    assert (planned.steps_per_epoch, planned.steps) == (expected, 10 * expected)
    assert expected == 788 or (clips, ranks) != (403_050, 8)
    assert planned.costs is not None
    assert planned.costs.shapes.ranks == ranks


def test_what_the_plan_notes(corpus: Path) -> None:
    wanted = recipe(1, corpus)
    odd = replace(
        wanted,
        objectives=ObjectivesConfig(alc=False),
        data=replace(wanted.data, group_by_length=True),
        training={**wanted.training, "gradient_accumulation_steps": 2},
    )
    notes = [plan(one, read_examples([corpus]), build_encoder(one.encoder), 1).notes for one in (wanted, odd)]
    assert notes[0] == []
    assert [note.split(":")[0].split(",")[0] for note in notes[1]] == [
        "each of the 2 micro-batches of a step is contrasted alone",
        "without alc nothing trains the similarities by which alm draws its negatives",
        "data.group_by_length makes texts of like length each other's negatives; it is meant for stage 2",
    ]


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
@pytest.mark.parametrize("family", ["llama", "gpt2", "flan", "t5"])
def test_a_plan_needs_no_weights_of_frozen_models(
    family: str, lora: LoraConfig | None, corpus: Path, tmp_path: Path
) -> None:
    """Its figures are those with the weights."""
    if lora is not None:
        pytest.importorskip("peft")
    language: Any = tiny_seq2seq(family) if family in ("flan", "t5") else tiny_language(family)
    save_models(tmp_path, tiny_waveform_model("data2vec"), waveform_extractor(), language)
    wanted = recipe(2, corpus)
    wanted = replace(
        wanted,
        data=replace(wanted.data, max_seconds=1.0),
        encoder=EncoderConfig(family="waveform", weights=str(tmp_path / "encoder")),
        language=LanguageConfig(
            family="seq2seq" if family in ("flan", "t5") else "causal",
            weights=str(tmp_path / "language"),
            dtype="bfloat16",
            lora=lora,
        ),
    )
    assert wanted.language is not None
    encoder, language = build_encoder(wanted.encoder), build_language(wanted.language)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "build_language", lambda *_: language)
        expected = plan(wanted, read_examples([corpus]), encoder)
    for folder in ("encoder", "language"):
        (tmp_path / folder / "model.safetensors").unlink()
    assert plan(wanted, read_examples([corpus]), build_encoder(wanted.encoder, weightless=True)) == expected


def save_models(folder: Path, encoder: Any, extractor: Any, language: Any) -> None:
    """An encoder and a language model, each as a folder."""
    for part in (encoder, extractor):
        part.save_pretrained(folder / "encoder")
    for part in (language.model, language.tokenizer):
        part.save_pretrained(folder / "language")


@pytest.mark.parametrize(
    ("stage", "training", "draws", "steps_per_epoch", "steps"),
    [
        (1, {}, 9, 3, 3),
        (1, {"max_steps": -1, "num_train_epochs": 5}, 9, 3, 15),
        (2, {"gradient_accumulation_steps": 2}, 18, 3, 3),
    ],
)
def test_plan(
    stage: int, training: dict[str, Any], draws: int, steps_per_epoch: int, steps: int, corpus: Path, tmp_path: Path
) -> None:
    wanted = recipe(stage, corpus, **training)
    planned = plan(wanted, read_examples([corpus]), build_encoder(wanted.encoder), 1)
    assert (planned.draws_per_epoch, planned.steps_per_epoch, planned.steps) == (draws, steps_per_epoch, steps)
    train_recipe(wanted, tmp_path)
    assert losses(tmp_path)[-1]["step"] == steps
    names = {name for name, _, _ in planned.parameters}
    assert names == TRAINED[stage] | ({"audio encoder", "language model"} if stage == 2 else {"audio encoder"})
    trained = {name: count for name, count, _ in planned.parameters}
    assert trained["bridge"] > 0
    assert trained["audio encoder"] == trained.get("language model", 0) == 0
