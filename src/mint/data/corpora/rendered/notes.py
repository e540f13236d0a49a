"""*notes*: single notes with their instrument family, after NSynth (Engel et al., 2017).

As there: 11 families, velocities 25, 50, 75, 100 and 127, notes of about 3 s. The test split holds other notes (other
pairs of pitch and velocity) of the programs trained on; the *unseen* split holds programs that no corpus trains on.
"""

from __future__ import annotations

import itertools
import random

from mint.data.corpora.rendered import wording
from mint.data.corpora.rendered.general_midi import FAMILIES, NOTE_NAMES, PROGRAMS, Program
from mint.data.corpora.rendered.plan import ClipPlan, scaled
from mint.data.corpora.rendered.soundfont import Note
from mint.data.manifests.prompts import NSYNTH_PROMPT
from mint.types import MintError

PROMPT = NSYNTH_PROMPT
VOCABULARY = FAMILIES
SIZES = {"train": 272, "validation": 14, "test": 20, "unseen": 15}
"""Clips of each family."""
VELOCITIES = (25, 50, 75, 100, 127)
SECONDS = 3.0

TEMPLATES = (
    "{a_family} note, {loudness}: {program}",
    "{a_family} sound, {register} register, {loudness}",
    "{a_family} playing one {loudness} note in the {register} register",
)
"""Each names the family by the very word of its label, and no other family: whether a caption names the right family
can be checked by looking for that word."""


def plan(seed: int, scale: float) -> list[ClipPlan]:
    """Decide on every note.

    Raises:
        MintError: the scale asks for more notes than the instruments have.
    """
    rng = random.Random(f"notes {seed}")
    plans = []
    for family in FAMILIES:
        programs = [program for program in PROGRAMS if program.family == family]
        # One deck of each program serves all splits, so that no note is both trained on and tested.
        decks = {program: _deck(rng, program) for program in programs}

        for split, size in SIZES.items():
            # Unseen programs are in their own split alone, and in no other.
            allowed = [program for program in programs if program.unseen == (split == "unseen")]
            for index in range(scaled(size, scale)):
                # In turn, so that each program has as many clips as the others, give or take one.
                program = allowed[index % len(allowed)]
                if not decks[program]:
                    raise MintError(f"scale {scale} asks for more notes than {program.name!r} has; give less")

                pitch, velocity = decks[program].pop()
                name = f"notes-{split}-{family.replace(' ', '_')}-{index:04d}"
                plans.append(_note(rng, name, split, program, pitch, velocity))
    return plans


def _deck(rng: random.Random, program: Program) -> list[tuple[int, int]]:
    """Return all pairs of pitch and velocity in random order; dealt out, so that no two clips share one."""
    pitches = range(program.low, program.high + 1)
    deck = list(itertools.product(pitches, VELOCITIES))
    rng.shuffle(deck)
    return deck


def _note(rng: random.Random, name: str, split: str, program: Program, pitch: int, velocity: int) -> ClipPlan:
    """Decide on the time and the captions of a note."""
    start, length = round(rng.uniform(0, 0.15), 3), round(rng.uniform(1.5, 2.5), 3)
    captions = wording.captions(
        rng,
        TEMPLATES,
        program=program.name,
        family=program.family,
        register=wording.register(pitch),
        loudness=wording.loudness(velocity),
    )

    return ClipPlan(
        id=name,
        split=split,
        seconds=SECONDS,
        notes=(Note(start, length, pitch, velocity, program.number),),
        labels=(program.family,),
        captions=captions,
        metadata={
            "program": program.number,
            "instrument": program.name,
            "pitch": pitch,
            # MIDI's 60 is C4.
            "note": f"{NOTE_NAMES[pitch % 12]} {pitch // 12 - 1}",
            "velocity": velocity,
        },
    )
