"""*NSynth* (Engel et al., 2017): notes of 4 s with the family of their instrument, 11 classes.

Read as published: `nsynth-{train,valid,test}/examples.json`, one object for all notes, and `audio/KEY.wav` beside it.
The folder of one part alone will do. Instruments of the training part are not in the other two.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mint.data.corpora.outputs import Skip, ignore
from mint.data.corpora.public.reading import audio_folder, find_any, official_file, spoken
from mint.data.corpora.recordings import Recordings
from mint.data.manifests.prompts import PROMPTS
from mint.text_files import read_json
from mint.types import Example, MintError

SPLITS = {"train": "train", "valid": "validation", "test": "test"}
TABLES = {part: f"nsynth-{part}/examples.json" for part in SPLITS}
FAMILY = "instrument_family_str"
FACTS = ("pitch", "velocity", "instrument_str", "instrument_source_str", "qualities_str")


def read_nsynth(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the notes of the parts that are there.

    Raises:
        MintError: no part is in the folder, or its JSON is broken.
    """
    # Where the folder of one part is given, no other part is read, also if it lies beside.
    alone = source.resolve().name.removeprefix("nsynth-")
    if alone in SPLITS and (source / "examples.json").exists():
        yield from _read_part(source / "examples.json", alone, skip, audio)
        return

    official_file("nsynth", source, *TABLES.values())
    for part, name in TABLES.items():
        table = find_any(source, name)
        if table is not None:
            yield from _read_part(table, part, skip, audio)


def _read_part(table: Path, part: str, skip: Skip, audio: Path | None) -> Iterator[Example]:
    """Yield the notes of one part."""
    # Shortened while it is read: whole notes of the training part would need several times the memory.
    notes = read_json(table, _shortened)
    if not isinstance(notes, dict):
        raise MintError(f"{table}: not an object with a note under each name; take NSynth's own file")
    # As published, recordings lie beside their table.
    folder = audio_folder(audio, audio, f"nsynth-{part}/audio") if audio else table.parent / "audio"
    recordings = Recordings(folder)

    for key, note in notes.items():
        family = note.get(FAMILY) if isinstance(note, dict) else None
        if not key or not isinstance(family, str) or not family.strip():
            skip(f"{table.parent.name}/{table.name}, {key}", f"it has no {FAMILY}")
            continue

        label = spoken(family)
        yield Example(
            id=key,
            audio=recordings.find(key),
            task="nsynth",
            split=SPLITS[part],
            corpus="nsynth",
            prompt=PROMPTS["NSynth"],
            answer=label,
            labels=(label,),
            metadata={fact: note[fact] for fact in FACTS if fact in note},
        )


def _shortened(note: dict[str, Any]) -> dict[str, Any]:
    """Return a note without what is not kept: there are 289,205 in the training part."""
    return {key: note[key] for key in (FAMILY, *FACTS) if key in note} if FAMILY in note else note
