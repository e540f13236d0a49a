"""*VGGSound* (Chen et al., 2020): 10 s segments of YouTube videos, each of one of 309 sounds.

Read as published: `vggsound.csv`, which has no header: video, second at which the segment begins, label, split. The
recordings are the segments, cut, below the same folder, as `ID_000030` (the authors' own form) or under another of the
names that downloaders give them. The official split has no validation part.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mint.data.corpora.public.audioset import segment_names
from mint.data.corpora.public.reading import Recordings, Skip, csv_lines, find, ignore
from mint.data.manifests.prompts import PROMPTS
from mint.types import Example

SECONDS = 10


def read_vggsound(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the segments of the CSV.

    Raises:
        MintError: the CSV is not in the folder.
    """
    table = find("vggsound", source, "vggsound.csv")
    recordings = Recordings(audio or source)
    for number, line in csv_lines(table):
        if len(line) != 4 or not line[1].isdigit() or line[3] not in ("train", "test"):
            skip(f"{table.name}, line {number}", f"broken line of {table.name}")
            continue
        video, start, label, split = line
        yield Example(
            id=f"{video}_{int(start):06d}",
            audio=recordings.find(*segment_names(video, int(start), int(start) + SECONDS)),
            task="vggsound",
            split=split,
            corpus="vggsound",
            prompt=PROMPTS["VGGSound"],
            answer=label,
            labels=(label,),
            metadata={"youtube_id": video, "video_start": int(start)},
        )
