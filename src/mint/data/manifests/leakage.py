"""What training and test share: recordings, files by their bytes, sound however it is stored, captions by their words.

The paper trains on WavCaps and Freesound and calls Clotho, whose clips come from Freesound, zero-shot; it names no such
check. WavCaps publishes blacklists of its clips that held-out sets contain: they are read as well. Only what the test
splits hold is kept in memory; the training manifests, which may have millions of lines, are streamed. A file is read
only if its size, and then its first 64 KiB, are those of a test file; sound is decoded only if it is asked for.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from mint.data.audio.decode import Samples, load_parts, probe, windows
from mint.data.audio.fingerprint import RATE, SoundIndex
from mint.data.audio.members import HEAD, digest, locate
from mint.data.manifests.manifest import read_manifest
from mint.data.manifests.recording_ids import read_blacklist, recording_ids
from mint.types import Example, MintError

TEST_SPLITS = ("test", "unseen")
PAIRS = 20
"""Pairs of each kind that a report lists."""
COMPARED = ("id", "file", "sound", "caption")
"""What is compared; each has its counts in `Overlap`."""


@dataclass
class Overlap:
    """What training shares with one test split."""

    corpus: str
    task: str
    split: str
    clips: int = 0
    with_id: int = 0
    """Clips whose Freesound or YouTube id is known; of the others, `by_id` says nothing."""
    with_file: int = 0
    """Clips whose file can be read."""
    with_sound: int = 0
    """Clips whose sound was compared: if it was asked for, those that are longer than a second and not silent."""
    with_caption: int = 0
    by_id: int = 0
    """Clips of a recording that is also trained on."""
    by_file: int = 0
    """Clips whose file has the bytes of a training file (whatever part of it is used)."""
    by_sound: int = 0
    """Clips that have a stretch of sound in common with a training clip, perhaps shifted, louder or encoded anew."""
    by_caption: int = 0
    """Clips one of whose captions is, in the same words, a training caption too."""
    training_corpora: dict[str, dict[str, int]] = field(default_factory=dict)
    """Training clips that are shared, by kind (one of `COMPARED`) and corpus."""
    pairs: list[tuple[str, str, str]] = field(default_factory=list)
    """Kind, training clip and test clip; the first of each kind."""


@dataclass
class Leakage:
    """The report."""

    training_clips: int
    splits: list[Overlap]
    blacklists: dict[str, dict[str, int]] = field(default_factory=dict)
    """By file: `ids` that it holds, training `clips` that are on it, and `unread` entries, which are no ids."""
    training_with: dict[str, int] = field(default_factory=dict)
    """Training clips that have an `id` or a `caption` to compare."""

    def clean(self) -> bool:
        """Return whether no recording is shared and no training clip blacklisted; captions may coincide."""
        listed = sum(counts["clips"] for counts in self.blacklists.values())
        shared = sum(split.by_id + split.by_file + split.by_sound for split in self.splits)
        return not listed and not shared

    def not_compared(self) -> dict[str, str]:
        """Return the kinds of which nothing was compared, each with the reason; of sound, only if it was asked for."""
        reasons = {}
        for kind in ("id", "file", "caption"):
            if not any(getattr(split, f"with_{kind}") for split in self.splits):
                reasons[kind] = f"no test clip has {NAMES[kind]}"
            elif not self.training_with.get(kind, 1):
                reasons[kind] = f"no training clip has {NAMES[kind]}"
        return reasons


NAMES = {"id": "a Freesound or YouTube id", "file": "a file that can be read", "caption": "a caption"}


def find_leakage(
    training: Iterable[Example], tests: Iterable[Example], blacklists: Sequence[Path] = (), sound: bool = False
) -> Leakage:
    """Compare what is trained on with what is tested on.

    Args:
        training: streamed once; those of the split `train` count.
        tests: streamed once before; those of the splits `test` and `unseen` count.
        blacklists: JSON files in WavCaps' format.
        sound: decode all clips, and look for copies that are shifted, cut, louder or encoded anew.

    Raises:
        MintError: nothing to train or to test on, nothing in them that can be compared, or a blacklist that cannot be
            read.
    """
    listed = {str(path): read_blacklist(path) for path in blacklists}
    index = _TestIndex(tests, sound)
    if not index.splits:
        raise MintError(f"no clips to test on; give manifests with the splits {' or '.join(TEST_SPLITS)}")

    report = Leakage(0, list(index.splits.values()), training_with={"id": 0, "caption": 0})
    for path, banned in listed.items():
        report.blacklists[path] = {"ids": len(banned.ids), "clips": 0, "unread": banned.unread}
    # Training is streamed against an index of the tests, which are few beside it.
    for example in training:
        if example.split != "train":
            continue

        ids, captions = recording_ids(example), _captions(example)
        report.training_clips += 1
        report.training_with["id"] += bool(ids)
        report.training_with["caption"] += bool(captions)
        for path, banned in listed.items():
            # True counts as 1.
            report.blacklists[path]["clips"] += not ids.isdisjoint(banned.ids)

        index.compare(example, ids, captions)
    if not report.training_clips:
        raise MintError("no clips to train on; give manifests with the split train")

    index.count()
    # Where nothing can be compared, a report of zeros would read as "clean".
    compared_sound = any(split.with_sound for split in report.splits)
    reasons = report.not_compared()
    if len(reasons) == len(NAMES) and not compared_sound and not listed:
        raise MintError(
            f"nothing was compared: {'; '.join(reasons.values())}; give ids under the metadata (freesound_id or "
            "youtube_id, as columns of a table for `mint data prepare csv`), or fetch the recordings, of which --sound "
            "finds copies"
        )
    return report


def leakage_record(
    training: Sequence[str | Path], tests: Iterable[Example], blacklists: Sequence[str | Path] = ()
) -> dict[str, Any]:
    """Return `find_leakage` as JSON values for a results file; where it cannot be computed, `not_computed` says why.

    Args:
        training: manifests that the evaluated run was trained on.
        tests: what it is evaluated on; its training examples are passed over.
        blacklists: as of `find_leakage`.
    """
    try:
        manifests = dict.fromkeys(map(str, training))  # each once
        examples = chain.from_iterable(map(read_manifest, manifests))
        return asdict(find_leakage(examples, tests, [Path(path) for path in blacklists]))
    except MintError as error:
        return {"not_computed": str(error)}


def normalised(caption: str) -> str:
    """Return the words of a caption, without case, punctuation and the ways to write one character."""
    # NFKC: an accented letter may be one character or two, and full-width forms are those of Japanese keyboards.
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", caption).casefold()))


class SameBytes:
    """Finds those of some files that have the bytes of another one, reading as little as it takes."""

    def __init__(self) -> None:
        self._by_size: dict[int, dict[Path, None]] = {}
        # The files of the sizes that were asked for, by the digest of their beginning.
        self._by_head: dict[int, dict[str, list[Path]]] = {}

    def add(self, path: Path) -> bool:
        """Take a file in, before anything is asked; return False if it cannot be read.

        A file that is taken in twice counts once.
        """
        try:
            self._by_size.setdefault(locate(path).size, {})[path] = None
        except OSError:
            return False
        return True

    def same(self, path: Path) -> list[Path]:
        """Return the files that were taken in and have the bytes of this one."""
        try:
            size = locate(path).size
            if size not in self._by_size:
                return []

            candidates = self._heads(size).get(digest(path, HEAD), [])
            if size <= HEAD or candidates in ([], [path]):  # that was the whole file, or there is no other one
                return candidates
            whole = digest(path)
        except OSError:
            return []
        return [other for other in candidates if _digest(other) == whole]

    def _heads(self, size: int) -> dict[str, list[Path]]:
        """Return the files of one size by the digest of their beginning."""
        if size not in self._by_head:
            heads = self._by_head[size] = {}
            for path in self._by_size[size]:
                with suppress(OSError):  # gone since
                    heads.setdefault(digest(path, HEAD), []).append(path)
        return self._by_head[size]


class _TestIndex:
    """The test clips by what they can share, and what was found shared so far."""

    def __init__(self, tests: Iterable[Example], sound: bool) -> None:
        self.splits: dict[tuple[str, str, str], Overlap] = {}
        # By kind and value: split, number and id of the test clips that have it.
        self._clips: dict[tuple[str, str], list[tuple[Overlap, int, str]]] = {}
        # By kind: split and number of the test clips that are shared.
        self._shared: dict[str, set[tuple[int, int]]] = defaultdict(set)
        self._files = SameBytes()
        self._sounds = SoundIndex() if sound else None
        for example in tests:
            if example.split in TEST_SPLITS:
                self._add(example)

    def _add(self, example: Example) -> None:
        """Take in a test clip."""
        key = (example.corpus, example.task, example.split)
        split = self.splits.setdefault(key, Overlap(*key))
        split.clips += 1
        ids, captions = recording_ids(example), _captions(example)
        split.with_id += bool(ids)
        split.with_file += self._files.add(example.audio)
        split.with_caption += bool(captions)

        values = [("file", str(example.audio))]
        values += zip(repeat("id"), ids)
        values += zip(repeat("caption"), captions)
        if self._sounds is not None:
            part = f"{example.audio}@{example.start}+{example.duration}"
            is_known = ("sound", part) in self._clips  # another task has the same clip
            if is_known or self._sounds.add(part, _stretches(example)):
                split.with_sound += 1
                values.append(("sound", part))

        for value in values:
            self._clips.setdefault(value, []).append((split, split.clips, example.id))

    def compare(self, example: Example, ids: frozenset[str], captions: frozenset[str]) -> None:
        """Note what a training clip shares."""
        shared: dict[str, Iterable[object]] = {"id": ids, "caption": captions}
        shared["file"] = self._files.same(example.audio)
        shared["sound"] = self._sounds.find(_stretches(example)) if self._sounds is not None else ()

        counted: set[tuple[int, str]] = set()
        for kind, values in shared.items():
            for value in values:
                for clip in self._clips.get((kind, str(value)), ()):
                    self._note(kind, example, clip, counted)

    def _note(self, kind: str, example: Example, clip: tuple[Overlap, int, str], counted: set[tuple[int, str]]) -> None:
        """Note that a training clip shares something with a test clip; it counts once for each split and kind."""
        # A clip may share several captions, and be met again by the next training clip: each pair of clips counts once.
        split, number, name = clip
        if (id(split), kind) not in counted:
            counted.add((id(split), kind))
            counts = split.training_corpora.setdefault(kind, {})
            counts[example.corpus] = counts.get(example.corpus, 0) + 1

        if (id(split), number) not in self._shared[kind]:
            self._shared[kind].add((id(split), number))
            # A few pairs are enough to look at, and the report stays readable.
            if sum(pair[0] == kind for pair in split.pairs) < PAIRS:
                split.pairs.append((kind, f"{example.corpus}/{example.id}", f"{split.corpus}/{name}"))

    def count(self) -> None:
        """Write down how many test clips of each split are shared."""
        for kind in COMPARED:
            counts = Counter(split for split, _ in self._shared[kind])
            for split in self.splits.values():
                setattr(split, f"by_{kind}", counts[id(split)])


def _captions(example: Example) -> frozenset[str]:
    """Return the captions of a clip, normalised, without those that hold no word."""
    return frozenset(filter(None, map(normalised, example.captions)))


def _stretches(example: Example) -> Iterator[Samples]:  # yields [S]
    """Yield the windows of a clip, at the rate at which sound is compared; nothing of a clip that cannot be decoded."""
    with suppress(MintError, OSError):
        length = probe(example.audio)[0] - example.start
        if example.duration is not None:
            length = min(length, example.duration)

        parts = [(example.start + offset, seconds) for offset, seconds in windows(length)]
        yield from load_parts(example.audio, RATE, parts)


@lru_cache(maxsize=1 << 16)
def _digest(path: Path) -> str:
    """Return the digest of all bytes of a file; nothing for one that is gone since."""
    try:
        return digest(path)
    except OSError:
        return ""
