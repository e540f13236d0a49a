"""Which clips are parts of one recording, and splits that keep them together.

Clips of one recording in two splits make a test of memory. A recording is known by a column of the table (`GROUPS`), by
the same bytes, or by names that differ at their end only: `1-100032-A-0.wav` and `1-100032-B-0.wav` by a letter,
`rex_1.wav` and `rex_2.wav` by a number. A letter is taken for a part of a recording. A number may as well count
recordings: it is taken for a part where at least three different names of the label are left without it.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from mint.data.corpora.own.rows import GROUPS

TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1
SHARES = {"test": 0.1, "validation": 0.1, "train": 0.8}
"""Shares of the splits of a table that is read as a stream."""
LETTER = re.compile(r"(.+)[-_ ][A-Za-z](?:[-_ ]\d+)?")
NUMBER = re.compile(r"(.+?)(?:[-_ ](?:part|take|clip|seg|segment)?\d{1,3})+")
ORIGIN = re.compile(r"\d{4}")
"""A name with such a number in it is that of one recording in every folder, as Freesound's numbers are."""
FEWEST, FEWEST_TO_VALIDATE = 3, 5
"""Recordings that a label must have before one of them is tested on, and before one is for validation."""


def group_of(row: Mapping[str, Any]) -> str | None:
    """Return the recording that a row says its clip is cut from; None where it does not say."""
    # UrbanSound8K writes fsID.
    named = {name.lower(): value for name, value in row.items()}
    for column in GROUPS:
        if named.get(column) not in (None, ""):
            return f"{column} {named[column]}"
    return None


def name_before_letter(audio: str) -> str | None:
    """Return the path of a clip up to the letter at its end; None where there is none."""
    return _before(LETTER, audio)


def name_before_number(audio: str) -> str | None:
    """Return the path of a clip up to the number at its end; None where there is none."""
    return _before(NUMBER, audio)


def _before(ending: re.Pattern[str], audio: str) -> str | None:
    """Return the path of a clip up to an ending of its name; None where the name does not end so."""
    path = PurePosixPath(audio)
    match = ending.fullmatch(path.stem)
    if match is None:
        return None

    # Freesound's numbers name one recording in every folder; `1-A` in two folders are two recordings.
    return match[1] if ORIGIN.search(match[1]) else str(path.with_name(match[1]))


class DrawnSplits:
    """Splits drawn from path and seed alone, so that a longer table leaves the clips it had where they were.

    Args:
        seed: of the draws.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        # Clips by their name up to a letter, which keeps them together.
        self._lettered: dict[str, set[str]] = defaultdict(set)
        # Splits, and the number of clips, by their name up to a number, which does not.
        self._numbered: dict[str, set[str]] = defaultdict(set)
        self._counts: Counter[str] = Counter()

    def draw(self, audio: str, group: str | None) -> str:
        """Return the split of a clip; those of one group, file, or name up to a letter have the same."""
        stem = name_before_letter(audio)
        # A generator for each clip: the draw must not depend on the clips before it.
        rng = random.Random(f"{self._seed} {group or stem or audio}")
        split = rng.choices(list(SHARES), list(SHARES.values()))[0]

        if group is None and stem is not None:
            self._lettered[stem].add(audio)
        elif group is None:
            numbered = name_before_number(audio)
            if numbered is not None:
                self._numbered[numbered].add(split)
                self._counts[numbered] += 1
        return split

    def notes(self) -> Iterator[str]:
        """Yield what a person should know of the names."""
        together = [sorted(clips) for clips in self._lettered.values() if len(clips) > 1]
        if together:
            yield note_of_together(together)

        torn: Counter[str] = Counter()
        for name, splits in self._numbered.items():
            if len(splits) > 1:
                torn[name] = self._counts[name]
        if torn:
            yield note_of_torn(torn)


def note_of_together(groups: Sequence[Sequence[str]]) -> str:
    """Return the note that clips whose names differ at their end are kept in one split."""
    count = sum(map(len, groups))
    some = " and ".join(groups[0][:2])
    return f"{count} clips whose names differ at the end alone, such as {some}, are kept in one split as one recording"


def note_of_torn(counts: Counter[str]) -> str:
    """Return the note that clips whose names differ at their end are taken for different recordings.

    Args:
        counts: number of clips by their name up to its end.
    """
    name = next(iter(counts))
    return (
        f"{counts.total()} clips whose names differ at the end alone, such as those of {name}, are taken for different "
        f"recordings, in several splits; if they are parts of one, give a table with a column 'group'"
    )


@dataclass(frozen=True)
class Clip:
    """A clip, with all that its split depends on."""

    name: str
    """Path relative to the source."""
    label: str
    content: str
    """Digest of the file's bytes."""
    group: str | None = None
    """The recording that the table says it is cut from."""


def assign_splits(clips: Sequence[Clip], seed: int, note: Callable[[str], None]) -> list[str]:
    """Return the split of each clip, drawn within its label so that clips of one recording stay together.

    About 70 / 10 / 20 % of the clips of each label are for training / validation / test, with at least one test clip
    where a label has three recordings.

    Args:
        clips: of all labels.
        seed: of the draws.
        note: told what the names showed.
    """
    # Sorted and then shuffled: the order of the files on disk decides nothing.
    rng = random.Random(f"splits {seed}")
    recording_of = _recordings(clips, note)
    contents_of: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        contents_of[clip.label].add(clip.content)

    # A recording may be under two labels: it has the split that it was given under the first.
    split_of: dict[str, str] = {}
    for label in sorted(contents_of):
        # A recording is known by the first of its contents.
        recordings: dict[str, set[str]] = {}
        for content in contents_of[label]:
            if content not in split_of:
                recordings[min(recording_of[content])] = recording_of[content]
        fresh = [recordings[key] for key in sorted(recordings)]
        rng.shuffle(fresh)

        for recording, split in zip(fresh, _divided(list(map(len, fresh))), strict=True):
            split_of.update(dict.fromkeys(recording, split))
    return [split_of[clip.content] for clip in clips]


def _divided(sizes: Sequence[int]) -> list[str]:
    """Return the split of each recording of a label, given how many clips each has; the first ones are tested on."""
    total = sum(sizes)
    wanted = {
        "test": max(1, round(TEST_SHARE * total)) if len(sizes) >= FEWEST else 0,
        "validation": max(1, round(VALIDATION_SHARE * total)) if len(sizes) >= FEWEST_TO_VALIDATE else 0,
    }

    splits = ["train"] * len(sizes)
    for split, count in wanted.items():
        missing = count
        for index, size in enumerate(sizes):
            if splits[index] == "train" and size <= missing:
                splits[index] = split
                missing -= size

        # Where each recording has more clips than are wanted, the smallest one is taken all the same.
        if count and missing == count:
            left = [index for index, name in enumerate(splits) if name == "train"]
            splits[min(left, key=sizes.__getitem__)] = split
    return splits


def _recordings(clips: Sequence[Clip], note: Callable[[str], None]) -> dict[str, set[str]]:
    """Return, for the content of each clip, the contents of all clips of its recording."""
    recording_of = {clip.content: {clip.content} for clip in clips}
    first: dict[str, str] = {}

    for clip, name in zip(clips, _names_of_recordings(clips, note), strict=True):
        for key in filter(None, (clip.group, name)):
            mine, other = recording_of[clip.content], recording_of[first.setdefault(key, clip.content)]
            # Both become one set, which all clips of either share from now on.
            if mine is not other:
                mine |= other
                recording_of.update(dict.fromkeys(other, mine))
    return recording_of


def _names_of_recordings(clips: Sequence[Clip], note: Callable[[str], None]) -> list[str | None]:
    """Return the name of the recording that each clip's own name tells, and note what was made of the names."""
    names: list[str | None] = [None] * len(clips)
    torn: Counter[str] = Counter()
    for indices in _indices_by_label(clips).values():
        for name_before in (name_before_letter, name_before_number):
            stems = {index: name_before(clips[index].name) for index in indices if names[index] is None}
            shared, is_enough = _shared(stems, is_letter=name_before is name_before_letter)
            for index, stem in shared.items():
                if is_enough:
                    names[index] = stem
                else:
                    torn[stem] += 1

    together: dict[str, list[str]] = defaultdict(list)
    for clip, name in zip(clips, names, strict=True):
        if name is not None:
            together[name].append(clip.name)
    if together:
        note(note_of_together(list(together.values())))
    if torn:
        note(note_of_torn(torn))
    return names


def _indices_by_label(clips: Sequence[Clip]) -> dict[str, list[int]]:
    """Return the indices of the clips of each label; a clip whose row says what it is cut from is left out."""
    by_label: dict[str, list[int]] = defaultdict(list)
    for index, clip in enumerate(clips):
        # What a table says counts for more than what a name seems to say.
        if clip.group is None:
            by_label[clip.label].append(index)
    return by_label


def _shared(stems: Mapping[int, str | None], is_letter: bool) -> tuple[dict[int, str], bool]:
    """Return the stems that several clips of a label share, and whether enough recordings are left to be divided.

    Args:
        stems: the name up to its end of each clip of a label; None where it has no such end.
        is_letter: whether names are cut before a letter: then a clip without one is a recording too.
    """
    counts = Counter(stems.values())
    others = counts.pop(None, 0)
    is_enough = len(counts) + (others if is_letter else 0) >= FEWEST

    shared: dict[int, str] = {}
    for index, stem in stems.items():
        if stem is not None and counts[stem] > 1:
            shared[index] = stem
    return shared, is_enough
