"""Everything that is wrong with some manifests, not only the first thing, and what they hold.

Two passes, both streamed: the first reads every line (schema, ids, texts, labels, recordings that two splits share) and
keeps a few numbers of each; the second looks at the audio, in threads, since decoding lets go of the interpreter.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

from tqdm.auto import tqdm

from mint.data.audio.members import digest
from mint.data.manifests.check_clip import ClipCheck, check_clip
from mint.data.manifests.manifest import SPLITS, manifest_rows, parse_line
from mint.data.manifests.recording_ids import recording_ids
from mint.text_files import shown
from mint.types import Example, MintError

KINDS = ("schema", "id", "text", "label", "split", "audio", "sound", "duration")
Audio = Literal["all", "headers", "none"] | int
"""Which clips are decoded: all; none, but every header is read; none at all; or so many, drawn by chance, and every
header."""
CHUNK = 1024
"""Clips that the threads have before them."""
LINE_BITS = 40
"""A location is one number: that of the manifest, and in its last bits that of the line."""
TORN_CORPORA = ("vggsound",)
"""Corpora whose published lists have segments of one recording in two splits: six videos of VGGSound are in both. It is
noted, but no problem of the manifest."""


@dataclass(frozen=True)
class Problem:
    """One thing to mend."""

    file: str
    line: int
    """Line of a JSON Lines manifest, or row of a Parquet one, from 1."""
    message: str
    kind: str
    """One of `KINDS`."""


@dataclass
class Group:
    """What the manifests hold for one corpus, task and split."""

    corpus: str
    task: str
    split: str
    clips: int = 0
    captions: int = 0
    labels: int = 0
    """Number of different labels."""
    seconds: float = 0.0
    """Length of the clips whose header was read."""


@dataclass
class Report:
    """What the manifests hold, and everything that is wrong with them."""

    clips: int = 0
    decoded: int = 0
    """Clips that were decoded as a whole; others are among the problems, or were not to be decoded."""
    groups: list[Group] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    """In the order of the manifests and their lines."""
    notes: list[Problem] = field(default_factory=list)
    """What is as the corpus publishes it, and nothing to mend."""


def validate(
    manifests: Sequence[Path],
    audio: Audio = "all",
    labels: Collection[str] | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> Report:
    """Check manifests, those of one corpus's splits together.

    Args:
        manifests: JSON Lines or Parquet.
        audio: which clips are decoded; of a long clip, the windows that training and evaluation use. With `all`, files
            of the same bytes in two splits are found too.
        labels: the labels that there are; None: those that are trained on, for each task that trains on any.
        workers: threads; None: one for each core.
        progress: show a bar on standard error.

    Raises:
        MintError: no such manifest, or one without examples.
    """
    report = Report()
    checker = _Checker(manifests, labels, report)
    for example, location in checker.examples(report.problems):
        checker.check(example, location)
    checker.check_labels()
    if audio != "none":
        _check_all_audio(checker, audio, workers or os.cpu_count() or 1, progress)

    report.groups = [checker.groups[key] for key in sorted(checker.groups)]

    # Threads and passes note problems in their own order.
    order = {str(path): index for index, path in enumerate(manifests)}
    for problems in (report.problems, report.notes):
        problems.sort(key=lambda problem: (order[problem.file], problem.line))
    return report


class _Checker:
    """What the first pass keeps of the lines: a hash and a location for each id and recording, and the labels."""

    def __init__(self, manifests: Sequence[Path], labels: Collection[str] | None, report: Report) -> None:
        self.manifests = manifests
        self.report = report
        self.groups: dict[tuple[str, str, str], Group] = {}
        self._vocabulary = labels
        self._ids: dict[int, int] = {}
        self._recordings: dict[int, int] = {}
        # Hashes of the recordings whose first clip is of a corpus that is torn as published, each with that corpus.
        self._torn: set[int] = set()
        # Corpus and task -> label -> split -> location of its first clip.
        self._labels: dict[tuple[str, str], dict[str, dict[str, int]]] = {}

    def examples(self, problems: list[Problem] | None = None) -> Iterator[tuple[Example, int]]:
        """Yield the lines that can be read, with their locations; what is wrong with the others goes to `problems`."""
        for index, path in enumerate(self.manifests):
            folder = path.absolute().parent
            line = 0
            for line, content in manifest_rows(path):
                try:
                    example = parse_line(content, folder)
                except MintError as error:
                    # The second pass over the lines, for the audio, has them all noted already.
                    if problems is not None:
                        problems.append(Problem(str(path), line, str(error), "schema"))
                    continue
                # One number for manifest and line: there may be millions of them.
                yield example, index << LINE_BITS | line
            if not line:
                raise MintError(f"{path}: the manifest is empty; make one with `mint data prepare`")

    def complain(self, location: int, kind: str, message: str) -> None:
        """Note a problem."""
        self.report.problems.append(Problem(*self._where(location), message, kind))

    def check(self, example: Example, location: int) -> None:
        """Check all that a line itself can tell."""
        self.report.clips += 1
        key = (example.corpus, example.task, example.split)
        group = self.groups.get(key) or self.groups.setdefault(key, Group(*key))
        group.clips += 1
        group.captions += len(example.captions)

        # Hashes of 8 bytes stand for texts: a corpus may have millions of clips.
        first = self._ids.setdefault(hash((example.corpus, example.id)), location)
        if first != location:
            message = f"id {shown(example.id)} of {shown(example.corpus)} is that of {self._name(first, location)} too"
            self.complain(location, "id", f"{message}; make ids unique within their corpus")
        for message in _text_problems(example):
            self.complain(location, "text", message)
        self._check_labels_of(example, location, group)

        # Clips of one recording with an id are compared by that, whatever their files are called.
        shared = False
        for recording in recording_ids(example):
            shared |= self._share(recording, example, location, recording)
        if not shared:
            self._share(str(example.audio), example, location, "file")

    def _check_labels_of(self, example: Example, location: int, group: Group) -> None:
        """Note the labels of a clip; complain of those that are not in the list, if there is one."""
        known = self._labels.setdefault((example.corpus, example.task), {})
        for label in example.labels:
            if self._vocabulary is not None and label not in self._vocabulary:
                message = f"label {shown(label)} is not in the list of labels; correct the one or the other"
                self.complain(location, "label", message)

            splits = known.setdefault(label, {})
            if example.split not in splits:
                splits[example.split] = location
                group.labels += 1

    def _share(self, key: Hashable, example: Example, location: int, name: str) -> bool:
        """Note a recording; return whether a clip of another split has it too, which is a problem."""
        # Location and split are one number, since there may be a million recordings.
        this = location * len(SPLITS) + SPLITS.index(example.split)
        first = self._recordings.setdefault(hash(key), this)
        if first == this and example.corpus in TORN_CORPORA:
            self._torn.add(hash((key, example.corpus)))

        split = SPLITS[first % len(SPLITS)]
        if split == example.split:
            return False
        as_published = hash((key, example.corpus)) in self._torn
        self.complain_of_sharing(name, split, first // len(SPLITS), location, as_published)
        return True

    def complain_of_sharing(self, what: str, split: str, first: int, location: int, as_published: bool = False) -> None:
        """Note that two splits have a recording: a problem, unless the corpus is published so."""
        message = f"its recording ({what}) is in {split} too ({self._name(first, location)})"
        if as_published:
            file, line = self._where(location)
            self.report.notes.append(Problem(file, line, f"{message}, as the corpus is published", "split"))
        else:
            self.complain(location, "split", f"{message}; keep all clips of a recording in one split")

    def check_labels(self) -> None:
        """Complain of labels that are never trained on, where there is no list and their task trains on any."""
        if self._vocabulary is not None:
            return
        for known in self._labels.values():
            # A task that is only tested on has nothing to be compared with.
            if not any("train" in splits for splits in known.values()):
                continue
            for label, splits in known.items():
                if "train" not in splits:
                    split, location = next(iter(splits.items()))
                    message = f"label {shown(label)} of the split {split} is never trained on; check how it is written"
                    self.complain(location, "label", message)

    def _where(self, location: int) -> tuple[str, int]:
        """Return the manifest and the line of a location."""
        return str(self.manifests[location >> LINE_BITS]), location & (1 << LINE_BITS) - 1

    def _name(self, location: int, seen_from: int) -> str:
        """Return a location as a message names it: by its line alone where that is in the same manifest."""
        file, line = self._where(location)
        return f"line {line}" if location >> LINE_BITS == seen_from >> LINE_BITS else f"{file}, line {line}"


def _text_problems(example: Example) -> Iterator[str]:
    """Yield what is wrong with the texts of a clip.

    A clip of which some labels are unknown and none is present is no problem: its other labels are known to be absent.
    """
    for name, texts in (("answer", (example.answer,)), ("labels", example.labels), ("captions", example.captions)):
        if any(text is not None and not text.strip() for text in texts):
            yield f"{name} holds an empty text; fill it or leave it out"
    if example.answer is None and not (example.labels or example.unknown or example.captions):
        yield "there is no answer, no labels and no captions: nothing to learn from; give one of them"


def _check_all_audio(checker: _Checker, audio: Audio, workers: int, progress: bool) -> None:
    """Make the second pass, which looks at the audio of every clip."""
    total = checker.report.clips
    decoded: Collection[int] = range(total) if audio == "all" else ()
    if isinstance(audio, int):
        # The same clips each time, so that a fault that was mended can be seen to be gone.
        decoded = frozenset(random.Random(0).sample(range(total), min(audio, total)))

    # By size and digest of the beginning: the files that have them, with the split and location of their first clip.
    contents: dict[tuple[int, str], dict[Path, tuple[str, int]]] = {}
    bar = tqdm(checker.examples(), desc="audio", unit="clip", total=total, disable=not progress, mininterval=1.0)
    with ThreadPoolExecutor(workers) as pool:
        clips = enumerate(bar)
        while chunk := list(islice(clips, CHUNK)):
            # The results come in the order of the lines, a chunk at a time, so that few clips are in memory.
            jobs = [pool.submit(check_clip, example, index in decoded) for index, (example, _) in chunk]
            for (_, (example, location)), job in zip(chunk, jobs, strict=True):
                clip = job.result()
                _take_in(checker, clip, example, location)
                if clip.content and audio == "all":
                    _compare_content(checker, contents.setdefault(clip.content, {}), example, location)


def _take_in(checker: _Checker, clip: ClipCheck, example: Example, location: int) -> None:
    """Count a clip whose audio was looked at, and note what is wrong with it."""
    checker.groups[example.corpus, example.task, example.split].seconds += clip.seconds
    checker.report.decoded += clip.decoded
    if clip.fault is not None:
        checker.complain(location, *clip.fault)
    for finding in clip.findings:
        checker.complain(location, "sound", f"{example.audio}: {finding}")


def _compare_content(checker: _Checker, others: dict[Path, tuple[str, int]], example: Example, location: int) -> None:
    """Look for the bytes of a file among those of its size and beginning; its own path was compared before."""
    if example.audio in others:
        return
    for path, (split, first) in others.items():
        # The whole files are read only here, where sizes and beginnings agree already.
        if split != example.split and digest(path) == digest(example.audio):
            checker.complain_of_sharing("file of the same bytes", split, first, location)
            break
    others[example.audio] = (example.split, location)


def count_kinds(problems: Iterable[Problem]) -> dict[str, int]:
    """Return how many problems there are of each kind."""
    counts = Counter(problem.kind for problem in problems)
    return {kind: counts[kind] for kind in KINDS if counts[kind]}
