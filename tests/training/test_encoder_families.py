"""Each family of audio encoders through `mint train`, from a folder to the use of the run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from mint import Mint
from mint.cli import main
from tiny_encoders import SPECTROGRAM, tiny_spectrogram_model, tiny_waveform_model, waveform_extractor
from tiny_runs import write_recipe

FAMILIES = {"data2vec": "waveform", "wav2vec2-group": "waveform", **dict.fromkeys(SPECTROGRAM, "spectrogram")}


def save(kind: str, folder: Path) -> None:
    """A tiny model of a kind and its extractor."""
    model, extractor = (
        tiny_spectrogram_model(kind) if kind in SPECTROGRAM else (tiny_waveform_model(kind), waveform_extractor())
    )
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_run_with_the_family(kind: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    save(kind, tmp_path / "encoder")
    path = write_recipe(tmp_path / "recipe.yaml", 1, corpus, max_steps=2)
    encoder = [f"encoder.family={FAMILIES[kind]}", f"encoder.weights={tmp_path / 'encoder'}"]
    run = tmp_path / "run"
    assert main(["train", str(path), *encoder, "--output", str(run)]) == 0
    losses = [record["loss"] for record in json.loads((run / "history.json").read_text()) if "loss" in record]
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
    record = json.loads((run / "run.json").read_text())
    assert record["bridge"]["audio_width"] == 32
    assert "sha256:" in record["frozen"]["encoder"]
    clips = [corpus.parent / "low0.wav", corpus.parent / "high0.wav"]
    low, high = Mint.from_pretrained(run).embed_audio(clips)
    assert torch.isfinite(low).all()
    assert not torch.allclose(low, high, atol=1e-4)


def test_clap_has_no_layer_to_choose(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save("clap", tmp_path / "encoder")
    path = write_recipe(tmp_path / "recipe.yaml", 1, corpus)
    encoder = ["encoder.family=spectrogram", f"encoder.weights={tmp_path / 'encoder'}", "encoder.layer=1"]
    assert main(["train", str(path), *encoder, "--output", str(tmp_path / "run")]) == 2
    assert "error: encoder.layer is 1, but only the last layer of clap is read; leave it out" in capsys.readouterr().err
