"""*Clotho* v2 (Drossos et al., 2020): Freesound clips of 15 to 30 s with five captions each.

Read as published: `clotho_captions_{development,validation,evaluation}.csv`, the folders of recordings of the same
names, and, where they are there, `clotho_metadata_*.csv` (in several encodings) with the Freesound ids. File names are
those of Freesound, with spaces, brackets and commas, three of them with a space in front. The evaluation part is the
test split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mint.data.corpora.outputs import Skip, ignore
from mint.data.corpora.public.reading import audio_folder, csv_rows, each_row, find_any, official_file
from mint.data.corpora.recordings import Recordings, composed
from mint.data.corpora.values import captions
from mint.data.manifests.prompts import PROMPTS
from mint.types import Example

SPLITS = {"development": "train", "validation": "validation", "evaluation": "test"}
TABLES = {part: f"clotho_captions_{part}.csv" for part in SPLITS}
WITHOUT_ID = "such clips have no Freesound id, so that `mint data leakage` cannot compare them by recording"
SHOWN = 5
"""Names in a note."""
CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))


def read_clotho(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the clips of the parts that are there.

    Raises:
        MintError: no part's captions are in the folder.
    """
    official_file("clotho", source, *TABLES.values())
    for part, name in TABLES.items():
        table = find_any(source, name)
        if table is not None:
            yield from _read_part(source, part, table, skip, audio)


def _read_part(source: Path, part: str, table: Path, skip: Skip, audio: Path | None) -> Iterator[Example]:
    """Yield the clips of one part, and note those whose Freesound id is not known."""
    # Optional: the captions are whole without it.
    metadata = find_any(source, f"clotho_metadata_{part}.csv")
    sounds = _sounds(metadata)
    unnamed: list[str] = []
    recordings = Recordings(audio_folder(source, audio, part, f"clotho_audio_{part}"))

    def clip(row: dict[str, str]) -> Example:
        """Return the clip of a row."""
        # Three names have a space in front; their recordings may lie there without it.
        name = row["file_name"]
        sound = sounds.get(composed(name.strip()))
        if sound is None:
            unnamed.append(name)

        return Example(
            id=f"{part}/{name}",
            audio=recordings.find(name.removesuffix(".wav"), name.strip().removesuffix(".wav"), published=name),
            task="captioning",
            split=SPLITS[part],
            corpus="clotho",
            prompt=PROMPTS["Clotho"],
            captions=captions(map(row.__getitem__, CAPTIONS)),
            metadata={"freesound_id": sound} if sound is not None and sound.isdigit() else {},
        )

    yield from each_row(csv_rows(table, ("file_name", *CAPTIONS), skip), clip, skip.lines_of(table))

    if unnamed:
        some = f"{len(unnamed)} clips ({', '.join(map(repr, unnamed[:SHOWN]))})"
        what = f"is not beside {table.name}" if metadata is None else f"does not name {some}"
        skip.note(f"clotho_metadata_{part}.csv {what}; {WITHOUT_ID}")


def _sounds(metadata: Path | None) -> dict[str, str]:
    """Return the Freesound id of each file; some clips have `Not found`."""
    if metadata is None:
        return {}

    # A broken row here costs an id, not a clip: it is not listed, but its clip is among those without an id.
    rows = csv_rows(metadata, ("file_name", "sound_id"), ignore)
    return {composed(row["file_name"].strip()): row["sound_id"].strip() for _, row in rows}
