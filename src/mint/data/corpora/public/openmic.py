"""*OpenMIC-2018* (Humphrey et al., 2018): 10 s of music from the FMA with the instruments in it, 20 classes.

Read as published: `openmic-2018-aggregated-labels.csv`, `class-map.json`, `partitions/split01_{train,test}.csv` and
`audio/000/000046_3840.ogg`. Listeners were asked about few instruments a clip: one is present at a relevance of 0.5 or
more, absent below, and *unknown* where nobody was asked. A clip of which absences alone are known has no answer: it
teaches nothing but is counted where classes are scored. The official partition has no validation part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from mint.data.corpora.outputs import Skip, ignore
from mint.data.corpora.public.reading import audio_folder, csv_rows, official_file, spoken
from mint.data.corpora.recordings import Recordings
from mint.data.corpora.values import number
from mint.data.manifests.prompts import PROMPTS
from mint.text_files import csv_lines, read_json
from mint.types import Example, MintError

PRESENT = 0.5
"""Least relevance, of 0 to 1, of an instrument that is there."""


def read_openmic(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the clips of both partitions.

    Raises:
        MintError: one of the official files is not in the folder.
    """
    table = official_file("openmic", source, "openmic-2018-aggregated-labels.csv")
    home = table.parent
    classes = _classes(official_file("openmic", home, "class-map.json"))
    # The table has a row for each pair of clip and instrument, in any order: all of it is read before the first clip.
    relevances = _relevances(table, skip)
    recordings = Recordings(audio_folder(home, audio, "audio"))

    for split in ("train", "test"):
        # The table of labels does not say in which split a clip is; the partition lists do, one key a line.
        partition = official_file("openmic", home, f"partitions/split01_{split}.csv")
        for _, (key, *_) in csv_lines(partition, broken=skip.lines_of(partition)):
            relevance = relevances.get(key)
            if relevance is None:
                skip(key, "no listener was asked about it")
                continue

            present, unasked = [], []
            for name in classes:
                if name not in relevance:
                    unasked.append(spoken(name))
                elif relevance[name] >= PRESENT:
                    present.append(spoken(name))
            # A key is the track of the FMA and the sample at which the clip begins.
            track = key.partition("_")[0]
            yield Example(
                id=key,
                audio=recordings.find(key, published=f"{key[:3]}/{key}.ogg"),
                task="openmic",
                split=split,
                corpus="openmic",
                prompt=PROMPTS["OpenMIC"],
                answer=", ".join(present) or None,
                labels=tuple(present),
                unknown=tuple(unasked),
                metadata={"fma_track": int(track)} if track.isdecimal() else {},
            )


def _classes(path: Path) -> list[str]:
    """Return the instruments in the order of their indices."""
    class_map = read_json(path)

    if not isinstance(class_map, dict) or not all(isinstance(index, int) for index in class_map.values()):
        raise MintError(f"{path}: not an object with an index for each instrument; take OpenMIC's own file")
    return sorted(class_map, key=class_map.__getitem__)


def _relevances(table: Path, skip: Skip) -> dict[str, dict[str, float]]:
    """Return how relevant listeners found each instrument that they were asked about, by clip."""
    leave_out = skip.lines_of(table)
    relevances: dict[str, dict[str, float]] = defaultdict(dict)
    for line, row in csv_rows(table, ("sample_key", "instrument", "relevance"), skip):
        try:
            relevances[row["sample_key"]][row["instrument"]] = number(row, "relevance")
        except MintError as error:
            leave_out(line, str(error))
    return relevances
