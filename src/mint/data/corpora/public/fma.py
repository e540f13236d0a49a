"""*FMA* (Defferrard et al., 2017): music of the Free Music Archive with its genre; subsets small, medium and large.

Read as published: `fma_metadata/tracks.csv`, whose header has three lines (group, column, index) and whose fields hold
quoted text over many lines, and `fma_large/000/000002.mp3`, 30 s of each track. The label is the top genre: 16 classes,
8 in the small subset. About half of the large subset has none and is left out. A larger folder serves a smaller subset.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mint.data.corpora.outputs import Skip, ignore
from mint.data.corpora.public.reading import audio_folder, each_row, official_file
from mint.data.corpora.recordings import Recordings
from mint.data.corpora.values import choice
from mint.data.manifests.prompts import PROMPTS
from mint.text_files import csv_lines, one_line
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
    table = official_file(f"fma-{subset}", source, "fma_metadata/tracks.csv", "tracks.csv")
    # A track has the smallest subset that it is in; a larger subset's archive holds it too.
    contained, containing = SUBSETS[: SUBSETS.index(subset) + 1], SUBSETS[SUBSETS.index(subset) :]
    home = table.parent.parent if table.parent.name == "fma_metadata" else table.parent
    recordings = Recordings(audio_folder(home, audio, *(f"fma_{size}" for size in (*containing, "full"))))

    def track(row: dict[str, str]) -> Example | None:
        """Return the track of a row; None for one that is left out."""
        if row["set.subset"] not in contained:
            return None

        # About half of the large subset has none.
        number, genre = int(row["track_id"]), one_line(row["track.genre_top"])
        if not genre:
            skip(str(number), "it has no top genre")
            return None

        name = f"{number:06d}"
        return Example(
            id=name,
            audio=recordings.find(name, published=f"{name[:3]}/{name}.mp3"),
            task=f"fma-{subset}",
            split=choice(row, "set.split", SPLITS),
            corpus=f"fma-{subset}",
            prompt=PROMPTS["FMA-large"],
            answer=genre,
            labels=(genre,),
            metadata={"fma_track": number, "artist": row["artist.id"], "genre_ids": row["track.genres"]},
        )

    yield from each_row(_tracks(table, skip), track, skip.lines_of(table))


def _tracks(table: Path, skip: Skip) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the wanted columns of each track, named `group.column`, with their lines."""
    leave_out = skip.lines_of(table)
    lines = csv_lines(table, broken=leave_out)
    groups, names = next(lines, (0, []))[1], next(lines, (0, []))[1]
    header = list(zip(groups, names, strict=False))

    for column in COLUMNS:
        if column not in header:
            raise MintError(f"{table}, line 1: no column {'.'.join(column)!r}; take tracks.csv of fma_metadata")
    indices = {".".join(column): header.index(column) for column in COLUMNS}

    for line, row in lines:
        if row[0] == "track_id":  # the third line of the header
            continue

        if len(row) != len(header):
            leave_out(line, f"{len(row)} fields in place of {len(header)}")
        elif not row[0].isdecimal():
            leave_out(line, f"track_id is {row[0]!r}; it must be a number")
        else:
            yield line, {"track_id": row[0]} | {name: row[index] for name, index in indices.items()}
