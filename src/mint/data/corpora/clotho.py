"""*Clotho* v2 (Drossos et al., 2020): Freesound clips of 15 to 30 s with five captions each.

Read as published: `clotho_captions_{development,validation,evaluation}.csv`, the folders of recordings of the same
names, and, where they are there, `clotho_metadata_*.csv` (in Latin-1) with the Freesound ids. File names are those of
Freesound, with spaces, brackets and commas, three of them with a space in front. The evaluation part is the test split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mint.data.corpora.distribution import Recordings, Skip, csv_rows, find, find_any, ignore
from mint.data.templates import PROMPTS
from mint.types import Example

SPLITS = {"development": "train", "validation": "validation", "evaluation": "test"}
CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))


def read_clotho(source: Path, skip: Skip = ignore) -> Iterator[Example]:
    """Yield the clips of the parts that are there.

    Raises:
        MintError: no part's captions are in the folder.
    """
    find("clotho", source, *(f"clotho_captions_{part}.csv" for part in SPLITS))
    for part, split in SPLITS.items():
        if (table := find_any(source, f"clotho_captions_{part}.csv")) is None:
            continue
        sounds = _sounds(find_any(source, f"clotho_metadata_{part}.csv"))
        recordings = Recordings(find_any(source, part, f"clotho_audio_{part}") or source / part)
        for row in csv_rows(table, ("file_name", *CAPTIONS), skip):
            name = row["file_name"]
            yield Example(
                id=f"{part}/{name}",
                audio=recordings.find(name.removesuffix(".wav"), name.strip().removesuffix(".wav")),
                task="captioning",
                split=split,
                corpus="clotho",
                prompt=PROMPTS["Clotho"],
                captions=tuple(row[caption].strip() for caption in CAPTIONS),
                metadata={"freesound_id": sounds[name]} if sounds.get(name, "").isdigit() else {},
            )


def _sounds(metadata: Path | None) -> dict[str, str]:
    """File name -> Freesound id; some clips have `Not found`."""
    if metadata is None:
        return {}
    return {row["file_name"]: row["sound_id"] for row in csv_rows(metadata, ("file_name", "sound_id"), ignore)}
