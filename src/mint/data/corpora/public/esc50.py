"""*ESC-50* (Piczak, 2015): 5 s environmental sounds from Freesound, 50 classes, 40 clips of each in 5 folds.

Read as published: `meta/esc50.csv` and `audio/`. Clips of one recording are in one fold. Folds 1 to 3 are the training
split, 4 the validation and 5 the test split; the fold is kept with each clip, for the customary five-fold evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mint.data.corpora.outputs import Skip, ignore
from mint.data.corpora.public.reading import audio_folder, csv_rows, each_row, official_file, spoken
from mint.data.corpora.recordings import Recordings
from mint.data.corpora.values import choice, filled, truth
from mint.data.manifests.prompts import SOUND_PROMPT
from mint.types import Example

SPLITS = {"1": "train", "2": "train", "3": "train", "4": "validation", "5": "test"}


def read_esc50(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the clips of all folds.

    Raises:
        MintError: the CSV is not in the folder.
    """
    table = official_file("esc50", source, "meta/esc50.csv")
    recordings = Recordings(audio_folder(table.parent.parent, audio, "audio"))

    def clip(row: dict[str, str]) -> Example:
        """Return the clip of a row."""
        # Recordings are found by stem, so that copies in other formats serve as well.
        name = row["filename"].removesuffix(".wav")
        label = spoken(filled(row, "category"))

        return Example(
            id=name,
            audio=recordings.find(name),
            task="esc50",
            split=choice(row, "fold", SPLITS),
            corpus="esc50",
            prompt=SOUND_PROMPT,
            answer=label,
            labels=(label,),
            metadata={
                "fold": int(row["fold"]),
                "freesound_id": row["src_file"],
                # A copy of the table may lack the column, which no evaluation needs.
                "esc10": "esc10" in row and truth(row, "esc10"),
            },
        )

    rows = csv_rows(table, ("filename", "fold", "category", "src_file"), skip)
    yield from each_row(rows, clip, skip.lines_of(table))
