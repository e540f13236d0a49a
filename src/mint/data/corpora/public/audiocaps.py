"""*AudioCaps* (Kim et al., 2019): clips of AudioSet with captions, one each for training, five for validation and test.

Read as published: `train.csv`, `val.csv` and `test.csv`, a line for each caption. The recordings are the segments of
10 s, cut, below the same folder, under one of the names that downloaders give them. Version 2.0 has the same columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from mint.data.corpora.outputs import Skip, ignore
from mint.data.corpora.public.audioset import segment_names
from mint.data.corpora.public.reading import csv_rows, find_any, official_file
from mint.data.corpora.recordings import Recordings
from mint.data.corpora.values import caption, seconds
from mint.types import CAPTION_PROMPT, Example, MintError

SPLITS = {"train": "train", "val": "validation", "test": "test"}
COLUMNS = ("youtube_id", "audiocap_id", "start_time", "caption")
SECONDS = 10


@dataclass
class Captioned:
    """A segment with the captions that rows of the table give it."""

    start: float
    captions: list[str] = field(default_factory=list)
    row_ids: list[str] = field(default_factory=list)
    """The numbers of these rows: some downloaders name the file after one of them."""


def read_audiocaps(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the clips of the parts that are there, the captions of each together.

    Raises:
        MintError: no part's CSV is in the folder.
    """
    # The project's repository has its tables in `dataset/`.
    names = {part: (f"{part}.csv", f"dataset/{part}.csv") for part in SPLITS}
    official_file("audiocaps", source, *chain.from_iterable(names.values()))
    recordings = Recordings(audio or source)

    for part, split in SPLITS.items():
        table = find_any(source, *names[part])
        if table is None:
            continue

        for (video, start), clip in _captioned(table, skip).items():
            stems = segment_names(video, clip.start, clip.start + SECONDS)
            # The id has the start as the table writes it, not as a number that might be written in another way.
            yield Example(
                id=f"{video}_{start}",
                audio=recordings.find(*stems, *clip.row_ids),
                task="captioning",
                split=split,
                corpus="audiocaps",
                prompt=CAPTION_PROMPT,
                captions=tuple(clip.captions),
                metadata={"youtube_id": video, "video_start": clip.start},
            )


def _captioned(table: Path, skip: Skip) -> dict[tuple[str, str], Captioned]:
    """Return the segments of a table by video and start, as it writes them."""
    leave_out = skip.lines_of(table)
    clips: dict[tuple[str, str], Captioned] = {}
    for line, row in csv_rows(table, COLUMNS, skip):
        try:
            start, text = seconds(row, "start_time"), caption(row["caption"])
        except MintError as error:
            leave_out(line, str(error))
            continue

        # The five captions of a clip need not stand side by side.
        clip = clips.setdefault((row["youtube_id"], row["start_time"]), Captioned(start))
        clip.captions.append(text)
        clip.row_ids.append(row["audiocap_id"])
    return clips
