"""What training and test share: recordings by Freesound or YouTube id, files by their bytes, captions by their words.

The paper trains on WavCaps and Freesound and calls Clotho, whose clips come from Freesound, zero-shot; it names no such
check. WavCaps publishes blacklists of its clips that held-out sets contain: they are read as well. Only what the test
splits hold is kept in memory; the training manifests, which may have millions of lines, are streamed. A file is read
only if its size, and then its first 64 KiB, are those of a test file.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from mint.data.audio.members import HEAD, digest, locate
from mint.data.manifests.manifest import read_manifest
from mint.types import Example, MintError

TEST_SPLITS = ("test", "unseen")
PAIRS = 20
"""Pairs of each kind that a report lists."""
SECONDS = r"\d+(?:\.\d+)?"
SEGMENT = re.compile(
    rf"(?:Y?([\w-]{{11}})(?:_{SECONDS}(?:[_-]{SECONDS})?)?|\[([\w-]{{11}})\](?:-\[{SECONDS}-{SECONDS}\])?)"
    r"(?:\.[A-Za-z]\w{1,4})?",
    re.ASCII,
)
"""A file of a YouTube video or a segment of one, as the readers of corpora find them; the id is one of the groups."""
YOUTUBE_CORPORA = ("audioset", "audiocaps", "vggsound", "musiccaps")
FREESOUND_CORPORA = ("fsd50k", "freesound")
BLACKLIST_SOURCES = {"AudioSet": "youtube", "FreeSound": "freesound"}
"""Keys of a blacklist that hold ids of YouTube or Freesound; others are passed over."""


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
    with_caption: int = 0
    by_id: int = 0
    """Clips of a recording that is also trained on."""
    by_file: int = 0
    """Clips whose file has the bytes of a training file (whatever part of it is used)."""
    by_caption: int = 0
    """Clips one of whose captions is, in the same words, a training caption too."""
    training_corpora: dict[str, dict[str, int]] = field(default_factory=dict)
    """Training clips that are shared, by kind (`id`, `file`, `caption`) and corpus."""
    pairs: list[tuple[str, str, str]] = field(default_factory=list)
    """Kind, training clip and test clip; the first of each kind."""


@dataclass
class Leakage:
    """The report."""

    training_clips: int
    splits: list[Overlap]
    blacklists: dict[str, dict[str, int]] = field(default_factory=dict)
    """By file: `ids` that it holds, training `clips` that are on it, and `unread` entries, which are no ids."""

    def clean(self) -> bool:
        """Whether no recording and no file is shared, and no training clip blacklisted; captions may coincide."""
        listed = sum(counts["clips"] for counts in self.blacklists.values())
        return not listed and not any(split.by_id or split.by_file for split in self.splits)


def find_leakage(training: Iterable[Example], tests: Iterable[Example], blacklists: Sequence[Path] = ()) -> Leakage:
    """Compare what is trained on with what is tested on.

    Args:
        training: streamed once; those of the split `train` count.
        tests: streamed once before; those of the splits `test` and `unseen` count.
        blacklists: JSON files in WavCaps' format.

    Raises:
        MintError: nothing to train or to test on, or a blacklist that cannot be read.
    """
    listed = {str(path): read_blacklist(path) for path in blacklists}
    index = _TestIndex(tests)
    if not index.splits:
        raise MintError(f"no clips to test on; give manifests with the splits {' or '.join(TEST_SPLITS)}")
    report = Leakage(0, list(index.splits.values()))
    report.blacklists = {
        path: {"ids": len(banned.ids), "clips": 0, "unread": banned.unread} for path, banned in listed.items()
    }
    for example in training:
        if example.split == "train":
            report.training_clips += 1
            ids = recording_ids(example)
            for path, banned in listed.items():
                report.blacklists[path]["clips"] += not ids.isdisjoint(banned.ids)
            index.compare(example, ids)
    if not report.training_clips:
        raise MintError("no clips to train on; give manifests with the split train")
    index.count()
    return report


def leakage_record(
    training: Sequence[str | Path], tests: Iterable[Example], blacklists: Sequence[str | Path] = ()
) -> dict[str, Any]:
    """`find_leakage` as JSON values for a results file; where it cannot be computed, `not_computed` says why.

    Args:
        training: manifests that the evaluated run was trained on.
        tests: what it is evaluated on; its training examples are passed over.
        blacklists: as of `find_leakage`.
    """
    try:
        examples = (example for manifest in dict.fromkeys(map(str, training)) for example in read_manifest(manifest))
        return asdict(find_leakage(examples, tests, [Path(path) for path in blacklists]))
    except MintError as error:
        return {"not_computed": str(error)}


def recording_ids(example: Example) -> frozenset[str]:
    """Where a clip comes from, as `youtube:ID` and `freesound:ID`.

    `youtube_id` and `freesound_id` in its metadata are taken as they are; an empty one says that the id is not known.
    Where there is neither, its corpus says how ids and file names are made: AudioSet, AudioCaps, VGGSound and MusicCaps
    begin with the YouTube id, perhaps after a `Y`; FSD50K and Freesound with the number of the sound; ESC-50 has it
    second (`1-100032-A-0.wav`); WavCaps has a folder or `source` for each origin, and `Y...` or the number in it.
    Clotho's names hold none: its metadata do.
    """
    stated = {
        f"{site}:{value}"
        for site in ("youtube", "freesound")
        if (value := example.metadata.get(f"{site}_id")) not in (None, "")
    }
    # An id that is stated to be empty is not known; a file name must not be taken for it.
    if stated or "youtube_id" in example.metadata or "freesound_id" in example.metadata:
        return frozenset(stated)
    corpus = _plain(example.corpus)
    names = (example.id.rpartition("/")[2], example.audio.name)
    if corpus.startswith("wavcaps"):
        origin = _plain(f"{example.metadata.get('source', '')} {example.id} {example.audio.parent.name} {corpus}")
        found = _first(_youtube, names) if "audioset" in origin else None
        return found or (_first(_freesound, names) if "freesound" in origin else None) or frozenset()
    if corpus.startswith(YOUTUBE_CORPORA):
        return _first(_youtube, names) or frozenset()
    if corpus.startswith(FREESOUND_CORPORA):
        return _first(_freesound, names) or frozenset()
    if corpus.startswith("esc50"):
        return _first(lambda name: _freesound(name.partition("-")[2]), names) or frozenset()
    return frozenset()


@dataclass(frozen=True)
class Blacklist:
    """Recordings that should not be trained on."""

    ids: frozenset[str]
    """As `recording_ids` writes them."""
    unread: int
    """Entries that are no id of their source."""


def read_blacklist(path: Path) -> Blacklist:
    """A blacklist in WavCaps' format: `{"AudioSet": ["Yid.wav"], "FreeSound": ["number"]}`; lists may be empty.

    Raises:
        MintError: no such file, of another form, or entries of which none is an id.
    """
    try:
        content = json.loads(path.read_bytes())
        lists = {site: content[key] for key, site in BLACKLIST_SOURCES.items() if key in content}
    except FileNotFoundError:
        raise MintError(f"{path}: no such blacklist; check the path") from None
    except (OSError, ValueError, TypeError) as error:
        raise MintError(f"{path} is no blacklist ({error}); it must hold lists AudioSet and FreeSound") from None
    if not lists or not all(isinstance(entries, list) for entries in lists.values()):
        raise MintError(f"{path} is no blacklist; it must hold lists AudioSet and FreeSound")
    read = {"youtube": _youtube, "freesound": _freesound}
    pairs = [
        (entry, read[site](str(entry)) if type(entry) in (str, int) else frozenset())
        for site, entries in lists.items()
        for entry in entries
    ]
    ids = frozenset[str]().union(*(found for _, found in pairs))
    if pairs and not ids:
        raise MintError(
            f"{path} is no blacklist: none of its {len(pairs)} entries, such as {pairs[0][0]!r}, "
            f"is a YouTube id or a Freesound number"
        )
    return Blacklist(ids, sum(not found for _, found in pairs))


def normalised(caption: str) -> str:
    """The words of a caption: without case, punctuation and the ways to write one character."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", caption).casefold()))


class SameBytes:
    """Finds those of some files that have the bytes of another, reading as little as it takes."""

    def __init__(self) -> None:
        self._by_size: dict[int, dict[Path, None]] = {}
        self._by_head: dict[int, dict[str, list[Path]]] = {}
        """Of the sizes that were asked for."""

    def add(self, path: Path) -> bool:
        """Take a file in, before anything is asked; False if it cannot be read. Taken in twice, it counts once."""
        try:
            self._by_size.setdefault(locate(path).size, {})[path] = None
        except OSError:
            return False
        return True

    def same(self, path: Path) -> list[Path]:
        """Files that were taken in and have the bytes of this one."""
        try:
            size = locate(path).size
            if size not in self._by_size:
                return []
            candidates = self._heads(size).get(digest(path, HEAD), [])
            if size <= HEAD or candidates in ([], [path]):
                return candidates
            whole = digest(path)
        except OSError:
            return []
        return [other for other in candidates if _digest(other) == whole]

    def _heads(self, size: int) -> dict[str, list[Path]]:
        """The files of one size by the digest of their beginning."""
        if size not in self._by_head:
            heads = self._by_head[size] = {}
            for path in self._by_size[size]:
                with suppress(OSError):  # gone since
                    heads.setdefault(digest(path, HEAD), []).append(path)
        return self._by_head[size]


class _TestIndex:
    """The test clips by what they can share, and what was found shared so far."""

    def __init__(self, tests: Iterable[Example]) -> None:
        self.splits: dict[tuple[str, str, str], Overlap] = {}
        self._clips: dict[tuple[str, str], list[tuple[Overlap, int, str]]] = {}
        """Split, number and id of test clips by kind and value."""
        self._shared: dict[str, set[tuple[int, int]]] = {"id": set(), "file": set(), "caption": set()}
        """Split and number of test clips by kind."""
        self._files = SameBytes()
        for example in tests:
            if example.split in TEST_SPLITS:
                self._add(example)

    def _add(self, example: Example) -> None:
        place = (example.corpus, example.task, example.split)
        split = self.splits.setdefault(place, Overlap(*place))
        split.clips += 1
        ids, captions = recording_ids(example), _captions(example)
        readable = self._files.add(example.audio)
        split.with_id += bool(ids)
        split.with_file += readable
        split.with_caption += bool(captions)
        values = [("id", one) for one in ids] + [("caption", one) for one in captions]
        for value in [*values, ("file", str(example.audio))]:
            self._clips.setdefault(value, []).append((split, split.clips, example.id))

    def compare(self, example: Example, ids: frozenset[str]) -> None:
        """Note what a training clip shares."""
        values = [("id", one) for one in ids] + [("caption", one) for one in _captions(example)]
        values += [("file", str(path)) for path in self._files.same(example.audio)]
        met: set[tuple[int, str]] = set()
        for kind, value in values:
            for clip in self._clips.get((kind, value), ()):
                self._note(kind, example, clip, met)

    def _note(self, kind: str, example: Example, clip: tuple[Overlap, int, str], met: set[tuple[int, str]]) -> None:
        split, number, name = clip
        if (id(split), kind) not in met:
            met.add((id(split), kind))
            counts = split.training_corpora.setdefault(kind, {})
            counts[example.corpus] = counts.get(example.corpus, 0) + 1
        if (id(split), number) not in self._shared[kind]:
            self._shared[kind].add((id(split), number))
            if sum(pair[0] == kind for pair in split.pairs) < PAIRS:
                split.pairs.append((kind, f"{example.corpus}/{example.id}", f"{split.corpus}/{name}"))

    def count(self) -> None:
        """Write down how many test clips of each split are shared."""
        counts = {kind: Counter(place for place, _ in shared) for kind, shared in self._shared.items()}
        for split in self.splits.values():
            split.by_id, split.by_file, split.by_caption = (counts[kind][id(split)] for kind in counts)


def _captions(example: Example) -> frozenset[str]:
    return frozenset(words for caption in example.captions if (words := normalised(caption)))


def _plain(name: str) -> str:
    """A corpus's name however it is written: `ESC-50`, `esc50`."""
    return re.sub(r"[\W_]", "", name).lower()


def _first(read: Callable[[str], frozenset[str]], names: Iterable[str]) -> frozenset[str] | None:
    return next(filter(None, map(read, names)), None)


def _youtube(name: str) -> frozenset[str]:
    """The YouTube id in `Yxxxxxxxxxxx.wav`, `xxxxxxxxxxx_30.000-40.000.flac`, `[xxxxxxxxxxx]-[30-40].mp3`."""
    found = SEGMENT.fullmatch(name)
    return frozenset({f"youtube:{found[1] or found[2]}"}) if found else frozenset()


def _freesound(name: str) -> frozenset[str]:
    """The number at the beginning of `64760.wav`, `64760_1.wav` or `64760`."""
    found = re.match(r"(\d+)(?=$|[^\w]|_)", name)
    return frozenset({f"freesound:{int(found[1])}"}) if found else frozenset()


@lru_cache(maxsize=1 << 16)
def _digest(path: Path) -> str:
    """Of all bytes; none for a file that is gone since."""
    try:
        return digest(path)
    except OSError:
        return ""
