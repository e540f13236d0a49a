"""*VGGSound* (Chen et al., 2020): 10 s segments of YouTube videos, each of one of 309 sounds.

Read as published: `vggsound.csv`, which has no header: video, second at which the segment begins, label, split. The
recordings are the segments, cut, below the same folder, as `ID_000030` (the authors' own form) or under another of the
names that downloaders give them. The official split has no validation part, and six of its videos are in both others.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mint.data.corpora.outputs import Skip, ignore
from mint.data.corpora.public.audioset import segment_names
from mint.data.corpora.public.reading import each_row, official_file
from mint.data.corpora.recordings import Recordings
from mint.data.corpora.values import choice, filled, seconds
from mint.data.manifests.prompts import PROMPTS
from mint.text_files import csv_lines
from mint.types import Example

SECONDS = 10
FIELDS = ("video", "start", "label", "split")
SPLITS = {"train": "train", "test": "test"}


def read_vggsound(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the segments of the CSV.

    Raises:
        MintError: the CSV is not in the folder.
    """
    table = official_file("vggsound", source, "vggsound.csv")
    recordings = Recordings(audio or source)
    # Kept while the segments are streamed: two hundred thousand short texts.
    split_of: dict[str, str] = {}
    torn: set[str] = set()

    def segment(row: dict[str, str]) -> Example:
        """Return the segment of a row."""
        video, label, split = filled(row, "video"), filled(row, "label"), choice(row, "split", SPLITS)
        start = int(seconds(row, "start"))

        # The official list has videos of which one segment is in each split.
        if split_of.setdefault(video, split) != split:
            torn.add(video)

        return Example(
            id=f"{video}_{start:06d}",
            audio=recordings.find(*segment_names(video, start, start + SECONDS)),
            task="vggsound",
            split=split,
            corpus="vggsound",
            prompt=PROMPTS["VGGSound"],
            answer=label,
            labels=(label,),
            metadata={"youtube_id": video, "video_start": start},
        )

    yield from each_row(_segment_rows(table, skip), segment, skip.lines_of(table))

    if torn:
        skip.note(
            f"{len(torn)} videos are in both train and test of {table.name}, as it is published "
            f"({', '.join(sorted(torn)[:3])}, ...); `mint data leakage` counts them"
        )


def _segment_rows(table: Path, skip: Skip) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows by column, with their lines."""
    # Without a header, a row of another length cannot be told from one with a comma that lacks its quotes.
    leave_out = skip.lines_of(table)
    for line, row in csv_lines(table, broken=leave_out):
        if len(row) == len(FIELDS):
            yield line, dict(zip(FIELDS, row, strict=True))
        else:
            leave_out(line, f"{len(row)} fields in place of {len(FIELDS)}")
