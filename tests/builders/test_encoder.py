"""Where the frozen encoder runs: on the accelerator, in every command that encodes clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mint.builders import encoder as encoder_module
from mint.builders.encoder import build_encoder
from mint.cli import main
from mint.config import EncoderConfig
from tiny_runs import write_corpus, write_recipe


def test_the_encoder_is_on_the_default_device_unless_a_caller_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "default_device", lambda: torch.device("meta"))
    encoder: Any = build_encoder(EncoderConfig(family="tiny"))
    assert encoder.projection.device.type == "meta"
    encoder = build_encoder(EncoderConfig(family="tiny"), "cpu")
    assert encoder.projection.device.type == "cpu"


def test_commands_that_encode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They ask for the accelerator, `mint train` unless its recipe trains on the CPU."""
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    asked: list[str] = []

    def device() -> torch.device:
        asked.append("")
        return torch.device("cpu")

    monkeypatch.setattr(encoder_module, "default_device", device)
    recipe = str(write_recipe(tmp_path / "tiny.yaml", 1, write_corpus(tmp_path, clips=2)))
    assert main(["cache", recipe]) == 0
    assert len(asked) == 1
    assert main(["train", recipe, "--output", str(tmp_path / "run")]) == 0
    assert len(asked) == 1
    on_accelerator = [recipe, "training.use_cpu=false", "--output", str(tmp_path / "other")]
    if not torch.accelerator.is_available():
        assert main(["train", *on_accelerator]) == 0
        assert len(asked) == 2
