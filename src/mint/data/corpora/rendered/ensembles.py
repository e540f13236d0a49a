"""*ensembles*: one to three instruments in a short phrase, several labels a clip, after OpenMIC-2018 (Humphrey et al.).

The vocabulary is sixteen of OpenMIC's twenty instruments, in its order. A phrase has a key, a tempo and a chord every
two beats; each instrument takes the role that suits it: a line, chords, the bass or the drums.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from mint.data.corpora.rendered import wording
from mint.data.corpora.rendered.plan import ClipPlan, scaled
from mint.data.corpora.rendered.soundfont import Note
from mint.data.manifests.prompts import INSTRUMENTS_PROMPT


@dataclass(frozen=True)
class Instrument:
    """One entry of the vocabulary."""

    name: str
    role: str
    """`line`, `chords`, `bass` or `drums`."""
    programs: tuple[int, ...]
    low: int
    """Lowest pitch it plays here."""
    high: int


INSTRUMENTS = (
    Instrument("accordion", "chords", (21,), 53, 79),
    Instrument("banjo", "chords", (105,), 50, 76),
    Instrument("bass", "bass", (32, 33, 36), 28, 45),
    Instrument("cello", "line", (42,), 40, 64),
    Instrument("clarinet", "line", (71,), 53, 79),
    Instrument("drums", "drums", (0, 8, 16), 0, 0),
    Instrument("flute", "line", (73,), 64, 91),
    Instrument("guitar", "chords", (24, 25, 27), 45, 72),
    Instrument("mallet percussion", "line", (11, 12), 57, 84),
    Instrument("organ", "chords", (16, 17, 19), 48, 79),
    Instrument("piano", "chords", (0, 1), 48, 84),
    Instrument("saxophone", "line", (64,), 56, 80),
    Instrument("synthesizer", "line", (80, 81), 52, 79),
    Instrument("trumpet", "line", (56,), 56, 80),
    Instrument("violin", "line", (40,), 60, 88),
    Instrument("voice", "line", (52, 54), 55, 76),
)

PROMPT = INSTRUMENTS_PROMPT
VOCABULARY = tuple(instrument.name for instrument in INSTRUMENTS)
SIZES = {"train": 500, "validation": 60, "test": 150}
"""Clips in all."""
SECONDS = 4.0
LOUDEST = (55, 80, 100)
"""Velocity of a soft, a medium loud and a loud clip."""
MAJOR = (0, 2, 4, 5, 7, 9, 11)
BASS_DRUM, SNARE_DRUM, CLOSED_HI_HAT = 36, 38, 42
"""Keys of General MIDI's drum kits."""
DEGREES = (0, 3, 4, 5)
"""Steps of the scale that carry a chord: I, IV, V and vi."""

SOLO_TEMPLATES = (
    "{names} alone, playing {a_tempo}, {loudness} phrase",
    "{a_tempo} solo for {names}, {loudness}",
    "solo {names}: {a_loudness}, {tempo} tune",
)
TEMPLATES = (
    "{names} playing together, {tempo} and {loudness}",
    "{a_tempo}, {loudness} {size} of {names}",
    "{a_loudness}, {tempo} phrase played by {names}",
    "{names} in {a_tempo}, {loudness} {size}",
)


PlayedNotes = list[tuple[float, float, int]]
"""(start, length, pitch) of each note of an instrument; times in beats."""


def plan(seed: int, scale: float) -> list[ClipPlan]:
    """Decide on every phrase; all instruments are used equally often."""
    rng = random.Random(f"ensembles {seed}")
    plans = []
    for split, size in SIZES.items():
        deck: list[Instrument] = []
        for index in range(scaled(size, scale)):
            count = rng.choice((1, 2, 2, 3, 3))
            players: list[Instrument] = []
            while len(players) < count:
                # Each instrument is dealt once before any is dealt twice.
                deck = deck or rng.sample(INSTRUMENTS, len(INSTRUMENTS))
                players.append(_dealt(rng, deck, players))
                deck = [instrument for instrument in deck if instrument is not players[-1]]
            plans.append(_phrase(rng, f"ensembles-{split}-{index:04d}", split, players))
    return plans


def _dealt(rng: random.Random, deck: list[Instrument], players: list[Instrument]) -> Instrument:
    """Return the last instrument of a deck that does not play yet, or, if all of them do, any other one."""
    fresh = [instrument for instrument in deck if instrument not in players]
    if fresh:
        return fresh[-1]
    return rng.choice([instrument for instrument in INSTRUMENTS if instrument not in players])


def _phrase(rng: random.Random, name: str, split: str, players: list[Instrument]) -> ClipPlan:
    """Decide on one phrase: tempo, key, chords, loudness, and what each instrument plays."""
    # Labels and captions name the instruments in the order of the vocabulary, whatever was drawn first.
    players.sort(key=INSTRUMENTS.index)
    beats_a_minute = rng.randint(75, 160)
    beat = 60 / beats_a_minute
    tonic = rng.randrange(12)
    # The last notes need some time to fade.
    beats = int((SECONDS - 0.3) / beat)
    chords = [0] + [rng.choice(DEGREES) for _ in range(beats // 2)]
    loudest = rng.choice(LOUDEST)

    notes: list[Note] = []
    programs: set[int] = set()
    for player in players:
        program = rng.choice(player.programs)
        is_drum = player.role == "drums"
        # The number of a drum kit is no instrument of the list of programs.
        if not is_drum:
            programs.add(program)
        for start, length, pitch in ROLES[player.role](rng, player, tonic, chords, beats):
            velocity = loudest + rng.randint(-8, 8)
            notes.append(Note(round(start * beat, 3), round(length * beat, 3), pitch, velocity, program, is_drum))

    names = [player.name for player in players]
    captions = wording.captions(
        rng,
        TEMPLATES if len(players) > 1 else SOLO_TEMPLATES,
        names=wording.enumeration(names),
        size={1: "solo", 2: "duet", 3: "trio"}[len(players)],
        tempo=wording.tempo(beats_a_minute),
        loudness=wording.loudness(loudest),
    )
    return ClipPlan(
        id=name,
        split=split,
        seconds=SECONDS,
        notes=tuple(notes),
        labels=tuple(names),
        captions=captions,
        metadata={"programs": sorted(programs), "beats_a_minute": beats_a_minute},
    )


def _line(rng: random.Random, player: Instrument, tonic: int, chords: list[int], beats: int) -> PlayedNotes:
    """Return a melody that moves by small steps of the scale."""
    scale = [pitch for pitch in range(player.low, player.high + 1) if (pitch - tonic) % 12 in MAJOR]
    # Begins anywhere and turns back at the ends of the instrument's range.
    index, now = rng.randrange(len(scale)), 0.0
    notes: PlayedNotes = []
    while now < beats:
        length = min(rng.choice((0.5, 1, 1, 2)), beats - now)
        # A tenth is left between notes, so that repeated ones are heard as two.
        notes.append((now, 0.9 * length, scale[index]))
        index = min(max(index + rng.randint(-2, 2), 0), len(scale) - 1)
        now += length
    return notes


def _chords(rng: random.Random, player: Instrument, tonic: int, chords: list[int], beats: int) -> PlayedNotes:
    """Return the chords, struck every one or two beats, or broken in half beats."""
    # The lowest tonic that the instrument can play.
    base = player.low + (tonic - player.low) % 12
    step, is_broken = rng.choice((1, 2)), rng.random() < 0.5

    notes: PlayedNotes = []
    for now in range(0, beats, step):
        # A chord lasts two beats.
        degree = chords[now // 2]
        # In the octave above the tonic, whatever the degree: chords follow each other without leaps.
        triad = [base + MAJOR[(degree + third) % 7] for third in (0, 2, 4)]
        if is_broken:
            for half in range(2 * min(step, beats - now)):
                notes.append((now + half / 2, 0.45, triad[half % 3]))
        else:
            for pitch in triad:
                notes.append((now, 0.9 * step, pitch))
    return notes


def _bass(rng: random.Random, player: Instrument, tonic: int, chords: list[int], beats: int) -> PlayedNotes:
    """Return the roots of the chords, a note a beat; one of three is the fourth below."""
    base = player.low + (tonic - player.low) % 12
    notes: PlayedNotes = []
    for now in range(beats):
        root = base + MAJOR[chords[now // 2]]
        notes.append((now, 0.8, root - rng.choice((0, 0, 5))))
    return notes


def _drums(rng: random.Random, player: Instrument, tonic: int, chords: list[int], beats: int) -> PlayedNotes:
    """Return bass drum and snare drum in turn, over a closed hi-hat."""
    hats_a_beat = rng.choice((1, 2, 4))
    notes: PlayedNotes = []
    for now in range(beats):
        notes.append((now, 0.2, BASS_DRUM if now % 2 == 0 else SNARE_DRUM))
    for index in range(beats * hats_a_beat):
        notes.append((index / hats_a_beat, 0.1, CLOSED_HI_HAT))
    return notes


ROLES = {"line": _line, "chords": _chords, "bass": _bass, "drums": _drums}
