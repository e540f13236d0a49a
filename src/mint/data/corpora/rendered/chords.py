"""*chords*: short cadences with their key, 24 classes, after the paper's Music4All-key."""

from __future__ import annotations

import random

from mint.data.corpora.rendered import wording
from mint.data.corpora.rendered.general_midi import NAMES, NOTE_NAMES
from mint.data.corpora.rendered.plan import ClipPlan, scaled
from mint.data.corpora.rendered.soundfont import Note
from mint.data.manifests.prompts import KEY_PROMPT

PROMPT = KEY_PROMPT
VOCABULARY = tuple(f"{tonic} {mode}" for mode in ("major", "minor") for tonic in NOTE_NAMES)
SIZES = {"train": 8, "validation": 2, "test": 4}
"""Clips of each key."""
SECONDS = 4.0
PROGRAMS = (0, 1, 2, 4, 6, 7, 16, 17, 19, 20, 24, 25, 27)
"""Keyboards, organs and guitars, all of them trained on."""

CADENCES = {
    "major": (
        ((0, 4, 7), (5, 9, 12), (7, 11, 14), (0, 4, 7)),  # I IV V I
        ((0, 4, 7), (2, 5, 9), (7, 11, 14), (0, 4, 7)),  # I ii V I
        ((0, 4, 7), (9, 12, 16), (7, 11, 14), (0, 4, 7)),  # I vi V I
        ((0, 4, 7), (7, 11, 14), (5, 9, 12), (0, 4, 7)),  # I V IV I
    ),
    "minor": (
        ((0, 3, 7), (5, 8, 12), (7, 11, 14), (0, 3, 7)),  # i iv V i
        ((0, 3, 7), (8, 12, 15), (7, 11, 14), (0, 3, 7)),  # i VI V i
        ((0, 3, 7), (5, 8, 12), (7, 10, 14), (0, 3, 7)),  # i iv v i
        ((0, 3, 7), (7, 11, 14), (5, 8, 12), (0, 3, 7)),  # i V iv i
    ),
}
"""Semitones above the tonic."""

TEMPLATES = (
    "a cadence in {key} on the {program}",
    "the {program} plays {style} chords in {key}",
    "{a_loudness} sequence of {style} chords in {key}, played on the {program}",
    "{style} chords on the {program}, the key is {key}",
)


def plan(seed: int, scale: float) -> list[ClipPlan]:
    """Decide on every cadence."""
    rng = random.Random(f"chords {seed}")
    plans = []
    for split, size in SIZES.items():
        for mode in ("major", "minor"):
            for tonic in range(12):
                for index in range(scaled(size, scale)):
                    plans.append(_cadence(rng, split, tonic, mode, index))
    return plans


def _cadence(rng: random.Random, split: str, tonic: int, mode: str, index: int) -> ClipPlan:
    """Decide on one cadence: instrument, octave, style, loudness, pace and chords."""
    key = f"{NOTE_NAMES[tonic]} {mode}"
    program = rng.choice(PROGRAMS)
    base = rng.choice((36, 48, 60)) + tonic
    style = "broken" if rng.random() < 0.4 else "block"
    velocity = rng.choice((50, 75, 100))
    pace = rng.uniform(0.65, 0.9)

    notes: list[Note] = []
    for number, chord in enumerate(rng.choice(CADENCES[mode])):
        # The first and the last chord stand on the tonic, so that the key can be heard.
        inversion = rng.randrange(3) if 0 < number < 3 else 0
        pitches = _voiced(chord, base, inversion)
        for step, pitch in enumerate(pitches):
            delay = step * pace / 4 if style == "broken" else 0.0
            start = round(number * pace + delay, 3)
            notes.append(Note(start, round(pace - delay, 3), pitch, velocity + rng.randint(-6, 6), program))

    captions = wording.captions(
        rng,
        TEMPLATES,
        key=key,
        program=NAMES[program],
        style=style,
        loudness=wording.loudness(velocity),
    )
    return ClipPlan(
        id=f"chords-{split}-{key.replace(' ', '_')}-{index:03d}",
        split=split,
        seconds=SECONDS,
        notes=tuple(notes),
        labels=(key,),
        captions=captions,
        metadata={"program": program, "instrument": NAMES[program], "style": style},
    )


def _voiced(chord: tuple[int, ...], base: int, inversion: int) -> list[int]:
    """Return the pitches of a chord, the lowest one doubled: an octave below, where there is room."""
    pitches = []
    for index, step in enumerate(chord):
        # An inversion takes so many of the upper notes down by an octave.
        lowered = 12 if index >= 3 - inversion else 0
        pitches.append(base + step - lowered)
    pitches.sort()
    below = 12 if base >= 48 else 0
    return [pitches[0] - below, *pitches]
