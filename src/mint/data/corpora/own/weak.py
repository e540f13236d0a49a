"""Weak labels for recordings that have none: what the frozen encoder's own classifier hears in them.

They are the encoder's opinion, so a model that is trained on them can only learn to say what the encoder hears, and
what is measured on them is agreement with the encoder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from mint.data.audio.decode import load_audio
from mint.data.corpora.drawn.words import SoundWords, words_of
from mint.data.corpora.recordings import audio_files
from mint.data.features.encode import encode_samples
from mint.data.features.heard import heard_scores
from mint.types import AudioEncoder, MintError, NamedClasses

SECONDS = 30.0
"""Of a long recording its beginning is listened to."""
LEAST_SCORE = 0.1
"""A class that is heard less clearly than this does not name a recording."""
LEAST_RECORDINGS = 3
"""A kind of file name, or a class, with fewer recordings cannot be trained and tested on."""


def is_unlabelled(source: Path) -> bool:
    """Return whether a source is a flat folder whose file names tell no kinds of sound.

    Names tell kinds where most recordings are called `KIND_rest` and their kind has at least three recordings, and
    there are two such kinds or more.
    """
    if not source.is_dir():
        return False
    files = audio_files(source)
    # A folder of folders, or with a table, has labels.
    if not files or any(path.parent != source for path in files) or any(source.glob("metadata.*")):
        return False
    kinds = Counter(path.stem.partition("_")[0] for path in files if "_" in path.stem)
    large = [count for count in kinds.values() if count >= LEAST_RECORDINGS]
    return len(large) < 2 or sum(large) < len(files) / 2


def hear(paths: Sequence[Path], encoder: AudioEncoder, classes: NamedClasses) -> dict[Path, SoundWords]:
    """Return the words of the sound that is heard in each recording; one in which nothing clear is heard is left out.

    Args:
        paths: the recordings; those that cannot be decoded are left out.
        encoder: the frozen encoder.
        classes: its classifier.
    """
    words = words_of(classes.names)
    is_event = torch.tensor([one.kind == "event" for one in words])  # [C]
    scores: dict[Path, torch.Tensor] = {}
    for path in paths:
        try:
            samples = load_audio(path, encoder.sample_rate, 0.0, SECONDS)
        except MintError:
            continue
        scores[path] = heard_scores([encode_samples(encoder, samples)], classes)

    # A class that only one or two recordings have is of no use: such recordings go to their next class that is common.
    allowed = is_event
    heard: dict[Path, SoundWords] = {}
    for _ in range(2):
        heard = {}
        numbers: Counter[int] = Counter()
        for path, score in scores.items():
            number = int(score.masked_fill(~allowed, -1).argmax())
            if score[number] >= LEAST_SCORE:
                heard[path] = words[number]
                numbers[number] += 1
        allowed = torch.tensor([numbers[number] >= LEAST_RECORDINGS for number in range(len(words))])
    return heard
