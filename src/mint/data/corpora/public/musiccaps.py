"""*MusicCaps* (Agostinelli et al., 2023): 10 s of music from AudioSet, each described by a musician.

Read as published: `musiccaps-public.csv`. The recordings are the segments, cut, below the same folder, under one of the
names that downloaders give them. Clips of AudioSet's evaluation segments are the test split, the others for training.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mint.data.corpora.outputs import Skip, ignore
from mint.data.corpora.public.audioset import segment_names
from mint.data.corpora.public.reading import csv_rows, each_row, official_file
from mint.data.corpora.recordings import Recordings
from mint.data.corpora.values import caption, seconds, truth
from mint.types import CAPTION_PROMPT, Example

COLUMNS = ("ytid", "start_s", "end_s", "caption", "aspect_list", "is_audioset_eval")


def read_musiccaps(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the clips of the CSV.

    Raises:
        MintError: the CSV is not in the folder.
    """
    table = official_file("musiccaps", source, "musiccaps-public.csv")
    # The dataset is captions alone: recordings lie wherever a downloader put them.
    recordings = Recordings(audio or source)

    def clip(row: dict[str, str]) -> Example:
        """Return the clip of a row."""
        start, end = seconds(row, "start_s"), seconds(row, "end_s")

        # AudioSet's evaluation segments must not be trained on: a word that is neither true nor false costs the row.
        return Example(
            id=f"{row['ytid']}_{row['start_s']}",
            audio=recordings.find(*segment_names(row["ytid"], start, end)),
            task="captioning",
            split="test" if truth(row, "is_audioset_eval") else "train",
            corpus="musiccaps",
            prompt=CAPTION_PROMPT,
            captions=(caption(row["caption"]),),
            metadata={"youtube_id": row["ytid"], "video_start": start, "aspects": row["aspect_list"]},
        )

    yield from each_row(csv_rows(table, COLUMNS, skip), clip, skip.lines_of(table))
