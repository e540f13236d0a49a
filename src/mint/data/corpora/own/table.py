"""*csv*: a table of one's own with a line for each clip, read as a stream: for what `folder` has no room for.

`audio` is a path relative to the table, or to the folder that is said to hold the recordings. `label` is one label,
`labels` several with semicolons between them; `caption`, `caption_1`, `caption_2`, ... are descriptions. `id`, `start`,
`duration`, `task`, `prompt`, `answer`, `split` and `corpus` are as in a manifest. Other columns are kept as metadata.
Unlike `folder`, captions alone will do, nothing is decoded, and labels need not have clips for testing.

A `start` beside an `end` and without a `duration` (UrbanSound8K) is a time in the recording that the clip was cut from:
it is kept as metadata, unless `--columns start=start` says that it is an offset in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mint.data.corpora.outputs import Skip, ignore
from mint.data.corpora.own.rows import (
    CAPTION,
    KNOWN,
    Columns,
    Row,
    refuse_archive,
    split_named,
    table_rows,
    tables_in,
)
from mint.data.corpora.own.splits import DrawnSplits, group_of
from mint.data.corpora.values import caption, seconds
from mint.data.manifests.manifest import SPLITS
from mint.data.manifests.prompts import SOUND_PROMPT
from mint.text_files import one_line
from mint.types import CAPTION_PROMPT, Example, MintError

NO_OFFSET = (
    "columns start and end without duration are taken for times in the recording that a clip was cut from, not in its "
    "file; if they are times in the file, say --columns start=start"
)


def read_own_table(
    source: Path,
    skip: Skip = ignore,
    audio: Path | None = None,
    seed: int = 0,
    columns: Columns | None = None,
) -> Iterator[Example]:
    """Yield the clips of a table; a row that says nothing, or has an unknown split or no number, is skipped.

    Without a split each recording is drawn into one by its path, or by what its row says it is cut from, and the seed,
    whatever else is in the table.

    Args:
        source: a table, or an audiofolder with `metadata.csv` or `metadata.jsonl` in it or in its folders of splits.
        skip: told what is left out.
        audio: what the paths are relative to; None: the table.
        seed: of the splits.
        columns: the names in the table of columns that mean something; the others stand for themselves.

    Raises:
        MintError: no such file, no column `audio`, or no text.
    """
    refuse_archive(source)
    tables: list[tuple[Path, str | None]] = []
    if source.is_file():
        tables = [(source, None)]
    elif source.is_dir():
        tables = tables_in(source)
    if not tables:
        raise MintError(
            f"{source}: no such table; give a .csv, .tsv or .jsonl file with a column 'audio', or a folder with "
            f"metadata.csv in it"
        )

    # One for all tables, so that a recording that two of them name is in one split.
    drawn = DrawnSplits(seed)
    for table, split in tables:
        corpus = source.resolve().stem
        # Tables of two splits may both name an `1.wav`, in their own folders.
        above = "" if split is None else f"{table.parent.name}/"
        reader = _Reader(corpus, audio or table.parent, above, drawn, split, columns or {}, skip)
        leave_out = skip.lines_of(table)
        for line, row in table_rows(table, leave_out, columns):
            try:
                yield reader.example(row)
            except MintError as error:
                leave_out(line, str(error))

    for note in drawn.notes():
        skip.note(note)


class _Reader:
    """Makes examples of rows.

    Args:
        corpus: its name, where a row has none.
        folder: what the paths are relative to.
        above: what ids begin with that are made of paths.
        drawn: splits of rows that have none.
        split: that of the folder in which the table lies, if it is one.
        columns: what was said of the columns.
        skip: told of columns that were not taken for what they are called.
    """

    def __init__(
        self,
        corpus: str,
        folder: Path,
        above: str,
        drawn: DrawnSplits,
        split: str | None,
        columns: Columns,
        skip: Skip,
    ) -> None:
        self._corpus, self._folder, self._above = corpus, folder, above
        self._drawn, self._split = drawn, split
        self._start_is_said = "start" in columns
        self._skip = skip

    def example(self, row: Row) -> Example:
        """Return the clip of a row.

        Raises:
            MintError: the row says nothing, or something that cannot be.
        """
        fields: dict[str, str] = {}
        metadata: dict[str, Any] = {}
        for name, value in row.items():
            if name in KNOWN or CAPTION.fullmatch(name):
                fields[name] = _text(name, value)
            elif name:
                metadata[name] = value

        if "audio" not in fields:
            raise MintError("audio is empty; name a file")

        # UrbanSound8K's times are those in the recording that a clip was cut from: an offset would skip the sound.
        if "start" in fields and "end" in row and "duration" not in fields and not self._start_is_said:
            metadata["start"] = fields.pop("start")
            self._skip.note(NO_OFFSET)

        labels, captions = _labels(fields), _captions(fields)
        # The answer is what is learnt: the labels in the order of the table, if nothing else is written.
        answer = one_line(fields.get("answer", "")) or ", ".join(labels) or None
        if answer is None and not captions:
            raise MintError("it has no label, caption or answer; fill one in")

        return Example(
            id=fields.get("id") or self._above + _name(fields),
            audio=self._folder / fields["audio"],
            start=seconds(fields, "start") if "start" in fields else 0.0,
            duration=_duration(fields),
            # A clip with captions alone is no clip without a label: it belongs to another task.
            task=fields.get("task") or ("labels" if answer else "captioning"),
            split=self._split_of(fields, row),
            corpus=fields.get("corpus") or self._corpus,
            prompt=fields.get("prompt") or (SOUND_PROMPT if answer else CAPTION_PROMPT),
            answer=answer,
            labels=labels,
            captions=captions,
            metadata=metadata,
        )

    def _split_of(self, fields: Mapping[str, str], row: Row) -> str:
        """Return the split that the row names, or its folder, or one that is drawn."""
        if "split" not in fields:
            return self._split or self._drawn.draw(fields["audio"], group_of(row))

        split = split_named(fields["split"])
        if split is None:
            raise MintError(f"split is {fields['split']!r}; it must be one of {', '.join(SPLITS)}")
        return split


def _text(name: str, value: Any) -> str:
    """Return a field as text; JSON Lines may have numbers."""
    if isinstance(value, str):
        return value
    # Of Python's kinds of numbers, True and False are one.
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise MintError(f"{name} is {value!r}; write a text")


def _labels(fields: Mapping[str, str]) -> tuple[str, ...]:
    """Return the labels of `labels`, or else the one of `label`."""
    # Semicolons, since labels such as AudioSet's "Bark, woof" hold commas.
    labels = tuple(filter(None, map(one_line, fields.get("labels", "").split(";"))))
    if not labels and "label" in fields:
        labels = (one_line(fields["label"]),)
    return labels


def _captions(fields: Mapping[str, str]) -> tuple[str, ...]:
    """Return the descriptions in the columns of captions, less those without a word."""
    # In the order of the columns.
    captions = []
    for name, text in fields.items():
        if CAPTION.fullmatch(name):
            try:
                captions.append(caption(text))
            except MintError:
                continue
    return tuple(captions)


def _name(fields: Mapping[str, str]) -> str:
    """Return the id of a clip that has none."""
    # Parts of one file need ids of their own.
    return f"{fields['audio']}@{fields['start']}" if "start" in fields else fields["audio"]


def _duration(fields: Mapping[str, str]) -> float | None:
    """Return the length of a clip in seconds; None: to the end of the file."""
    if "duration" not in fields:
        return None

    # A part of no length cannot be encoded.
    duration = seconds(fields, "duration")
    if duration == 0:
        raise MintError(f"duration is {fields['duration']!r}; it must be more than 0 seconds")
    return duration
