"""Everything that is wrong with some manifests, not only the first thing, and what they hold.

Two passes, both streamed: the first reads every line (schema, ids, texts, labels, recordings that two splits share) and
keeps a few numbers of each; the second looks at the audio, in threads, since decoding lets go of the interpreter.
"""

from __future__ import annotations

import math
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

from mint.data.audio.decode import probe
from mint.data.audio.listen import TOLERANCE, listen
from mint.data.audio.members import HEAD, digest, locate
from mint.data.features.stored import is_stored, read_stored
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
TORN_CORPORA = ("vggsound",)
"""Corpora whose published lists have segments of one recording in two splits: six videos of VGGSound are in both. It is
noted, but no problem of the manifest."""


@dataclass(frozen=True)
class Problem:
    """One thing to mend."""

    file: str
    line: int
    """Row, in Parquet."""
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
    """Different ones."""
    seconds: float = 0.0
    """Of the clips whose header was read."""


@dataclass
class Report:
    """What validating came to."""

    clips: int = 0
    decoded: int = 0
    """Clips that could be, as a whole; others are among the problems, or were not to be."""
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
    lines = _Lines(manifests, labels, report)
    for example, place in lines.examples(report.problems):
        lines.check(example, place)
    lines.check_labels()
    if audio != "none":
        _check_all_audio(lines, audio, workers or os.cpu_count() or 1, progress)
    report.groups = [lines.groups[key] for key in sorted(lines.groups)]
    order = {str(path): number for number, path in enumerate(manifests)}
    for found in (report.problems, report.notes):
        found.sort(key=lambda problem: (order[problem.file], problem.line))
    return report


class _Lines:
    """What the first pass keeps: a hash and a place for each id and recording, and the labels."""

    def __init__(self, manifests: Sequence[Path], labels: Collection[str] | None, report: Report) -> None:
        self.manifests = manifests
        self.report = report
        self.groups: dict[tuple[str, str, str], Group] = {}
        self._vocabulary = labels
        self._ids: dict[int, int] = {}
        self._recordings: dict[int, int] = {}
        # Hashes of the recordings whose first clip is of a corpus that is torn as published, each with that corpus.
        self._torn: set[int] = set()
        self._labels: dict[tuple[str, str], dict[str, dict[str, int]]] = {}
        """Corpus and task -> label -> split -> place of its first clip."""

    def examples(self, problems: list[Problem] | None = None) -> Iterator[tuple[Example, int]]:
        """The lines that can be read, with their places; what is wrong with the others goes to `problems`."""
        for number, path in enumerate(self.manifests):
            folder = path.absolute().parent
            line = 0
            for line, content in manifest_rows(path):
                try:
                    example = parse_line(content, folder)
                except MintError as error:
                    if problems is not None:
                        problems.append(Problem(str(path), line, str(error), "schema"))
                    continue
                yield example, number << LINE_BITS | line
            if not line:
                raise MintError(f"{path}: the manifest is empty; make one with `mint data prepare`")

    def complain(self, place: int, kind: str, message: str) -> None:
        """Note a problem."""
        self.report.problems.append(Problem(*self._where(place), message, kind))

    def check(self, example: Example, place: int) -> None:
        """All that a line itself can tell."""
        self.report.clips += 1
        key = (example.corpus, example.task, example.split)
        group = self.groups.get(key) or self.groups.setdefault(key, Group(*key))
        group.clips += 1
        group.captions += len(example.captions)
        first = self._ids.setdefault(hash((example.corpus, example.id)), place)
        if first != place:
            message = f"id {shown(example.id)} of {shown(example.corpus)} is that of {self._name(first, place)} too"
            self.complain(place, "id", f"{message}; make ids unique within their corpus")
        for message in _text_problems(example):
            self.complain(place, "text", message)
        known = self._labels.setdefault(key[:2], {})
        for label in example.labels:
            if self._vocabulary is not None and label not in self._vocabulary:
                self.complain(
                    place, "label", f"label {shown(label)} is not in the list of labels; correct the one or the other"
                )
            splits = known.setdefault(label, {})
            if example.split not in splits:
                splits[example.split] = place
                group.labels += 1
        shared = [self._share(name, example, place, name) for name in recording_ids(example)]
        if not any(shared):
            self._share(str(example.audio), example, place, "file")

    def _share(self, key: Hashable, example: Example, place: int, name: str) -> bool:
        """Note a recording; return whether a clip of another split has it too, which is a problem."""
        this = place * len(SPLITS) + SPLITS.index(example.split)
        first = self._recordings.setdefault(hash(key), this)
        if first == this and example.corpus in TORN_CORPORA:
            self._torn.add(hash((key, example.corpus)))
        split = SPLITS[first % len(SPLITS)]
        if split == example.split:
            return False
        as_published = hash((key, example.corpus)) in self._torn
        self.complain_of_sharing(name, split, first // len(SPLITS), place, as_published)
        return True

    def complain_of_sharing(self, what: str, split: str, first: int, place: int, as_published: bool = False) -> None:
        """Note that two splits have a recording: a problem, unless the corpus is published so."""
        message = f"its recording ({what}) is in {split} too ({self._name(first, place)})"
        if as_published:
            file, line = self._where(place)
            self.report.notes.append(Problem(file, line, f"{message}, as the corpus is published", "split"))
        else:
            self.complain(place, "split", f"{message}; keep all clips of a recording in one split")

    def check_labels(self) -> None:
        """Without a list: labels that are tested and never trained on, where the task trains on any."""
        for known in self._labels.values() if self._vocabulary is None else ():
            if any("train" in splits for splits in known.values()):
                for label, splits in known.items():
                    if "train" not in splits:
                        split, place = next(iter(splits.items()))
                        message = (
                            f"label {shown(label)} of the split {split} is never trained on; check how it is written"
                        )
                        self.complain(place, "label", message)

    def _where(self, place: int) -> tuple[str, int]:
        return str(self.manifests[place >> LINE_BITS]), place & (1 << LINE_BITS) - 1

    def _name(self, place: int, seen_from: int) -> str:
        file, line = self._where(place)
        return f"line {line}" if place >> LINE_BITS == seen_from >> LINE_BITS else f"{file}, line {line}"


def _text_problems(example: Example) -> Iterator[str]:
    """Empty texts, and clips of which nothing is known; where some labels are unknown, all others are known absent."""
    for name, texts in (("answer", (example.answer,)), ("labels", example.labels), ("captions", example.captions)):
        if any(text is not None and not text.strip() for text in texts):
            yield f"{name} holds an empty text; fill it or leave it out"
    if example.answer is None and not (example.labels or example.unknown or example.captions):
        yield "there is no answer, no labels and no captions: nothing to learn from; give one of them"


@dataclass(frozen=True)
class _Heard:
    """What looking at a clip's audio showed."""

    seconds: float = 0.0
    kind: str = ""
    message: str = ""
    content: tuple[int, str] | None = None
    """Size of the file, and digest of its beginning."""
    decoded: bool = False
    findings: tuple[str, ...] = ()
    """What is wrong with how it sounds."""


def _check_all_audio(lines: _Lines, audio: Audio, workers: int, progress: bool) -> None:
    """The second pass."""
    total = lines.report.clips
    drawn = random.Random(0).sample(range(total), min(audio, total)) if isinstance(audio, int) else range(total)
    decoded = frozenset(drawn) if audio != "headers" else frozenset()
    contents: dict[tuple[int, str], dict[Path, tuple[str, int]]] = {}
    bar = tqdm(lines.examples(), desc="audio", unit="clip", total=total, disable=not progress, mininterval=1.0)
    with ThreadPoolExecutor(workers) as pool:
        clips = enumerate(bar)
        while chunk := list(islice(clips, CHUNK)):
            jobs = [pool.submit(_listen, example, number in decoded) for number, (example, _) in chunk]
            for (_, (example, place)), job in zip(chunk, jobs, strict=True):
                heard = job.result()
                lines.groups[example.corpus, example.task, example.split].seconds += heard.seconds
                lines.report.decoded += heard.decoded
                if heard.message:
                    lines.complain(place, heard.kind, heard.message)
                for finding in heard.findings:
                    lines.complain(place, "sound", f"{example.audio}: {finding}")
                if heard.content and audio == "all":
                    _compare_content(lines, contents.setdefault(heard.content, {}), example, place)


def _listen(example: Example, decode: bool) -> _Heard:
    """Read the header, and decode if asked to."""
    try:
        if is_stored(example.audio):  # it has no length in seconds
            read_stored(example, identity=None)
            return _Heard(content=(locate(example.audio).size, digest(example.audio, HEAD)) if decode else None)
        length = probe(example.audio)[0]
        clip_length = _clip_length(example, length)
        content: tuple[int, str] | None = None
        findings: tuple[str, ...] = ()
        end = math.inf
        if decode or clip_length <= 0:
            heard = listen(example.audio, example.start, example.duration)
            end, findings = heard.end, heard.findings
            length = max(length, heard.promised)
            clip_length = _clip_length(example, length)
            content = (locate(example.audio).size, digest(example.audio, HEAD))
    except MintError as error:
        return _Heard(kind="audio", message=str(error))
    except OSError as error:  # gone while it was read
        return _Heard(kind="audio", message=f"{example.audio}: it cannot be read ({error}); check the disk")

    expected = example.start + clip_length
    if end < expected - TOLERANCE:
        message = (
            f"{example.audio}: its header promises audio up to {expected:.2f} s, but there is some up to {end:.2f} s; "
            "fetch or export it again"
        )
        return _Heard(end - example.start, "audio", message, content, findings=findings)
    clip_end = example.start + (example.duration or 0.0)
    if clip_end > length + TOLERANCE:
        message = (
            f"{example.audio}: the clip ends at {clip_end:.2f} s, the file at {length:.2f} s; correct start or duration"
        )
        return _Heard(clip_length, "duration", message, content, decode, findings)
    return _Heard(clip_length, content=content, decoded=decode, findings=findings)


def _clip_length(example: Example, length: float) -> float:
    """Return the seconds of a clip in a file of so many seconds."""
    rest = length - example.start
    return rest if example.duration is None else min(example.duration, rest)


def _compare_content(lines: _Lines, others: dict[Path, tuple[str, int]], example: Example, place: int) -> None:
    """Look for the bytes of a file among those of its size and beginning; its own path was compared before."""
    if example.audio in others:
        return
    for path, (split, first) in others.items():
        if split != example.split and digest(path) == digest(example.audio):
            lines.complain_of_sharing("file of the same bytes", split, first, place)
            break
    others[example.audio] = (example.split, place)


def count_kinds(problems: Iterable[Problem]) -> dict[str, int]:
    """How many problems there are of each kind."""
    counts = Counter(problem.kind for problem in problems)
    return {kind: counts[kind] for kind in KINDS if counts[kind]}
