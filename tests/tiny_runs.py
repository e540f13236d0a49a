"""Recipes over tiny random models and synthesised clips: both stages, from training to use, in seconds and offline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from mint.builders.encoder import build_encoder
from mint.config import Recipe, recipe_from_dict
from mint.data.features.prepare import prepare_features, read_examples
from mint.training.train import train

RATE = 16000
LABELS = {"low": 220.0, "middle": 880.0, "high": 3520.0}
"""Label of each kind of clip, and its pitch in Hz."""


def write_corpus(folder: Path, clips: int = 3, seconds: float = 0.4) -> Path:
    """Noisy tones with labels and captions, `clips` of each label in the split `train` and one in `test`."""
    generator = np.random.default_rng(0)
    lines = []
    for label, pitch in LABELS.items():
        for number in range(clips + 1):
            times = np.arange(round(seconds * RATE * (1 + 0.1 * number))) / RATE
            samples = 0.5 * np.sin(2 * np.pi * pitch * times) + 0.02 * generator.standard_normal(len(times))
            soundfile.write(folder / f"{label}{number}.wav", samples, RATE)
            lines.append(
                {
                    "id": f"{label}{number}",
                    "audio": f"{label}{number}.wav",
                    "task": "pitch",
                    "prompt": "The pitch is",
                    "answer": label,
                    "labels": [label],
                    "captions": [f"a {label} tone", f"{label}, {label}"],
                    "split": "train" if number < clips else "test",
                    "corpus": "tones",
                }
            )
    manifest = folder / "tones.jsonl"
    manifest.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return manifest


def recipe_values(stage: int, manifest: Path, **training: Any) -> dict[str, Any]:
    """The values of a recipe over tiny models."""
    return {
        "name": f"tiny-stage{stage}",
        "stage": stage,
        "encoder": {"family": "tiny"},
        "bridge": {"weights": "tiny", "num_layers": 2, "num_queries": 4, "max_text_tokens": 40},
        **({"language": {"family": "tiny"}} if stage == 2 else {}),
        "data": {"manifests": [str(manifest)]},
        "training": {
            "max_steps": 3,
            "per_device_train_batch_size": 4,
            "learning_rate": 3e-3,
            "report_to": [],
            "logging_steps": 1,
            "save_steps": 2,
            "use_cpu": True,
            **training,
        },
    }


def recipe(stage: int, manifest: Path, **training: Any) -> Recipe:
    """A recipe over tiny models; further keys go into its section `training`."""
    return recipe_from_dict(recipe_values(stage, manifest, **training))


def write_recipe(path: Path, stage: int, manifest: Path, **training: Any) -> Path:
    """The same as a file."""
    path.write_text(yaml.safe_dump(recipe_values(stage, manifest, **training)), encoding="utf-8")
    return path


def train_both(folder: Path, reference_clips: int = 0, **training: Any) -> Path:
    """A corpus in `folder`, and both stages trained on it, in `folder/run`."""
    manifest = write_corpus(folder)
    run = folder / "run"
    train_recipe(recipe(1, manifest, **training), run / "stage1")
    second = replace(recipe(2, manifest, **training), start=str(run / "stage1"), reference_clips=reference_clips)
    train_recipe(second, run / "stage2")
    return run


def shared_run(factory: pytest.TempPathFactory, **options: Any) -> Iterator[Path]:
    """A run of both stages for a fixture of many tests, with a feature cache of its own; the clips lie beside it."""
    folder = factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINT_CACHE", str(folder / "cache"))
        yield train_both(folder, **options)


def train_recipe(wanted: Recipe, output: Path) -> Path:
    """Train as `mint train` does."""
    encoder = build_encoder(wanted.encoder)
    examples = read_examples(wanted.data.manifests)
    return train(wanted, output, examples, prepare_features(encoder, examples, wanted.data.max_seconds), encoder)
