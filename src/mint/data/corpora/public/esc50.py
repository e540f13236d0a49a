"""*ESC-50* (Piczak, 2015): 5 s environmental sounds from Freesound, 50 classes, 40 clips of each in 5 folds.

Read as published: `meta/esc50.csv` and `audio/`. Clips of one recording are in one fold. Folds 1 to 3 are the training
split, 4 the validation and 5 the test split; the fold is kept with each clip, for the customary five-fold evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mint.data.corpora.public.reading import Recordings, Skip, audio_folder, csv_rows, find, ignore, spoken
from mint.data.manifests.prompts import SOUND_PROMPT
from mint.types import Example

SPLITS = {"1": "train", "2": "train", "3": "train", "4": "validation", "5": "test"}


def read_esc50(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the clips of all folds.

    Raises:
        MintError: the CSV is not in the folder.
    """
    table = find("esc50", source, "meta/esc50.csv")
    recordings = Recordings(audio_folder(table.parent.parent, audio, "audio"))
    for row in csv_rows(table, ("filename", "fold", "category", "src_file"), skip):
        clip = row["filename"].removesuffix(".wav")
        label = spoken(row["category"])
        yield Example(
            id=clip,
            audio=recordings.find(clip),
            task="esc50",
            split=SPLITS[row["fold"]],
            corpus="esc50",
            prompt=SOUND_PROMPT,
            answer=label,
            labels=(label,),
            metadata={"fold": int(row["fold"]), "freesound_id": row["src_file"], "esc10": row.get("esc10") == "True"},
        )
