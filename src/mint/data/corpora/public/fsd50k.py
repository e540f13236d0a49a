"""*FSD50K* (Fonseca et al., 2020): Freesound clips of 0.3 to 30 s with the sounds in them, 200 classes of AudioSet.

Read as published: `FSD50K.ground_truth/{dev,eval}.csv` and `vocabulary.csv` (no header), `FSD50K.{dev,eval}_audio/`.
Labels include the more general classes, as published, in the order of the vocabulary. The development part has a
training and a validation split; the evaluation part is the test split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mint.data.corpora.public.reading import Recordings, Skip, audio_folder, csv_lines, csv_rows, find, ignore, spoken
from mint.data.manifests.prompts import PROMPTS
from mint.types import Example

SPLITS = {"train": "train", "val": "validation"}


def read_fsd50k(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the clips of both parts.

    Raises:
        MintError: one of the official files is not in the folder.
    """
    truth = find("fsd50k", source, "FSD50K.ground_truth", "ground_truth")
    vocabulary = find("fsd50k", truth, "vocabulary.csv")
    order = {line[1]: place for place, (_, line) in enumerate(csv_lines(vocabulary)) if len(line) == 3}
    for part in ("dev", "eval"):
        recordings = Recordings(audio_folder(truth.parent, audio, f"FSD50K.{part}_audio"))
        columns = ("fname", "labels", "split") if part == "dev" else ("fname", "labels")
        for row in csv_rows(find("fsd50k", truth, f"{part}.csv"), columns, skip):
            known = sorted((name for name in row["labels"].split(",") if name in order), key=order.__getitem__)
            labels = tuple(map(spoken, known))
            if not labels:
                skip(row["fname"], "none of its labels is in the vocabulary")
                continue
            yield Example(
                id=row["fname"],
                audio=recordings.find(row["fname"]),
                task="fsd50k",
                split=SPLITS[row["split"]] if part == "dev" else "test",
                corpus="fsd50k",
                prompt=PROMPTS["FSD50K"],
                answer=", ".join(labels),
                labels=labels,
                metadata={"freesound_id": row["fname"]},
            )
