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

from mint.data.corpora.public.reading import (
    Recordings,
    Skip,
    audio_folder,
    csv_lines,
    csv_rows,
    find,
    ignore,
    read_json,
    spoken,
)
from mint.data.manifests.prompts import PROMPTS
from mint.types import Example

PRESENT = 0.5
"""Least relevance, of 0 to 1, of an instrument that is there."""


def read_openmic(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the clips of both partitions.

    Raises:
        MintError: one of the official files is not in the folder.
    """
    table = find("openmic", source, "openmic-2018-aggregated-labels.csv")
    home = table.parent
    class_map: dict[str, int] = read_json(find("openmic", home, "class-map.json"))
    classes = sorted(class_map, key=class_map.__getitem__)
    relevance: dict[str, dict[str, float]] = defaultdict(dict)
    for row in csv_rows(table, ("sample_key", "instrument", "relevance"), skip):
        relevance[row["sample_key"]][row["instrument"]] = float(row["relevance"])
    recordings = Recordings(audio_folder(home, audio, "audio"))
    for split in ("train", "test"):
        for _, (key, *_) in csv_lines(find("openmic", home, f"partitions/split01_{split}.csv")):
            if (heard := relevance.get(key)) is None:
                skip(key, "nobody was asked about it")
                continue
            labels = tuple(spoken(name) for name in classes if heard.get(name, 0.0) >= PRESENT)
            yield Example(
                id=key,
                audio=recordings.find(key, published=f"{key[:3]}/{key}.ogg"),
                task="openmic",
                split=split,
                corpus="openmic",
                prompt=PROMPTS["OpenMIC"],
                answer=", ".join(labels) or None,
                labels=labels,
                unknown=tuple(spoken(name) for name in classes if name not in heard),
                metadata={"fma_track": int(key.partition("_")[0])} if key.partition("_")[0].isdigit() else {},
            )
