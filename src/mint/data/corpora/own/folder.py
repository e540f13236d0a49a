"""Real recordings of one's own -> a manifest for the task `labels`.

Three forms are read: a folder with one sub-folder per label; a folder of files named `KIND_rest.ext` (the kind is the
label, as in Debian's sonic-pi-samples); a table (CSV, TSV or JSON Lines) with `audio` and `label`, and, where known,
`caption` and `split`, its paths relative to itself. A text file beside a recording (`dog.txt` for `dog.ogg`, as in Tux
Paint's stamps) describes it in its first line. Recordings stay where they are.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mint.data.audio.decode import FOREIGN, check_audio
from mint.data.corpora.rendered import wording
from mint.data.manifests.manifest import SPLITS, manifest_lines, write_manifest
from mint.data.manifests.prompts import SOUND_PROMPT
from mint.types import Example, MintError

TASK = "labels"
SUFFIXES = (
    *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64"),
    *FOREIGN,
)
"""What counts as a recording in a folder."""
OTHER_FILES = (".parquet", ".json", ".ndjson", ".csv", ".tsv", ".txt")
"""Suffixes that no folder is likely to have."""
TABLES = (".csv", ".tsv", ".jsonl")
ALIASES = {
    "training": "train",
    **dict.fromkeys(("val", "valid", "dev"), "validation"),
    "testing": "test",
}
"""Other names of splits, in any case."""
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1
TEMPLATES = (
    "this is a sound of {label}",
    "the sound of {label}",
    "a recording of {label}",
    "{label} can be heard",
)


@dataclass(frozen=True)
class Recording:
    """One file and what its source says of it."""

    name: str
    """Path relative to the source: its id."""
    audio: Path
    label: str
    captions: tuple[str, ...] = ()
    split: str | None = None


def read_source(source: Path, output: Path, seed: int = 0) -> Path:
    """Make a manifest of one's own recordings.

    Files with the same bytes go to the same split. Where the source has no splits, about 70 / 10 / 20 % of each label
    are for training / validation / test, with at least one test clip where a label has three. A recording that cannot
    be decoded is left out and listed with the reason in `NAME.skipped.jsonl` beside the manifest (see `read_skipped`).

    Args:
        source: a folder or a table.
        output: the manifest, or a folder (created) for `labels.jsonl`.
        seed: of the splits and of the wording of captions.

    Returns:
        The manifest.

    Raises:
        MintError: no such source, no recordings, fewer than two labels, or a broken line of the table.
    """
    recordings = list(_from_table(source) if source.is_file() else _from_folder(source))
    if not recordings:
        raise MintError(f"{source} holds no recordings; give a folder or table of audio files, such as .wav or .flac")
    manifest = manifest_file(output, TASK)
    with ThreadPoolExecutor() as pool:
        inspected = list(pool.map(_inspect, recordings))
    kept = [one for one in inspected if one.problem is None]
    _write_skipped(skipped_file(manifest), [one for one in inspected if one.problem is not None])
    _refuse_unusable(source, inspected, kept)
    splits = _assign_splits(kept, seed)
    if "test" not in splits:
        raise MintError(f"{source} leaves nothing to test on; give some label three different recordings or more")
    write_manifest(manifest, _examples(kept, splits, source.resolve().stem, seed))
    return manifest


def manifest_file(output: Path, name: str) -> Path:
    """The manifest that is asked for: `output` itself, or NAME.jsonl in it where it is a folder, which is created.

    Raises:
        MintError: `output` has the name of another file.
    """
    if output.suffix.lower() in OTHER_FILES and not output.is_dir():
        cure = f"name it {output.with_suffix('.jsonl').name}, or give a folder"
        raise MintError(f"{output}: a manifest is written as JSON Lines; {cure}")
    manifest = output if output.suffix.lower() == ".jsonl" else output / f"{name}.jsonl"
    manifest.parent.mkdir(parents=True, exist_ok=True)
    return manifest


def skipped_file(manifest: Path) -> Path:
    """Where what was left out of a manifest is listed, if anything was."""
    return manifest.with_suffix(".skipped.jsonl")


def read_skipped(manifest: Path) -> Iterator[dict[str, str]]:
    """Stream what was left out when a manifest was made: a dictionary with `audio` and `reason` for each recording."""
    if (path := skipped_file(manifest)).exists():
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def _from_folder(source: Path) -> Iterator[Recording]:
    """One sub-folder per label (or per split, then per label), else labels from file names."""
    if not source.is_dir():
        raise MintError(f"{source}: no such folder or table; check the path")
    folders = [folder for folder in _sub_folders(source) if _audio_files(folder)]
    splits = [ALIASES.get(folder.name.lower(), folder.name.lower()) for folder in folders]
    if folders and all(split in SPLITS for split in splits):
        for folder, split in zip(folders, splits, strict=True):
            yield from (replace(recording, split=split) for recording in _labelled(_sub_folders(folder), source))
    elif folders:
        yield from _labelled(folders, source)
    else:
        for path in _audio_files(source):
            yield Recording(path.name, path, _clean(path.stem.partition("_")[0]), _description(path))


def _labelled(folders: Sequence[Path], source: Path) -> Iterator[Recording]:
    """The recordings of sub-folders, at any depth, under their names as labels."""
    for folder in folders:
        for path in _audio_files(folder):
            yield Recording(path.relative_to(source).as_posix(), path, _clean(folder.name), _description(path))


def _sub_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def _audio_files(folder: Path) -> list[Path]:
    """Recordings at any depth, by suffix, without hidden ones."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in found if not any(part[0] == "." for part in path.relative_to(folder).parts))


def _clean(name: str) -> str:
    """'001 - Dog_bark' -> 'Dog bark': a leading number goes, underscores and hyphens become spaces."""
    text = re.sub(r"^\d+\s*[-_.]\s*(?=\D)", "", name)
    return " ".join(re.split(r"[\s_-]+", text)).strip() or name


def _description(path: Path) -> tuple[str, ...]:
    """The first line of the text file beside a recording."""
    text = path.with_suffix(".txt")
    if not text.is_file():
        return ()
    with text.open(encoding="utf-8", errors="replace") as file:
        line = file.readline().strip()
    return (line,) if line else ()


def _from_table(source: Path) -> Iterator[Recording]:
    """Rows of a CSV, TSV or JSON Lines file."""
    if source.suffix.lower() not in TABLES:
        raise MintError(f"{source} is neither a folder nor a table; give a folder, .csv, .tsv or .jsonl")
    rows = list(_json_rows(source) if source.suffix.lower() == ".jsonl" else _csv_rows(source))
    without = [place for place, row in rows if not row.get("split")]
    if without and len(without) < len(rows):
        raise MintError(f"{without[0]}: it has no split, others have; fill the column or leave it out")
    for place, row in rows:
        for key in ("audio", "label", "caption", "split"):
            value = row.get(key)
            if not (isinstance(value, str) or (value is None and key in ("caption", "split"))):
                raise MintError(f"{place}: {key} is {value!r}; write a text")
        if not row["audio"].strip() or not row["label"].strip():
            raise MintError(f"{place}: audio is {row['audio']!r} and label {row['label']!r}; fill in both")
        split = (row.get("split") or "").strip().lower()
        split = ALIASES.get(split, split)
        if split and split not in SPLITS:
            raise MintError(f"{place}: split is {row['split']!r}; it must be one of {', '.join(SPLITS)}")
        caption = (row.get("caption") or "").strip()
        name = row["audio"].strip()
        audio = source.parent / name
        yield Recording(name, audio, row["label"].strip(), (caption,) if caption else (), split or None)


def _csv_rows(source: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of each line under the header."""
    with source.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if source.suffix.lower() == ".tsv" else ",")
        columns = [(name or "").strip() for name in reader.fieldnames or ()]
        for needed in ("audio", "label"):
            if needed not in columns:
                found = ", ".join(columns) or "none"
                raise MintError(f"{source}, line 1: no column {needed!r} (found: {found}); it needs audio,label")
        reader.fieldnames = columns
        for row in reader:
            yield f"{source}, line {reader.line_num}", row


def _json_rows(source: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of each line."""
    for number, line in manifest_lines(source):
        place = f"{source}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise MintError(f"{place}: not valid JSON ({error.msg}); write one object a line") from None
        if not isinstance(row, dict):
            raise MintError(f"{place}: {type(row).__name__} in place of an object; write one object a line")
        yield place, row


@dataclass(frozen=True)
class Inspected:
    """What reading a recording showed."""

    recording: Recording
    problem: str | None
    """Why it cannot be used."""
    content: bytes = b""
    """Digest of the file's bytes."""


def _inspect(recording: Recording) -> Inspected:
    """Decode as much of it as will ever be used."""
    try:
        check_audio(recording.audio)
        with recording.audio.open("rb") as file:
            return Inspected(recording, None, hashlib.file_digest(file, "sha256").digest())
    except (MintError, OSError) as error:
        return Inspected(recording, str(error))


def _write_skipped(path: Path, skipped: Sequence[Inspected]) -> None:
    """One line for each recording that was left out; no file where there is none."""
    path.unlink(missing_ok=True)
    if skipped:
        records = ({"audio": str(one.recording.audio), "reason": one.problem} for one in skipped)
        path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def _refuse_unusable(source: Path, inspected: Sequence[Inspected], kept: Sequence[Inspected]) -> None:
    if not kept:
        first = inspected[0].problem
        raise MintError(f"{source}: none of {len(inspected)} recordings can be decoded; the first: {first}")
    labels = {one.recording.label for one in kept}
    if len(labels) < 2:
        raise MintError(
            f"{source} has one label only, {labels.pop()!r}; give each kind of sound a sub-folder of its own, "
            f"or a table with the columns audio,label"
        )


def _assign_splits(kept: Sequence[Inspected], seed: int) -> list[str]:
    """The split of each: its own, else drawn within its label so that equal contents stay together."""
    rng = random.Random(f"splits {seed}")
    contents: dict[str, list[bytes]] = {}
    for one in kept:
        contents.setdefault(one.recording.label, []).append(one.content)
    split_of: dict[bytes, str] = {}
    for label in sorted(contents):
        fresh = sorted(set(contents[label]) - split_of.keys())
        rng.shuffle(fresh)
        count = len(fresh)
        tests = max(1, round(TEST_SHARE * count)) if count >= 3 else 0
        validations = max(1, round(VALIDATION_SHARE * count)) if count >= 5 else 0
        for place, content in enumerate(fresh):
            split_of[content] = "test" if place < tests else "validation" if place < tests + validations else "train"
    return [one.recording.split or split_of[one.content] for one in kept]


def _examples(kept: Sequence[Inspected], splits: Sequence[str], corpus: str, seed: int) -> Iterator[Example]:
    """The manifest's lines; a recording that is listed twice has a number behind its id."""
    rng = random.Random(f"captions {seed}")
    times: Counter[str] = Counter()
    for one, split in zip(kept, splits, strict=True):
        recording = one.recording
        times[recording.name] += 1
        again = times[recording.name]
        yield Example(
            id=recording.name if again == 1 else f"{recording.name}#{again}",
            audio=recording.audio,
            task=TASK,
            split=split,
            corpus=corpus,
            prompt=SOUND_PROMPT,
            answer=recording.label,
            labels=(recording.label,),
            captions=recording.captions or wording.captions(rng, TEMPLATES, label=recording.label),
        )
