"""Real recordings of one's own -> a manifest for the task `labels`.

Four forms are read: a folder with one sub-folder per label; a folder of files named `KIND_rest.ext` (the kind is the
label, as in Debian's sonic-pi-samples); a table (CSV, TSV or JSON Lines) with `audio` and `label`, and, where known,
`caption` and `split`, its paths relative to itself; an *audiofolder* with such a table as `metadata.csv` or
`metadata.jsonl`. A text file beside a recording (`dog.txt` for `dog.ogg`, as in Tux Paint's stamps) describes it in its
first line. Recordings stay where they are.
"""

from __future__ import annotations

import itertools
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from mint.data.audio.listen import check_audio
from mint.data.audio.members import digest
from mint.data.corpora.drawn.words import SoundWords
from mint.data.corpora.outputs import Skip, ignore, listing_skipped, manifest_file
from mint.data.corpora.own.rows import (
    FILE_NAME,
    Columns,
    Row,
    column_names,
    refuse_archive,
    split_named,
    table_rows,
    tables_in,
)
from mint.data.corpora.own.splits import Clip, assign_splits, group_of
from mint.data.corpora.recordings import audio_files
from mint.data.corpora.rendered import wording
from mint.data.corpora.values import caption, check_texts
from mint.data.manifests.manifest import SPLITS, write_manifest
from mint.data.manifests.prompts import SOUND_PROMPT
from mint.text_files import decode, one_line, text_lines
from mint.types import Example, MintError

TASK = "labels"
TABLES = (".csv", ".tsv", ".jsonl")
TEMPLATES = (
    "this is a sound of {label}",
    "the sound of {label}",
    "a recording of {label}",
    "{label} can be heard",
)
UNLABELLED = "captions without labels are read by `mint data prepare csv`"


@dataclass(frozen=True)
class Recording:
    """One file and what its source says of it."""

    name: str
    """Path relative to the source: its id."""
    audio: Path
    label: str
    captions: tuple[str, ...] = ()
    split: str | None = None
    group: str | None = None
    """The recording that it is cut from, where the source says so."""


@dataclass(frozen=True)
class Inspected:
    """Result of reading a recording."""

    recording: Recording
    problem: str | None
    """Why it cannot be used; None: it can."""
    content: str = ""
    """Digest of the file's bytes."""


def read_source(
    source: Path,
    output: Path,
    seed: int = 0,
    note: Callable[[str], None] = ignore.note,
    columns: Columns | None = None,
    heard: Mapping[Path, SoundWords] | None = None,
) -> Path:
    """Make a manifest of one's own recordings.

    Files with the same bytes, and clips of one recording (`mint.data.corpora.own.splits`), go to the same split. Where
    the source has no splits, about 70 / 10 / 20 % of each label are for training / validation / test, with at least one
    test clip where a label has three recordings. A recording that cannot be decoded, or a row of a table that is
    broken, is left out and listed with the reason in `NAME.skipped.jsonl` beside the manifest (see `read_skipped`).

    Args:
        source: a folder or a table.
        output: the manifest, or a folder (created) for `labels.jsonl`.
        seed: of the splits and of the wording of captions.
        note: told, in a line, what a person should know of the source as a whole.
        columns: the names in a table of columns that mean something; the others stand for themselves.
        heard: for a flat folder without labels, what is heard in its recordings (`mint.data.corpora.own.weak`); it
            stands in the place of their labels and captions, and a recording that is not in it is left out.

    Returns:
        The manifest.

    Raises:
        MintError: no such source, no recordings, or fewer than two labels.
    """
    refuse_archive(source)
    if not source.exists():
        raise MintError(f"{source}: no such folder or table; check the path")

    manifest = manifest_file(output, TASK)

    with listing_skipped(manifest, note) as skip:
        if heard is None:
            recordings = list(_recordings(source, skip, columns))
        else:
            recordings = list(_from_heard(source, heard, skip))
        if not recordings:
            reason = f" that can be used ({skip.first[0]})" if skip.first else ""
            raise MintError(
                f"{source} holds no recordings{reason}; give a folder or table of audio files, such as .wav or .flac"
            )

        # Decoding lets go of the interpreter, so that threads share the processor.
        with ThreadPoolExecutor() as pool:
            inspected = list(pool.map(_inspect, recordings))
        usable = []
        for result in inspected:
            if result.problem is None:
                usable.append(result)
            else:
                skip(str(result.recording.audio), result.problem)

        # What cannot be used is refused before the manifest is written: an earlier one stays as it was.
        _refuse_unusable(source, inspected, usable)
        splits = _splits(usable, seed, skip.note)
        if "test" not in splits:
            raise MintError(f"{source} leaves nothing to test on; give some label three different recordings or more")
        write_manifest(manifest, _examples(usable, splits, source.resolve().stem, seed, skip))
    return manifest


def _recordings(source: Path, skip: Skip, columns: Columns | None) -> Iterator[Recording]:
    """Yield the recordings of a table, an audiofolder or a folder."""
    if source.is_file():
        if source.suffix.lower() not in TABLES:
            raise MintError(f"{source} is neither a folder nor a table; give a folder, .csv, .tsv or .jsonl")
        yield from _from_table(source, source.parent, skip, columns)
        return

    tables = tables_in(source)
    if not tables or not _names_recordings(tables[0][0], source, skip, columns or {}):
        yield from _from_folder(source, skip)
        return

    for table, split in tables:
        for recording in _from_table(table, source, skip, columns):
            yield replace(recording, split=recording.split or split)


def _names_recordings(table: Path, source: Path, skip: Skip, columns: Columns) -> bool:
    """Return whether the `metadata` table in a folder is to be read in place of the names of its folders."""
    names = column_names(table)
    if columns.get("audio", "audio") not in names and FILE_NAME not in names:
        return False

    # Folders that are named after labels may hold a table that says other things of the recordings.
    if columns.get("label", "label") in names or len(_label_folders(source)) < 2:
        return True
    skip.note(f"{table} has no column 'label', so that the names of the folders are taken for the labels")
    return False


def _from_folder(source: Path, skip: Skip) -> Iterator[Recording]:
    """Yield the recordings of one sub-folder per label (or per split, then per label), else those of a flat folder."""
    labelled = _label_folders(source)
    for folder, split in labelled:
        for path in audio_files(folder):
            name = path.relative_to(source).as_posix()
            yield Recording(name, path, _clean(folder.name), _description(path, skip), split)

    # Folders of splits without folders of labels in them are no flat folder.
    if not labelled and not any(audio_files(folder) for folder in _sub_folders(source)):
        for path in audio_files(source):
            yield Recording(path.name, path, _clean(path.stem.partition("_")[0]), _description(path, skip))


def _label_folders(source: Path) -> list[tuple[Path, str | None]]:
    """Return the folders that are named after labels, each with the split in whose folder it lies, if in one."""
    is_any_label = False
    labels: list[tuple[Path, str | None]] = []
    in_splits: list[tuple[Path, str | None]] = []
    for folder in _sub_folders(source):
        if audio_files(folder):
            split = split_named(folder.name)
            labels.append((folder, None))
            in_splits += itertools.product(_sub_folders(folder), [split])
            # One folder that is no split, such as a label `dog` beside one `test`, makes all of them labels.
            is_any_label = is_any_label or split is None
    return labels if is_any_label else in_splits


def _from_heard(source: Path, heard: Mapping[Path, SoundWords], skip: Skip) -> Iterator[Recording]:
    """Yield the recordings of a flat folder under the names of what is heard in them."""
    for path in audio_files(source):
        if path not in heard:
            skip(str(path), "nothing is heard in it that other recordings share, or it cannot be decoded")
            continue
        words = heard[path]
        yield Recording(path.name, path, words.labels[0], _description(path, skip) or words.sentences)


def _sub_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder that are not hidden, in order."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def _clean(name: str) -> str:
    """Return a label from a name: of '001 - Dog_bark' the number goes, and 'Dog bark' is left."""
    # Python keeps bytes of a name that are not UTF-8 as half characters, which no tokenizer takes.
    readable = decode(os.fsencode(name))
    text = re.sub(r"^\d+\s*[-_.]\s*(?=\D)", "", readable)
    return " ".join(re.split(r"[\s_-]+", text)).strip() or readable


def _description(path: Path, skip: Skip) -> tuple[str, ...]:
    """Return the first line of the text file beside a recording, if it has one that says something."""
    text = path.with_suffix(".txt")
    if not text.is_file():
        return ()

    try:
        return (caption(next(text_lines(text), "")),)
    except MintError as error:
        if str(text) in str(error):  # the file is no text
            skip.note(f"{error}; its recording is kept without it")
        return ()


def _from_table(table: Path, source: Path, skip: Skip, columns: Columns | None) -> Iterator[Recording]:
    """Yield the recordings of a table, whose ids are relative to `source`."""
    leave_out = skip.lines_of(table)
    cure = f"it needs audio,label, or --columns audio=NAME,label=NAME; {UNLABELLED}"
    # Ids are paths below the source, in which two tables may lie.
    folder = table.parent
    above = folder.relative_to(source)
    recordings: list[Recording] = []
    without_split: list[int] = []

    for line, row in table_rows(table, leave_out, columns, ("audio", "label"), cure):
        try:
            recording = _from_row(row, folder, above)
        except MintError as error:
            leave_out(line, str(error))
            continue

        recordings.append(recording)
        if recording.split is None:
            without_split.append(line)

    # What to draw, and from what, where some rows have a split and others have none, nobody can tell.
    if 0 < len(without_split) < len(recordings):
        raise MintError(
            f"{table}, line {without_split[0]}: it has no split, others have; fill the column or leave it out"
        )
    yield from recordings


def _from_row(row: Row, folder: Path, above: Path) -> Recording:
    """Return the recording of a row.

    Raises:
        MintError: it names no file or no label, or has an unknown split.
    """
    # JSON Lines may have anything there.
    for key in ("audio", "label", "caption", "split"):
        if not isinstance(row.get(key), str | None):
            raise MintError(f"{key} is {row[key]!r}; write a text")
    if "audio" not in row or "label" not in row:
        raise MintError(f"audio is {row.get('audio', '')!r} and label {row.get('label', '')!r}; fill in both")

    split = split_named(row["split"]) if "split" in row else None
    if "split" in row and split is None:
        raise MintError(f"split is {row['split']!r}; it must be one of {', '.join(SPLITS)}")

    # Without a caption the clip is described by its label.
    try:
        captions: tuple[str, ...] = (caption(row.get("caption")),)
    except MintError:
        captions = ()
    name = row["audio"] if above == Path() else f"{above.as_posix()}/{row['audio']}"
    return Recording(name, folder / row["audio"], one_line(row["label"]), captions, split, group_of(row))


def _inspect(recording: Recording) -> Inspected:
    """Decode as much of a recording as will ever be used."""
    try:
        check_audio(recording.audio)
        return Inspected(recording, None, digest(recording.audio))
    except (MintError, OSError) as error:
        return Inspected(recording, str(error))


def _refuse_unusable(source: Path, inspected: Sequence[Inspected], usable: Sequence[Inspected]) -> None:
    """Refuse a source of which nothing, or one label alone, can be used."""
    if not usable:
        first = inspected[0].problem
        raise MintError(f"{source}: none of {len(inspected)} recordings can be decoded; the first: {first}")

    # One label alone cannot be told from anything.
    labels = {result.recording.label for result in usable}
    if len(labels) < 2:
        raise MintError(
            f"{source} has one label only, {labels.pop()!r}; give each kind of sound a sub-folder of its own, "
            f"or a table with the columns audio,label"
        )


def _splits(usable: Sequence[Inspected], seed: int, note: Callable[[str], None]) -> list[str]:
    """Return the split of each recording: the one that the source gives, else one that is drawn."""
    given: list[str] = []
    clips: list[Clip] = []
    for result in usable:
        recording = result.recording
        clips.append(Clip(recording.name, recording.label, result.content, recording.group))
        if recording.split is not None:
            given.append(recording.split)

    # A source has a split for each recording or for none. Where it has, nothing is noted of what would be drawn.
    return given if len(given) == len(usable) else assign_splits(clips, seed, note)


def _examples(
    usable: Sequence[Inspected], splits: Sequence[str], corpus: str, seed: int, skip: Skip
) -> Iterator[Example]:
    """Yield the manifest's lines; a recording that is listed twice has a number behind its id."""
    # A seed of its own: the splits of a source do not change the wording of its captions.
    rng = random.Random(f"captions {seed}")
    times: Counter[str] = Counter()
    for result, split in zip(usable, splits, strict=True):
        recording = result.recording
        times[recording.name] += 1
        again = times[recording.name]

        example = Example(
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
        try:
            check_texts(example)
        except MintError as error:
            skip(str(recording.audio), str(error))
        else:
            yield example
