"""*FMA* (Defferrard et al., 2017): music of the Free Music Archive with its genre; subsets small, medium and large.

Read as published: `fma_metadata/tracks.csv`, whose header has three lines (group, column, index) and whose fields hold
quoted text over many lines, and `fma_large/000/000002.mp3`, 30 s of each track. The label is the top genre: 16 classes,
8 in the small subset. About half of the large subset has none and is left out. A larger folder serves a smaller subset.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mint.data.corpora.public.reading import Recordings, Skip, audio_folder, csv_lines, find, ignore
from mint.data.manifests.prompts import PROMPTS
from mint.types import Example, MintError

SUBSETS = ("small", "medium", "large")
"""Each contains those before it."""
SPLITS = {"training": "train", "validation": "validation", "test": "test"}
COLUMNS = (("set", "split"), ("set", "subset"), ("track", "genre_top"), ("track", "genres"), ("artist", "id"))


def read_fma(source: Path, skip: Skip = ignore, audio: Path | None = None, subset: str = "large") -> Iterator[Example]:
    """Yield the tracks of a subset, one of `SUBSETS`, that have a top genre.

    Raises:
        MintError: the metadata is not in the folder, or is another file.
    """
    table = find(f"fma-{subset}", source, "fma_metadata/tracks.csv", "tracks.csv")
    sizes = SUBSETS[SUBSETS.index(subset) :]
    home = table.parent.parent if table.parent.name == "fma_metadata" else table.parent
    recordings = Recordings(audio_folder(home, audio, *(f"fma_{size}" for size in (*sizes, "full"))))
    lines = csv_lines(table)
    header = list(zip(*(next(lines, (0, []))[1] for _ in range(2)), strict=False))
    if missing := [column for column in COLUMNS if column not in header]:
        raise MintError(
            f"{table}, line 1: no column {'.'.join(missing[0])!r}; take tracks.csv of the fma_metadata archive"
        )
    places = [header.index(column) for column in COLUMNS]
    contained = SUBSETS[: SUBSETS.index(subset) + 1]
    for number, line in lines:
        if line[0] == "track_id":
            continue
        if not line[0].isdigit() or len(line) != len(header):
            skip(f"{table.name}, line {number}", f"broken line of {table.name}")
            continue
        split, found_in, genre, genres, artist = (line[place] for place in places)
        if found_in not in contained:
            continue
        track = int(line[0])
        if not genre:
            skip(str(track), "it has no top genre")
            continue
        name = f"{track:06d}"
        yield Example(
            id=name,
            audio=recordings.find(name, published=f"{name[:3]}/{name}.mp3"),
            task=f"fma-{subset}",
            split=SPLITS[split],
            corpus=f"fma-{subset}",
            prompt=PROMPTS["FMA-large"],
            answer=genre,
            labels=(genre,),
            metadata={"fma_track": track, "artist": artist, "genre_ids": genres},
        )
