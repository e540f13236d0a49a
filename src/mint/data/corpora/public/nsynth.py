"""*NSynth* (Engel et al., 2017): notes of 4 s with the family of their instrument, 11 classes.

Read as published: `nsynth-{train,valid,test}/examples.json`, one object for all notes, and `audio/KEY.wav` beside it.
Instruments of the training part are not in the other two.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mint.data.corpora.public.reading import Recordings, Skip, audio_folder, find, find_any, ignore, read_json, spoken
from mint.data.manifests.prompts import PROMPTS
from mint.types import Example

SPLITS = {"train": "train", "valid": "validation", "test": "test"}
FAMILY = "instrument_family_str"
FACTS = ("pitch", "velocity", "instrument_str", "instrument_source_str", "qualities_str")


def read_nsynth(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the notes of the parts that are there.

    Raises:
        MintError: no part is in the folder, or its JSON is broken.
    """
    names = {part: f"nsynth-{part}/examples.json" for part in SPLITS}
    find("nsynth", source, *names.values())
    for part, split in SPLITS.items():
        if (table := find_any(source, names[part])) is None:
            continue
        notes = read_json(table, _shortened)
        recordings = Recordings(audio_folder(table.parent.parent, audio, f"nsynth-{part}/audio"))
        for key, note in notes.items():
            family = spoken(note[FAMILY])
            yield Example(
                id=key,
                audio=recordings.find(key),
                task="nsynth",
                split=split,
                corpus="nsynth",
                prompt=PROMPTS["NSynth"],
                answer=family,
                labels=(family,),
                metadata={fact: note[fact] for fact in FACTS if fact in note},
            )


def _shortened(found: dict[str, Any]) -> dict[str, Any]:
    """A note without what is not kept: there are 289,205 in the training part."""
    return {key: found[key] for key in (FAMILY, *FACTS) if key in found} if FAMILY in found else found
