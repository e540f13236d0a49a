"""Words for the classes of AudioSet: how people call a sound, and plain sentences that tell of it.

The table `words.txt` is our own. Its kinds say what a class is to the corpus `sounds`:

- `event`: a sound that can be heard by itself. Only these are drawn.
- `silence`: no sound at all.
- `group`: a heading above other classes ("Animal", "Vehicle"). It is true of most clips of the classes below it, so it
  is neither drawn by itself nor held against them, and never names a clip where a class below it could.
- `scene`: where or how a recording was made ("Inside, small room", "Field recording"), which is no sound event.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mint.types import MintError

TABLE = Path(__file__).with_name("words.txt")
KINDS = ("event", "silence", "group", "scene")
PROPER = ("African", "Afrobeat", "Asian", "Bollywood", "Carnatic", "Christian", "Christmas", "Latin", "Middle")
"""First words of sentences that keep their capital inside another sentence."""
JOINTS = ("{} while {}", "{} and {}", "{} as {}", "{}, and then {}")
"""Ways to tell of two sounds in one sentence."""


@dataclass(frozen=True)
class SoundWords:
    """What is said of one class."""

    name: str
    """The display name in AudioSet."""
    kind: str
    """One of `KINDS`."""
    labels: tuple[str, ...]
    """Short names as people say them, the usual one first."""
    sentences: tuple[str, ...]


@functools.cache
def read_words() -> Mapping[str, SoundWords]:
    """Return the words of each class by its name, in the order of YAMNet's class map."""
    with TABLE.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="|"))

    words: dict[str, SoundWords] = {}
    for row in rows:
        labels = tuple(map(str.strip, row["labels"].split(";")))
        # A semicolon alone may stand inside a sentence.
        sentences = tuple(f"{sentence.strip().rstrip('.')}." for sentence in row["sentences"].split(".;"))
        words[row["class"]] = SoundWords(row["class"], row["kind"], labels, sentences)
    return words


def words_of(names: Sequence[str]) -> list[SoundWords]:
    """Return the words of some classes, in their order.

    Raises:
        MintError: a class is not in the table.
    """
    table = read_words()
    for name in names:
        if name not in table:
            raise MintError(f"there are no words for the class {name!r}; add a line to {TABLE.name}")
    return [table[name] for name in names]


def joined(first: str, second: str, joint: str) -> str:
    """Return one sentence that tells of two sounds, such as 'A dog barks while rain falls.'."""
    word = second.partition(" ")[0]
    # "Rain falls." goes on a sentence as "rain falls", a proper name keeps its capital.
    inside = second if word in PROPER else second[0].lower() + second[1:]
    return joint.format(first.removesuffix("."), inside.removesuffix(".")) + "."


def classes_called(label: str, names: Sequence[str]) -> list[int]:
    """Return the numbers of the classes that somebody's label may mean, none where the table does not know it.

    Those are the classes with a label or a name that is equal to it; where there are none, those with a label whose
    words are all in it: "person sneeze" means "Sneeze", and "clock tick" both "Clock" and "Tick".

    Args:
        label: a label of anybody's.
        names: the classes of an encoder, in its order.
    """
    asked = _words(label)
    equal: list[int] = []
    inside: list[int] = []
    for number, one in enumerate(words_of(names)):
        called = [_words(text) for text in (*one.labels, *one.name.split(","))]
        if asked in called:
            equal.append(number)
        if any(text and text <= asked for text in called):
            inside.append(number)
    return equal or inside


def _words(text: str) -> frozenset[str]:
    """Return the words of a label, without their order and without a genitive: "dog's bark" has dog and bark."""
    return frozenset(re.findall(r"[a-z]+", text.lower().replace("'s ", " ")))
