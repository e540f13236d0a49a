"""*MusicCaps* (Agostinelli et al., 2023): 10 s of music from AudioSet, each described by a musician.

Read as published: `musiccaps-public.csv`. The recordings are the segments, cut, below the same folder, under one of the
names that downloaders give them. Clips of AudioSet's evaluation segments are the test split, the others for training.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mint.data.corpora.public.audioset import segment_names
from mint.data.corpora.public.reading import Recordings, Skip, csv_rows, find, ignore
from mint.types import CAPTION_PROMPT, Example

COLUMNS = ("ytid", "start_s", "end_s", "caption", "aspect_list", "is_audioset_eval")


def read_musiccaps(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the clips of the CSV.

    Raises:
        MintError: the CSV is not in the folder.
    """
    table = find("musiccaps", source, "musiccaps-public.csv")
    recordings = Recordings(audio or source)
    for row in csv_rows(table, COLUMNS, skip):
        start, end = float(row["start_s"]), float(row["end_s"])
        yield Example(
            id=f"{row['ytid']}_{row['start_s']}",
            audio=recordings.find(*segment_names(row["ytid"], start, end)),
            task="captioning",
            split="test" if row["is_audioset_eval"] == "True" else "train",
            corpus="musiccaps",
            prompt=CAPTION_PROMPT,
            captions=(" ".join(row["caption"].split()),),
            metadata={"youtube_id": row["ytid"], "video_start": start, "aspects": row["aspect_list"]},
        )
