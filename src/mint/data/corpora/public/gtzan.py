"""*GTZAN* (Tzanetakis and Cook, 2002): 30 s of music of 10 genres, 100 tracks of each.

Read as published: a folder for each genre, `genres/blues/blues.00000.wav` (or `.au`; Kaggle's copy calls the folder
`genres_original`); genres that are not there are left out, with a note. Beside them may lie Kereliuk et al.'s lists
without the repeated, mislabelled and distorted tracks, `{train,valid,test}_filtered.txt`: then only these tracks are
read, in these splits; otherwise all are the test split, as the paper's zero-shot evaluation has it. `jazz.00054` of
Kaggle's copy is broken: it is skipped unless it decodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mint.data.audio.listen import check_audio
from mint.data.corpora.outputs import Skip, ignore
from mint.data.corpora.public.reading import find_any, not_the_corpus
from mint.data.corpora.recordings import Recordings
from mint.data.manifests.prompts import PROMPTS
from mint.text_files import text_lines
from mint.types import Example, MintError

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
LISTS = {"train": "train_filtered.txt", "validation": "valid_filtered.txt", "test": "test_filtered.txt"}
FOLDERS = ("genres/", "genres_original/", "")
BROKEN = "jazz.00054"


def read_gtzan(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the tracks of the lists that are there, or else all tracks.

    Raises:
        MintError: neither the folder of a genre nor lists are there.
    """
    given: dict[str, Path] = {}
    for split, name in LISTS.items():
        path = find_any(source, name)
        if path is not None:
            given[split] = path
    home = _home(audio or source, has_lists=bool(given))
    recordings = Recordings(home)

    # Lists leave out repeated, mislabelled and distorted tracks: where there is one, no other track is read.
    for track, split in _listed(given, skip) if given else _all_tracks(home, skip):
        genre = track.partition(".")[0]  # blues.00000
        path = recordings.find(track, published=f"{genre}/{track}.wav")
        # The one recording that is opened: any other that is broken is `mint data validate`'s to find.
        if track == BROKEN and path.is_file() and _is_broken(path):
            skip(track, "the file is broken in this copy of GTZAN")
            continue

        yield Example(
            id=track,
            audio=path,
            task="gtzan",
            split=split,
            corpus="gtzan",
            prompt=PROMPTS["GTZAN"],
            answer=genre,
            labels=(genre,),
        )


def _home(folder: Path, has_lists: bool) -> Path:
    """Return the folder in which those of the genres lie, or, of lists alone, would lie."""
    for parent in FOLDERS:
        path = find_any(folder, *(f"{parent}{genre}" for genre in GENRES))
        if path is not None:
            return path.parent

    # Lists name tracks that need not be on disk; without them, folders are all that there is.
    if not has_lists:
        raise not_the_corpus("gtzan", folder, f"there is no {FOLDERS[0]}{GENRES[0]}, or folder of another genre, in it")
    return folder / FOLDERS[0]


def _listed(lists: dict[str, Path], skip: Skip) -> Iterator[tuple[str, str]]:
    """Yield the tracks that the lists name, without suffix, with their splits."""
    for split, path in lists.items():
        leave_out = skip.lines_of(path)
        for line, text in enumerate(text_lines(path), start=1):
            name = text.strip()
            # The lists have `blues/blues.00000.wav`.
            track = Path(name).stem
            if track.partition(".")[0] in GENRES:
                yield track, split
            elif name:
                leave_out(line, f"{name!r} is no track of a genre of GTZAN")


def _all_tracks(home: Path, skip: Skip) -> Iterator[tuple[str, str]]:
    """Yield all tracks below the folders of the genres as test clips, and note the genres that are not there."""
    missing = []
    for genre in GENRES:
        # A track may lie there in two formats.
        stems = sorted({path.stem for path in (home / genre).glob(f"{genre}.*")})
        if not stems:
            missing.append(genre)
        for stem in stems:
            yield stem, "test"

    if missing:
        skip.note(f"{home} has no tracks of {', '.join(missing)}")


def _is_broken(audio: Path) -> bool:
    """Return whether a recording cannot be read."""
    try:
        check_audio(audio)
    except MintError:
        return True
    return False
