"""*GTZAN* (Tzanetakis and Cook, 2002): 30 s of music of 10 genres, 100 tracks of each.

Read as published: a folder for each genre, `genres/blues/blues.00000.wav` (or `.au`; Kaggle's copy calls the folder
`genres_original`). Beside them may lie Kereliuk et al.'s lists without the repeated, mislabelled and distorted tracks,
`{train,valid,test}_filtered.txt`: then only these tracks are read, in these splits; otherwise all are the test split,
as the paper's zero-shot evaluation has it. `jazz.00054` of Kaggle's copy is broken: it is skipped unless it decodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mint.data.audio.decode import check_audio
from mint.data.corpora.public.reading import Recordings, Skip, find, find_any, ignore
from mint.data.manifests.prompts import PROMPTS
from mint.types import Example, MintError

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
LISTS = {"train": "train_filtered.txt", "validation": "valid_filtered.txt", "test": "test_filtered.txt"}
BROKEN = "jazz.00054"


def read_gtzan(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the tracks of the lists that are there, or else all tracks.

    Raises:
        MintError: neither the folders of the genres nor lists are there.
    """
    lists = {split: found for split, name in LISTS.items() if (found := find_any(source, name))}
    folder, names = audio or source, [f"{folder}blues" for folder in ("genres/", "genres_original/", "")]
    home = (find_any(folder, *names) or folder / names[0] if lists else find("gtzan", folder, *names)).parent
    recordings = Recordings(home)
    for track, split in _tracks(lists, home):
        genre = track.partition(".")[0]
        place = recordings.find(track, published=f"{genre}/{track}.wav")
        if track == BROKEN and place.is_file() and (fault := _fault(place)):
            skip(track, fault)
            continue
        yield Example(
            id=track,
            audio=place,
            task="gtzan",
            split=split,
            corpus="gtzan",
            prompt=PROMPTS["GTZAN"],
            answer=genre,
            labels=(genre,),
        )


def _tracks(lists: dict[str, Path], home: Path) -> Iterator[tuple[str, str]]:
    """Names without suffix, and splits."""
    for split, found in lists.items():
        for line in found.read_text(encoding="utf-8").split():
            yield Path(line).stem, split
    if not lists:
        for genre in GENRES:
            for stem in sorted({path.stem for path in (home / genre).glob(f"{genre}.*")}):
                yield stem, "test"


def _fault(audio: Path) -> str:
    """Why a recording cannot be read, if it cannot."""
    try:
        check_audio(audio)
    except MintError:
        return "the file is broken in this copy of GTZAN"
    return ""
