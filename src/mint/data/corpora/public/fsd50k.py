"""*FSD50K* (Fonseca et al., 2020): Freesound clips of 0.3 to 30 s with the sounds in them, 200 classes of AudioSet.

Read as published: `FSD50K.ground_truth/{dev,eval}.csv` and `vocabulary.csv` (no header), `FSD50K.{dev,eval}_audio/`.
Labels include the more general classes, as published, in the order of the vocabulary. The development part has a
training and a validation split; the evaluation part is the test split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mint.data.corpora.outputs import Skip, ignore
from mint.data.corpora.public.reading import audio_folder, csv_rows, each_row, official_file, spoken
from mint.data.corpora.recordings import Recordings
from mint.data.corpora.values import choice
from mint.data.manifests.prompts import PROMPTS
from mint.text_files import csv_lines
from mint.types import Example

SPLITS = {"train": "train", "val": "validation"}


def read_fsd50k(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the clips of both parts.

    Raises:
        MintError: one of the official files is not in the folder.
    """
    truth = official_file("fsd50k", source, "FSD50K.ground_truth", "ground_truth")
    order = _vocabulary(official_file("fsd50k", truth, "vocabulary.csv"), skip)
    # Both parts must be there: without one, a split would be missing silently.
    for part in ("dev", "eval"):
        table = official_file("fsd50k", truth, f"{part}.csv")
        yield from _read_part(table, part, order, skip, audio)


def _vocabulary(table: Path, skip: Skip) -> dict[str, int]:
    """Return the index of each class; a line is its number, its name and its machine id."""
    leave_out = skip.lines_of(table)
    order: dict[str, int] = {}
    for line, row in csv_lines(table, broken=leave_out):
        if len(row) == 3:
            order[row[1]] = len(order)
        else:
            leave_out(line, f"{len(row)} fields in place of 3")
    return order


def _read_part(table: Path, part: str, order: dict[str, int], skip: Skip, audio: Path | None) -> Iterator[Example]:
    """Yield the clips of the development or the evaluation part."""
    recordings = Recordings(audio_folder(table.parent.parent, audio, f"FSD50K.{part}_audio"))

    def clip(row: dict[str, str]) -> Example | None:
        """Return the clip of a row; None for one that is left out."""
        # Names are joined by commas, which none of FSD50K's own has.
        given = row["labels"].split(",")
        known = sorted(filter(order.__contains__, given), key=order.__getitem__)
        if not known:
            skip(row["fname"], "none of its labels is in the vocabulary")
            return None

        labels = tuple(map(spoken, known))
        return Example(
            id=row["fname"],
            audio=recordings.find(row["fname"]),
            task="fsd50k",
            split=choice(row, "split", SPLITS) if part == "dev" else "test",
            corpus="fsd50k",
            prompt=PROMPTS["FSD50K"],
            answer=", ".join(labels),
            labels=labels,
            metadata={"freesound_id": row["fname"]},
        )

    # The evaluation part has no column of splits: all of it is the test split.
    columns = ("fname", "labels", "split") if part == "dev" else ("fname", "labels")
    yield from each_row(csv_rows(table, columns, skip), clip, skip.lines_of(table))
