"""The instruments of General MIDI that the rendered corpora use, and which of them are never trained on.

Families are NSynth's eleven. No name holds the word of another family ("harmonium", not "reed organ"), so that a
caption names its own family and no other. Left out are the programs that belong plainly to none of them: pads, effects,
drums, plucked instruments that are not guitars; and, as TimGM6mb plays them silent or off pitch, whistle (78) and alto
saxophone (65).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Program:
    """One General MIDI program."""

    number: int
    """From 0."""
    name: str
    family: str
    low: int
    """Lowest pitch of its sensible range (MIDI number)."""
    high: int
    """Highest pitch, included."""
    unseen: bool = False
    """Never in any corpus's training split."""


# The order is NSynth's own, which is that of its indices.
FAMILIES = (
    "bass",
    "brass",
    "flute",
    "guitar",
    "keyboard",
    "mallet",
    "organ",
    "reed",
    "string",
    "synth lead",
    "vocal",
)
"""NSynth's instrument families (Engel et al., 2017)."""

PROGRAMS = (
    Program(32, "acoustic bass", "bass", 28, 55),
    Program(33, "fingered bass", "bass", 28, 55),
    Program(34, "picked bass", "bass", 28, 55),
    Program(35, "fretless bass", "bass", 28, 55, unseen=True),
    Program(36, "slap bass", "bass", 28, 55),
    Program(37, "popped bass", "bass", 28, 55),
    Program(38, "synth bass", "bass", 28, 55),
    Program(39, "rubber bass", "bass", 28, 55, unseen=True),
    Program(56, "trumpet", "brass", 54, 82),
    Program(57, "trombone", "brass", 40, 70, unseen=True),
    Program(58, "tuba", "brass", 28, 55),
    Program(59, "muted trumpet", "brass", 54, 82),
    Program(60, "French horn", "brass", 41, 74),
    Program(61, "brass section", "brass", 43, 79),
    Program(62, "synthetic brass", "brass", 43, 79, unseen=True),
    Program(63, "mellow brass", "brass", 43, 79),
    Program(72, "piccolo", "flute", 74, 96),
    Program(73, "concert flute", "flute", 60, 91),
    Program(74, "recorder", "flute", 65, 91, unseen=True),
    Program(75, "pan flute", "flute", 60, 88),
    Program(76, "blown bottle", "flute", 55, 84),
    Program(77, "shakuhachi", "flute", 55, 84),
    Program(79, "ocarina", "flute", 60, 88, unseen=True),
    Program(24, "nylon guitar", "guitar", 40, 76),
    Program(25, "steel guitar", "guitar", 40, 76),
    Program(26, "jazz guitar", "guitar", 40, 76, unseen=True),
    Program(27, "clean electric guitar", "guitar", 40, 76),
    Program(28, "muted guitar", "guitar", 40, 76),
    Program(29, "overdriven guitar", "guitar", 40, 76),
    Program(30, "distorted guitar", "guitar", 40, 76, unseen=True),
    Program(31, "guitar harmonics", "guitar", 40, 76),
    Program(0, "grand piano", "keyboard", 30, 96),
    Program(1, "bright piano", "keyboard", 30, 96),
    Program(2, "electric grand piano", "keyboard", 30, 96),
    Program(3, "honky-tonk piano", "keyboard", 30, 96, unseen=True),
    Program(4, "electric piano", "keyboard", 30, 96),
    Program(5, "bell-like electric piano", "keyboard", 30, 96, unseen=True),
    Program(6, "harpsichord", "keyboard", 36, 89),
    Program(7, "clavinet", "keyboard", 36, 89),
    Program(8, "celesta", "mallet", 60, 96),
    Program(9, "glockenspiel", "mallet", 72, 93),
    Program(10, "music box", "mallet", 60, 91, unseen=True),
    Program(11, "vibraphone", "mallet", 53, 89),
    Program(12, "marimba", "mallet", 45, 84),
    Program(13, "xylophone", "mallet", 65, 96, unseen=True),
    Program(14, "tubular bells", "mallet", 60, 77),
    Program(15, "dulcimer", "mallet", 50, 84),
    Program(108, "kalimba", "mallet", 55, 84),
    Program(114, "steel drum", "mallet", 55, 84),
    Program(16, "drawbar organ", "organ", 36, 84),
    Program(17, "percussive organ", "organ", 36, 84),
    Program(18, "rock organ", "organ", 36, 84, unseen=True),
    Program(19, "church organ", "organ", 36, 84),
    Program(20, "harmonium", "organ", 36, 84),
    Program(21, "accordion", "organ", 48, 84),
    Program(23, "bandoneon", "organ", 48, 84, unseen=True),
    Program(64, "soprano saxophone", "reed", 56, 84),
    Program(66, "tenor saxophone", "reed", 44, 75, unseen=True),
    Program(67, "baritone saxophone", "reed", 36, 68),
    Program(68, "oboe", "reed", 58, 88),
    Program(69, "English horn", "reed", 52, 81, unseen=True),
    Program(70, "bassoon", "reed", 34, 70),
    Program(71, "clarinet", "reed", 50, 86),
    Program(40, "violin", "string", 55, 96),
    Program(41, "viola", "string", 48, 84, unseen=True),
    Program(42, "cello", "string", 36, 74),
    Program(43, "contrabass", "string", 28, 60),
    Program(44, "tremolo ensemble", "string", 40, 88),
    Program(45, "pizzicato ensemble", "string", 40, 88),
    Program(48, "bowed ensemble", "string", 40, 88),
    Program(49, "slow ensemble", "string", 40, 88, unseen=True),
    Program(110, "fiddle", "string", 55, 88),
    Program(80, "square wave", "synth lead", 48, 84),
    Program(81, "saw wave", "synth lead", 48, 84),
    Program(82, "calliope", "synth lead", 48, 84, unseen=True),
    Program(83, "chiff", "synth lead", 48, 84),
    Program(84, "charang", "synth lead", 48, 84),
    Program(86, "fifths", "synth lead", 48, 84, unseen=True),
    Program(52, "choir singing ah", "vocal", 48, 79),
    Program(53, "voices singing oh", "vocal", 48, 79, unseen=True),
    Program(54, "synthetic voice", "vocal", 48, 79),
    Program(85, "solo voice", "vocal", 48, 79),
    Program(91, "space voice", "vocal", 48, 79, unseen=True),
)

# No corpus trains on these, not even ensembles and chords, so that they are new to a model in every way.
UNSEEN_PROGRAMS = frozenset(program.number for program in PROGRAMS if program.unseen)
NAMES = {program.number: program.name for program in PROGRAMS}

NOTE_NAMES = ("C", "C sharp", "D", "D sharp", "E", "F", "F sharp", "G", "G sharp", "A", "A sharp", "B")

DRUM_KITS = {0: "standard", 8: "room", 16: "power", 24: "electronic", 25: "808", 32: "jazz"}
"""Kits of channel 10 whose keys carry General MIDI's own percussion (the brush and orchestra kits do not)."""
