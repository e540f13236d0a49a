"""*Music4All* (Pegoraro Santana et al., 2020): 30 s of music with its key, or with its genres.

Read as the authors give it: tab-separated `id_metadata.csv` (Spotify's `key`, 0 for C to 11 for B, and `mode`, 1 for
major) or `id_genres.csv` (genres with commas between them, kept in the order given), and `audios/ID.mp3`. There is no
official split; the paper trains on both, so all of it is the training split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mint.data.corpora.outputs import Skip, ignore
from mint.data.corpora.public.reading import csv_rows, official_file
from mint.data.corpora.recordings import Recordings
from mint.data.corpora.rendered.general_midi import NOTE_NAMES
from mint.data.manifests.prompts import PROMPTS
from mint.text_files import one_line
from mint.types import Example

MODES = ("minor", "major")
KEYS = {(str(pitch), str(mode)): f"{name} {MODES[mode]}" for pitch, name in enumerate(NOTE_NAMES) for mode in (0, 1)}
"""(key, mode) as they are written -> label."""


def read_music4all_key(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the tracks whose key is known.

    Raises:
        MintError: the metadata is not in the folder, or is another file.
    """
    table = official_file("music4all-key", source, "id_metadata.csv")
    recordings = Recordings(audio or table.parent)

    for _, row in csv_rows(table, ("id", "key", "mode"), skip, delimiter="\t"):
        # Whole numbers may be written as 6.0; a key of -1 is not known.
        key = KEYS.get((row["key"].removesuffix(".0"), row["mode"].removesuffix(".0")))
        if key is None:
            skip(row["id"], "its key is not known")
        else:
            yield _example(row["id"], recordings, "music4all-key", PROMPTS["Music4All-key"], (key,))


def read_music4all_genre(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the tracks that have genres.

    Raises:
        MintError: the metadata is not in the folder, or is another file.
    """
    table = official_file("music4all-genre", source, "id_genres.csv")
    recordings = Recordings(audio or table.parent)

    for _, row in csv_rows(table, ("id", "genres"), skip, delimiter="\t"):
        # A genre that is named twice counts once, at its first place.
        genres = tuple(dict.fromkeys(filter(None, map(one_line, row["genres"].split(",")))))
        if not genres:
            skip(row["id"], "it has no genre")
        else:
            yield _example(row["id"], recordings, "music4all-genre", PROMPTS["Music4All-genre"], genres)


def _example(track: str, recordings: Recordings, corpus: str, prompt: str, labels: tuple[str, ...]) -> Example:
    """Return the clip of a track."""
    # One folder of recordings serves both corpora.
    return Example(
        id=track,
        audio=recordings.find(track, published=f"audios/{track}.mp3"),
        task=corpus,
        split="train",
        corpus=corpus,
        prompt=prompt,
        answer=", ".join(labels),
        labels=labels,
    )
