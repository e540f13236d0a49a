"""*AudioSet* (Gemmeke et al., 2017): 10 s segments of YouTube videos with the sounds in them, 527 classes.

Read as published: `balanced_train_segments.csv`, `unbalanced_train_segments.csv` and `eval_segments.csv`, each under
three lines of comment, its labels a quoted list of machine ids, and `class_labels_indices.csv`. The recordings are the
segments, cut, below the same folder, under one of the names that downloaders give them (`segment_names`). Answers are
in the order of the class indices. The evaluation segments are the test split.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from mint.data.corpora.outputs import Skip, ignore
from mint.data.corpora.public.reading import csv_rows, each_row, find_any, official_file
from mint.data.corpora.recordings import Recordings
from mint.data.corpora.values import filled, seconds
from mint.data.manifests.prompts import PROMPTS
from mint.text_files import csv_lines, one_line
from mint.types import Example

SPLITS = {"balanced_train": "train", "unbalanced_train": "train", "eval": "test"}
TABLES = {part: f"{part}_segments.csv" for part in SPLITS}
FIELDS = ("YTID", "start_seconds", "end_seconds", "positive_labels")
"""The columns, which the third line of comment names."""


def read_audioset(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the segments of the CSVs that are there.

    Raises:
        MintError: there is no class list or no segment CSV in the folder.
    """
    classes = official_file("audioset", source, "class_labels_indices.csv")
    official_file("audioset", source, *TABLES.values())
    rows = csv_rows(classes, ("mid", "display_name"), skip)
    names = {row["mid"]: one_line(row["display_name"]) for _, row in rows if row["display_name"].strip()}
    recordings = Recordings(audio or source)
    for part, name in TABLES.items():
        table = find_any(source, name)
        if table is not None:
            yield from _read_part(table, part, names, recordings, skip)


def _read_part(table: Path, part: str, names: dict[str, str], recordings: Recordings, skip: Skip) -> Iterator[Example]:
    """Yield the segments of one table; `names` has the class of each machine id, in the order of the class list."""
    order = {mid: index for index, mid in enumerate(names)}

    def segment(row: dict[str, str]) -> Example | None:
        """Return the segment of a row; None for one that is left out."""
        video, start, end = filled(row, "YTID"), seconds(row, "start_seconds"), seconds(row, "end_seconds")
        # A list of classes may lack ids of the segments; what has no name cannot be an answer.
        given = row["positive_labels"].split(",")
        known = sorted(filter(order.__contains__, given), key=order.__getitem__)
        if not known:
            skip(video, "none of its labels is in the class list")
            return None

        labels = tuple(map(names.__getitem__, known))
        return Example(
            id=f"{video}_{row['start_seconds']}",
            audio=recordings.find(*segment_names(video, start, end)),
            task="audioset",
            split=SPLITS[part],
            corpus="audioset",
            prompt=PROMPTS["AudioSet"],
            answer=", ".join(labels),
            labels=labels,
            metadata={"youtube_id": video, "video_start": start, "video_end": end, "part": part},
        )

    yield from each_row(_segment_rows(table, skip), segment, skip.lines_of(table))


def _segment_rows(table: Path, skip: Skip) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a table of segments by column, with their lines."""
    leave_out = skip.lines_of(table)
    for line, row in csv_lines(table, after_space=True, broken=leave_out):
        if row[0].startswith("#"):
            continue

        if len(row) == len(FIELDS):
            yield line, dict(zip(FIELDS, row, strict=True))
        else:
            leave_out(line, f"{len(row)} fields in place of {len(FIELDS)}")


def segment_names(video: str, start: float, end: float) -> list[str]:
    """Return names, without suffix, that downloaders give to a segment of a YouTube video, the surest first."""
    names = []
    for span in _spans(start, end):
        # Some downloaders put a `Y` before the id.
        names += [f"{video}{span}", f"Y{video}{span}"]

    # A file of the video's name alone may be the whole video, so that it comes last.
    return [*names, f"[{video}]-[{start:g}-{end:g}]", video, f"Y{video}"]


@lru_cache(maxsize=1 << 16)
def _spans(start: float, end: float) -> tuple[str, ...]:
    """Return what may follow the video's id: most of two million segments begin at one of few seconds."""
    starts, ends = _written(start), _written(end)

    spans = []
    for mark in "_-":
        for first, last in zip(starts, ends, strict=True):
            spans.append(f"_{first}{mark}{last}")
    for first in reversed(starts):
        spans.append(f"_{first}")

    # A whole number of seconds is written alike in two of the forms.
    return tuple(dict.fromkeys(spans))


def _written(time: float) -> tuple[str, ...]:
    """Return a time in seconds as downloaders write it."""
    return f"{round(1000 * time)}", f"{time:g}", f"{time:.1f}", f"{time:.3f}", f"{round(time):06d}"
