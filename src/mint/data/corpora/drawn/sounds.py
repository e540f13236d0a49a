"""*sounds*: everyday sounds by the names of the encoder's own classes, as feature maps that no recording made.

Each clip is a few patches of features: those of one or two drawn classes (`mint.data.corpora.drawn.draw`), once, on and
off or throughout, with silence or a quiet random sound between. Its words are those of the classes
(`mint.data.corpora.drawn.words`). Clips are files of features (`mint.data.features.stored`) beside a manifest, so
training and evaluation treat them as any other clip.

What a model learns here is the encoder's opinion of its own features. It says nothing new about the world.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mint.data.corpora.drawn.draw import Pool, draw_maps, make_pool
from mint.data.corpora.drawn.synthesis import synthesise
from mint.data.corpora.drawn.words import JOINTS, TABLE, SoundWords, joined, words_of
from mint.data.features.stored import SUFFIX, write_stored
from mint.data.manifests.manifest import write_manifest
from mint.data.manifests.prompts import SOUND_PROMPT
from mint.files import sha256, write_whole
from mint.types import AudioEncoder, Example, MintError, NamedClasses, classes_of

NAME = "sounds"
VERSION = 1
"""Raised when the same seed draws other clips: what an older version drew is then made anew."""
RANDOM_SOUNDS = 2400
"""Sounds made by rule that draws begin with."""
ALONE, TOGETHER = 8, 3
"""Training clips of each class by itself, and with a second one."""
SILENT = 6
"""Training clips without any sound, of as many lengths."""
TESTED_CLIPS = 2
"""Test clips of each of the classes in `TESTED`."""
MOST_PATCHES = 5
AT_ONCE = 256
"""Patches that are drawn together."""
TESTED = (
    "Dog", "Cat", "Sheep", "Frog", "Crow", "Owl", "Duck", "Bee, wasp, etc.", "Rain", "Thunder", "Wind", "Waves, surf",
    "Fire", "Water tap, faucet", "Toilet flush", "Laughter", "Cough", "Snoring", "Clapping", "Walk, footsteps",
    "Baby cry, infant cry", "Helicopter", "Train", "Motorcycle", "Siren", "Vehicle horn, car horn, honking",
    "Chainsaw", "Vacuum cleaner", "Hammer", "Church bell", "Alarm clock", "Typing", "Knock", "Shatter", "Fireworks",
    "Gunshot, gunfire",
)  # fmt: skip
"""Everyday classes of the test split: few enough to rank, and no two that are called the same."""


@dataclass(frozen=True)
class Patch:
    """One patch of a clip: what is drawn for it, or what lies between."""

    target: int | None
    """Number of a class; None: nothing is drawn."""
    is_quiet_sound: bool = False
    """Without a target: a quiet random sound in the place of silence."""


@dataclass(frozen=True)
class ClipPlan:
    """What is decided about a clip before its features are drawn."""

    id: str
    split: str
    classes: tuple[int, ...]
    patches: tuple[Patch, ...]
    answer: str | None
    labels: tuple[str, ...]
    captions: tuple[str, ...]


def prepare_sounds(
    output: Path, encoder: AudioEncoder, seed: int = 0, scale: float = 1.0, workers: int = 2, progress: bool = True
) -> Path:
    """Draw the corpus, unless it is there already.

    Args:
        output: folder of the manifest; created.
        encoder: a frozen encoder with a classifier of AudioSet's classes.
        seed: of everything.
        scale: factor on the number of clips; every class keeps at least one.
        workers: processes that make random sounds; 1 makes them in this one.
        progress: show a bar.

    Returns:
        The manifest, `sounds.jsonl`.

    Raises:
        MintError: the encoder has no classifier, or one of classes that there are no words for.
    """
    classes = classes_of(encoder)
    if classes is None:
        raise MintError(f"{encoder.identity} has no classifier of named classes; choose encoder.family yamnet")

    words = words_of(classes.names)
    folder, manifest, stamp_file = output / NAME, output / f"{NAME}.jsonl", output / f".{NAME}.stamp.json"
    stamp = json.dumps(
        {"encoder": encoder.identity, "words": sha256(TABLE), "seed": seed, "scale": scale, "version": VERSION}
    )
    if manifest.exists() and stamp_file.exists() and stamp_file.read_text(encoding="utf-8") == stamp:
        return manifest
    if not stamp_file.exists() and (manifest.exists() or folder.exists()):
        raise MintError(f"{output} holds a {NAME!r} that MINT has not drawn; give another folder")

    # The stamp comes before the first clip and the manifest after the last: what is unfinished is made anew.
    output.mkdir(parents=True, exist_ok=True)
    write_whole(stamp_file, stamp)
    manifest.unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    plans = plan(words, seed, scale)
    pool = _pool(encoder, classes, seed, max(64, round(RANDOM_SOUNDS * min(scale, 1.0))), workers)
    silence = encode_silence(encoder, classes)
    bar = tqdm(total=len(plans), desc=NAME, unit="clip", mininterval=1.0, disable=not progress)

    for clip, features in draw_clips(plans, pool, silence, classes, words, seed):
        write_stored(folder / f"{clip.id}{SUFFIX}", features, encoder.identity)
        bar.update()
    bar.close()
    write_manifest(manifest, (_example(clip, classes, folder) for clip in plans))
    return manifest


def plan(words: Sequence[SoundWords], seed: int, scale: float) -> list[ClipPlan]:
    """Return the clips of the corpus; they follow from the words, the seed and the scale.

    Args:
        words: of each class of the encoder, in its order.
        seed: of the order in time, of partners and of the wording.
        scale: factor on the number of clips of a class.
    """
    rng = random.Random(f"{NAME} {seed}")
    drawn = [number for number, one in enumerate(words) if one.kind == "event"]
    plans: list[ClipPlan] = []

    for number in drawn:
        for index in range(max(1, round(ALONE * scale))):
            plans.append(_alone(rng, words, number, "train", index))
        for index in range(round(TOGETHER * scale)):
            partner = rng.choice([other for other in drawn if other != number])
            plans.append(_together(rng, words, number, partner, index))
        plans.append(_alone(rng, words, number, "validation", 0))

    for number, one in enumerate(words):
        if one.kind == "silence":
            for index in range(min(SILENT, max(1, round(SILENT * scale)))):
                plans.append(_alone(rng, words, number, "train", index))
        if one.name in TESTED:
            for index in range(max(1, round(TESTED_CLIPS * scale))):
                plans.append(_tested(rng, words, number, index))
    return plans


def _alone(rng: random.Random, words: Sequence[SoundWords], number: int, split: str, index: int) -> ClipPlan:
    """Return a clip of one class, or of silence."""
    one = words[number]
    answer = rng.choice(one.labels)
    captions = rng.sample(one.sentences, min(2, len(one.sentences)))

    # A label also stands as a caption by itself, as other people's label names may be no more than that.
    if rng.random() < 0.5 and one.kind != "silence":
        captions.append(f"{answer[0].upper()}{answer[1:]}.")
    return ClipPlan(
        id=f"{NAME}-{split}-{number:03d}-{index:02d}",
        split=split,
        classes=(number,),
        patches=(Patch(None),) * (index + 1) if one.kind == "silence" else _over_time(rng, (number,)),
        answer=answer,
        labels=(),
        captions=tuple(captions),
    )


def _together(rng: random.Random, words: Sequence[SoundWords], number: int, partner: int, index: int) -> ClipPlan:
    """Return a clip of two classes, which is asked for captions alone: each class is only a part of the answer."""
    captions = []
    for _ in range(2):
        first, second = (rng.choice(words[one].sentences) for one in rng.sample((number, partner), 2))
        captions.append(joined(first, second, rng.choice(JOINTS[:3])))
    return ClipPlan(
        id=f"{NAME}-train-{number:03d}-and-{partner:03d}-{index:02d}",
        split="train",
        classes=(number, partner),
        patches=_over_time(rng, (number, partner)),
        answer=None,
        labels=(),
        captions=tuple(captions),
    )


def _tested(rng: random.Random, words: Sequence[SoundWords], number: int, index: int) -> ClipPlan:
    """Return a test clip of one class, with the usual name of it as its label."""
    label = words[number].labels[0]
    return ClipPlan(
        id=f"{NAME}-test-{number:03d}-{index:02d}",
        split="test",
        classes=(number,),
        patches=_over_time(rng, (number,)),
        answer=label,
        labels=(label,),
        captions=(),
    )


def _over_time(rng: random.Random, targets: Sequence[int]) -> tuple[Patch, ...]:
    """Return the patches of a clip: each target at least once, with pauses in half of the longer clips."""
    count = max(len(targets), rng.choice((1, 1, 2, 3, 4, MOST_PATCHES)))
    patches: list[Patch] = [Patch(target) for target in targets]
    has_pauses, is_quiet_sound = rng.random() < 0.5, rng.random() < 0.5

    while len(patches) < count:
        is_pause = has_pauses and rng.random() < 0.6
        patches.append(Patch(None, is_quiet_sound) if is_pause else Patch(rng.choice(list(targets))))
    rng.shuffle(patches)
    return tuple(patches)


def draw_clips(
    plans: Sequence[ClipPlan],
    pool: Pool,
    silence: Tensor,
    classes: NamedClasses,
    words: Sequence[SoundWords],
    seed: int,
) -> Iterator[tuple[ClipPlan, Tensor]]:
    """Yield the clips with their features [T, D].

    Args:
        plans: the clips.
        pool: what draws begin with.
        silence: [G, D], the features of no sound.
        classes: the encoder's classifier, with C classes.
        words: of the C classes.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    are_rivals = torch.tensor([one.kind in ("event", "silence") for one in words])  # [C]
    first = 0
    while first < len(plans):
        chosen: list[ClipPlan] = []
        targets: list[int] = []
        while first + len(chosen) < len(plans) and len(targets) < AT_ONCE:
            clip = plans[first + len(chosen)]
            chosen.append(clip)
            targets += [patch.target for patch in clip.patches if patch.target is not None]

        first += len(chosen)
        drawn: Iterator[Tensor] = iter(())
        if targets:
            drawn = iter(draw_maps(pool, classes, torch.tensor(targets), are_rivals, generator))
        for clip in chosen:
            maps = [next(drawn) if patch.target is not None else silence for patch in clip.patches]
            for position, patch in enumerate(clip.patches):
                if patch.is_quiet_sound:
                    index = int(torch.randint(len(pool.maps), (1,), generator=generator))
                    maps[position] = 0.3 * pool.maps[index]
            yield clip, torch.cat(maps)


def _pool(encoder: AudioEncoder, classes: NamedClasses, seed: int, count: int, workers: int) -> Pool:
    """Return the features of random sounds, without those in which the encoder hears nothing."""
    make = partial(synthesise, seed, length=classes.samples, rate=encoder.sample_rate)
    if workers > 1:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as processes:
            sounds = list(processes.map(make, range(count), chunksize=64))
    else:
        sounds = [make(index) for index in range(count)]

    maps = []
    for first in range(0, count, 64):
        maps.append(_encode(encoder, classes, torch.from_numpy(np.stack(sounds[first : first + 64]))))
    all_maps = torch.cat(maps)  # [N, G, D]
    silent = [number for number, one in enumerate(words_of(classes.names)) if one.kind == "silence"]
    logits = classes.logits(all_maps.mean(dim=1))
    return make_pool(all_maps[(logits[:, silent] < 0).all(dim=1)], classes)


def encode_silence(encoder: AudioEncoder, classes: NamedClasses) -> Tensor:
    """Return the features [G, D] of digital silence."""
    return _encode(encoder, classes, torch.zeros(1, classes.samples))[0]


def _encode(encoder: AudioEncoder, classes: NamedClasses, sounds: Tensor) -> Tensor:
    """Return the features [N, G, D] of sounds [N, S] as long as the classifier reads at once."""
    features, _ = encoder.encode(sounds, torch.full((len(sounds),), sounds.shape[1]))
    return features[:, : classes.tokens].cpu()


def _example(clip: ClipPlan, classes: NamedClasses, folder: Path) -> Example:
    return Example(
        id=clip.id,
        audio=folder / f"{clip.id}{SUFFIX}",
        task=NAME,
        split=clip.split,
        corpus=NAME,
        prompt=None if clip.answer is None else SOUND_PROMPT,
        answer=clip.answer,
        labels=clip.labels,
        captions=clip.captions,
        metadata={"classes": [classes.names[number] for number in clip.classes], "drawn": True},
    )
