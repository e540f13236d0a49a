"""Does the feature cache keep a training step fed, and what does it save?

An epoch of clips of the quickstart's length: read from the cache, against decoding and encoding them in batches of a
minute, as a run without a cache would have to. Then steps of both stages with the quickstart's recipes, their models
and their batches: the share of the time in which the step waits for its batch, drawn, read and tokenised in the same
process, as the recipes have it.

    python benchmarks/loader.py
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from common import Row, alternate, compare, parser, report
from inference import TINY, write_clips
from mint.builders.encoder import build_encoder
from mint.config import Recipe, load_recipe, recipe_from_dict
from mint.data.audio.decode import load_audio
from mint.data.features.cache import FeatureCache
from mint.data.features.encode import encode_batch, fill_cache
from mint.data.features.prepare import Features
from mint.training.train import prepare
from mint.types import AudioEncoder, Example

RATE, SECONDS, CLIPS, AT_ONCE = 48000, 4.0, 60, 15
"""Stereo files; clips of 4 s, encoded a minute at a time."""
TRAINING: dict[str, Any] = {"max_steps": 1000, "warmup_steps": 0, "report_to": [], "disable_tqdm": True}
STEPS, QUICK_STEPS = 20, 3
WAITING = 0.05
"""Share of a step's time that is wanted at most."""


def main() -> None:
    options = parser(__doc__.splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        examples = make_examples(folder, 8 if options.quick else CLIPS)
        recipes = [recipe(stage, options.quick) for stage in (1, 2)]
        encoder = build_encoder(recipes[0].encoder)
        cache = FeatureCache(folder / "features", encoder.identity)
        filled = fill_cache(cache, encoder, examples, 30.0)
        features = Features(cache, filled.files, filled.skipped)
        rows = measure_epoch(features, encoder, examples, options)
        for one in recipes:
            share, rounds = waiting(one, folder, examples, features, encoder, options.quick)
            aim = None if options.quick else 1.0
            case = f"stage {one.stage}, batches of {one.training['per_device_train_batch_size']}"
            rows.append(Row(case, "waiting for data", "%", share, "the aim", WAITING, aim, rounds=rounds))
    report("loader", rows, options)


def make_examples(folder: Path, count: int) -> list[Example]:
    """Tones with a caption and a label."""
    return [
        Example(
            id=path.stem,
            audio=path,
            task="labels",
            split="train",
            corpus="tones",
            prompt="This is a sound of",
            answer=f"tone {number % 11}",
            captions=(f"A steady tone, number {number % 11}, is played in light noise for some seconds.",),
        )
        for number, path in enumerate(write_clips(folder, RATE, SECONDS, count))
    ]


def recipe(stage: int, quick: bool) -> Recipe:
    """The quickstart's, without a mixture; or a tiny one."""
    if quick:
        language = {"language": {"family": "tiny"}} if stage == 2 else {}
        training = {**TRAINING, "per_device_train_batch_size": 4}
        return recipe_from_dict({"name": "tiny", "stage": stage, **TINY, **language, "training": training})
    found = load_recipe(f"quickstart/stage{stage}")
    data = replace(found.data, mixture={})
    return replace(found, data=data, aligned_start=False, training={**found.training, **TRAINING})


def measure_epoch(
    features: Features, encoder: AudioEncoder, examples: Sequence[Example], options: argparse.Namespace
) -> list[Row]:
    """An epoch from the cache against decoding and encoding it, the same features."""

    def cached() -> list[torch.Tensor]:
        return [features.draw(example, 0) for example in examples]

    def encoded() -> list[torch.Tensor]:
        found = []
        for first in range(0, len(examples), AT_ONCE):
            batch = [load_audio(example.audio, encoder.sample_rate) for example in examples[first : first + AT_ONCE]]
            found += encode_batch(encoder, batch)
        return found

    if not all(torch.allclose(a, b, atol=1e-2) for a, b in zip(cached(), encoded(), strict=True)):
        raise SystemExit("features from the cache are not those encoded on the fly")
    seconds = alternate({"cache": cached, "decoding and encoding": encoded}, options.rounds)
    aims = {} if options.quick else {"decoding and encoding": 10.0}
    return compare(f"{len(examples)} clips of {SECONDS:g} s", "features of an epoch", seconds, aims)


def waiting(
    recipe: Recipe, folder: Path, examples: Sequence[Example], features: Features, encoder: AudioEncoder, quick: bool
) -> tuple[float, tuple[tuple[float, ...], ...]]:
    """Share of the time of some steps in which they wait for their batch; seconds of waiting and of the rest."""
    prepared = prepare(recipe, folder / f"run{recipe.stage}", examples, [], features.draw, encoder)
    trainer = prepared.trainer
    optimizer = trainer.create_optimizer()
    loader = iter(_endless(trainer))
    waited, worked = [], []
    for step in range(1 + (QUICK_STEPS if quick else STEPS)):
        start = time.perf_counter()
        batch = next(loader)
        there = time.perf_counter()
        trainer.compute_loss(prepared.model.train(), batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step:  # the first has no pages in memory yet
            waited.append(there - start)
            worked.append(time.perf_counter() - there)
    return sum(waited) / (sum(waited) + sum(worked)), (tuple(waited), tuple(worked))


def _endless(trainer: Any) -> Any:
    while True:
        yield from trainer.get_train_dataloader()


if __name__ == "__main__":
    main()
