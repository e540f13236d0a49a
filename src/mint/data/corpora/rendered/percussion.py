"""*percussion*: sound events, single or repeated: the drums of General MIDI's kits and its sound effects, 32 classes.

After the sound-event corpora of the paper's Table 1 (AudioSet, VGGSound, FSD50K), whose prompt it shares. The test
split holds other renderings (loudness, rate, kit, pitch) of the same classes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from mint.data.corpora.rendered import wording
from mint.data.corpora.rendered.general_midi import DRUM_KITS
from mint.data.corpora.rendered.plan import ClipPlan, scaled
from mint.data.corpora.rendered.soundfont import Note
from mint.data.manifests.prompts import SOUND_PROMPT


@dataclass(frozen=True)
class SoundClass:
    """One class: either keys of the drum kits or a program with a range of pitches."""

    label: str
    keys: tuple[int, ...]
    """Drum keys, or the pitches of the program."""
    program: int | None = None
    """None: a drum."""
    once: bool = False
    """Goes on by itself (waves, applause): played once, for most of the clip."""


# Left and right hands, open and closed forms are one class where a listener would call them by one name.
DRUMS = (
    SoundClass("bass drum", (35, 36)),
    SoundClass("snare drum", (38, 40)),
    SoundClass("side stick", (37,)),
    SoundClass("hand clap", (39,)),
    SoundClass("tom-tom", (41, 43, 45, 47, 48, 50)),
    SoundClass("hi-hat", (42, 44, 46)),
    SoundClass("crash cymbal", (49, 57)),
    SoundClass("ride cymbal", (51, 59)),
    SoundClass("tambourine", (54,)),
    SoundClass("cowbell", (56,)),
    SoundClass("vibraslap", (58,)),
    SoundClass("bongo", (60, 61)),
    SoundClass("conga", (62, 63, 64)),
    SoundClass("timbale", (65, 66)),
    SoundClass("agogo bell", (67, 68)),
    SoundClass("cabasa", (69,)),
    SoundClass("maracas", (70,)),
    SoundClass("samba whistle", (71, 72)),
    SoundClass("guiro", (73, 74)),
    SoundClass("claves", (75,)),
    SoundClass("wood block", (76, 77)),
    SoundClass("cuica", (78, 79)),
    SoundClass("triangle", (80, 81)),
)
EFFECTS = (
    SoundClass("taiko drum", tuple(range(48, 67)), 116),
    SoundClass("timpani", tuple(range(36, 58)), 47),
    SoundClass("reversed cymbal", tuple(range(55, 68)), 119, once=True),
    SoundClass("sea waves", tuple(range(48, 73)), 122, once=True),
    SoundClass("bird song", tuple(range(42, 54)), 123, once=True),
    SoundClass("telephone ring", tuple(range(48, 73)), 124),
    SoundClass("helicopter", tuple(range(48, 73)), 125, once=True),
    SoundClass("applause", tuple(range(48, 73)), 126, once=True),
    SoundClass("gunshot", tuple(range(48, 73)), 127),
)
SOUNDS = DRUMS + EFFECTS

PROMPT = SOUND_PROMPT
VOCABULARY = tuple(sound.label for sound in SOUNDS)
SIZES = {"train": 14, "validation": 2, "test": 5}
"""Clips of each class."""
SECONDS = 3.0
COUNTS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}

ONCE_TEMPLATES = (
    "this is {a_loudness} sound of {label}",
    "the {loudness} sound of {label}",
    "{label}, {loudness}",
    "{loudness} {label} can be heard",
)
SINGLE_TEMPLATES = (
    "a single {loudness} {label} sound",
    "{a_label} sounds once, {loudness}",
    "one {loudness} sound of {a_label}",
    "this is a sound of {label}, heard once",
)
REPEATED_TEMPLATES = (
    "{count} {rate} {label} sounds, {loudness}",
    "{a_label} sounds {count} times, {rate} and {loudness}",
    "{loudness} {label} repeated {count} times at {a_rate} pace",
    "this is a sound of {label}, {count} times, {rate}",
)


def plan(seed: int, scale: float) -> list[ClipPlan]:
    """Decide on every clip."""
    rng = random.Random(f"percussion {seed}")
    plans = []
    for split, size in SIZES.items():
        for sound in SOUNDS:
            for index in range(scaled(size, scale)):
                plans.append(_clip(rng, split, sound, index))
    return plans


def _clip(rng: random.Random, split: str, sound: SoundClass, index: int) -> ClipPlan:
    """Decide on one clip: loudness, strokes, their rate, key and kit."""
    velocity = rng.randint(45, 127)
    # Of sounds that can be repeated, two of seven are single.
    count = 1 if sound.once else rng.choice((1, 1, 2, 3, 4, 5, 6))
    # Many strokes must be fast enough to be heard within the clip.
    slowest = 2.6 / count if count > 2 else 0.8
    interval = round(rng.uniform(0.15, slowest), 3)
    key = rng.choice(sound.keys)
    kit = rng.choice(tuple(DRUM_KITS))
    start = round(rng.uniform(0, 0.2), 3)

    notes = _strokes(sound, count, start, interval, key, velocity, kit)
    repeatable = REPEATED_TEMPLATES if count > 1 else SINGLE_TEMPLATES
    captions = wording.captions(
        rng,
        ONCE_TEMPLATES if sound.once else repeatable,
        label=sound.label,
        count=COUNTS[count],
        rate="fast" if interval < 0.3 else "slow" if interval > 0.5 else "steady",
        loudness=wording.loudness(velocity),
    )

    # A sound effect has a program of its own and no kit.
    source = {"kit": DRUM_KITS[kit]} if sound.program is None else {"program": sound.program}
    return ClipPlan(
        id=f"percussion-{split}-{sound.label.replace(' ', '_')}-{index:03d}",
        split=split,
        seconds=SECONDS,
        notes=notes,
        labels=(sound.label,),
        captions=captions,
        metadata={**source, "key": key, "velocity": velocity, "hits": count},
    )


def _strokes(
    sound: SoundClass, count: int, start: float, interval: float, key: int, velocity: int, kit: int
) -> tuple[Note, ...]:
    """Return equal strokes at equal distances."""
    # A drum fades by itself, so that its length matters little; waves and applause sound as long as their key is held.
    length = 1.2
    if sound.once:
        length = 2.5
    elif count > 1:
        length = min(interval, length)

    notes = []
    for number in range(count):
        note = Note(
            start=round(start + number * interval, 3),
            length=length,
            pitch=key,
            velocity=velocity,
            program=kit if sound.program is None else sound.program,
            drum=sound.program is None,
        )
        notes.append(note)
    return tuple(notes)
