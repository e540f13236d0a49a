"""*AudioCaps* (Kim et al., 2019): clips of AudioSet with captions, one each for training, five for validation and test.

Read as published: `train.csv`, `val.csv` and `test.csv`, a line for each caption. The recordings are the segments of
10 s, cut, below the same folder, under one of the names that downloaders give them. Version 2.0 has the same columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mint.data.corpora.public.audioset import segment_names
from mint.data.corpora.public.reading import Recordings, Skip, csv_rows, find, find_any, ignore
from mint.types import CAPTION_PROMPT, Example

SPLITS = {"train": "train", "val": "validation", "test": "test"}
COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
SECONDS = 10


def read_audiocaps(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the clips of the parts that are there, the captions of each together.

    Raises:
        MintError: no part's CSV is in the folder.
    """
    names = {part: (f"{part}.csv", f"dataset/{part}.csv") for part in SPLITS}
    find("audiocaps", source, *(name for part in names.values() for name in part))
    recordings = Recordings(audio or source)
    for part, split in SPLITS.items():
        if (table := find_any(source, *names[part])) is None:
            continue
        clips: dict[tuple[str, str], list[dict[str, str]]] = {}
        for row in csv_rows(table, COLUMNS, skip):
            clips.setdefault((row["youtube_id"], row["start_time"]), []).append(row)
        for (video, start), rows in clips.items():
            stems = segment_names(video, float(start), float(start) + SECONDS)
            yield Example(
                id=f"{video}_{start}",
                audio=recordings.find(*stems, *(row["audiocap_id"] for row in rows)),
                task="captioning",
                split=split,
                corpus="audiocaps",
                prompt=CAPTION_PROMPT,
                captions=tuple(row["caption"].strip() for row in rows),
                metadata={"youtube_id": video, "video_start": float(start)},
            )
