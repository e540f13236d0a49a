"""*NSynth* (Engel et al., 2017): notes of 4 s with the family of their instrument, 11 classes.

Read as published: `nsynth-{train,valid,test}/examples.json`, one object for all notes, and `audio/KEY.wav` beside it.
Instruments of the training part are not in the other two.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from mint.data.corpora.distribution import Skip, find, find_any, ignore, spoken
from mint.data.templates import PROMPTS
from mint.types import Example, MintError

SPLITS = {"train": "train", "valid": "validation", "test": "test"}
FACTS = ("pitch", "velocity", "instrument_str", "instrument_source_str", "qualities_str")


def read_nsynth(source: Path, skip: Skip = ignore) -> Iterator[Example]:
    """Yield the notes of the parts that are there.

    Raises:
        MintError: no part is in the folder, or its JSON is broken.
    """
    names = {part: f"nsynth-{part}/examples.json" for part in SPLITS}
    find("nsynth", source, *names.values())
    for part, split in SPLITS.items():
        if (table := find_any(source, names[part])) is None:
            continue
        try:
            notes = json.loads(table.read_bytes())
        except ValueError as error:
            raise MintError(f"{table}: not valid JSON ({error}); unpack nsynth-{part} again") from None
        for key, note in notes.items():
            family = spoken(note["instrument_family_str"])
            yield Example(
                id=key,
                audio=table.parent / "audio" / f"{key}.wav",
                task="nsynth",
                split=split,
                corpus="nsynth",
                prompt=PROMPTS["NSynth"],
                answer=family,
                labels=(family,),
                metadata={fact: note[fact] for fact in FACTS if fact in note},
            )
