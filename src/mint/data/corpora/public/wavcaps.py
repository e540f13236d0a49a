"""*WavCaps* (Mei et al., 2023): clips of Freesound, BBC Sound Effects, SoundBible and AudioSet with a caption each.

Read as published: `json_files/FreeSound/fsd_final.json` and the like, one for each source, and the unpacked archives,
each below a folder whose name begins with that of the source (`FreeSound`, `FreeSound_flac`), at any depth. The lists
under `json_files/blacklist/` name clips that are also in AudioCaps, Clotho, UrbanSound8K, ESC-50 or VGGSound: whatever
any of the lists names is left out. To apply fewer lists, take the others away. The paper pre-trains on all of WavCaps.

`read_freesound` reads the Freesound part alone, or LAION's collection of Freesound.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mint.data.corpora.outputs import Skip, ignore
from mint.data.corpora.public.reading import find_any, official_file
from mint.data.corpora.recordings import Recordings
from mint.data.corpora.values import caption
from mint.data.manifests.prompts import PROMPTS
from mint.files import walk
from mint.text_files import read_json
from mint.types import Example, MintError

SOURCES = {
    "FreeSound": "fsd_final.json",
    "BBC_Sound_Effects": "bbc_final.json",
    "SoundBible": "sb_final.json",
    "AudioSet_SL": "as_final.json",
}
TABLES = {part: f"json_files/{part}/{name}" for part, name in SOURCES.items()}
LISTED_AS = {"FreeSound": "FreeSound", "AudioSet_SL": "AudioSet"}
"""Source -> its key in a blacklist."""
NO_LISTS = "no blacklist was found, so that clips of AudioCaps, Clotho and others are not left out"


def read_wavcaps(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the clips of the sources whose JSON is there and can be read; a source that cannot be read is noted.

    Raises:
        MintError: no JSON of a source is in the folder, none can be read, or a blacklist cannot be read.
    """
    official_file("wavcaps", source, *TABLES.values())
    # Told at the end, so that a corpus of which nothing can be read ends with one message.
    unread: list[str] = []
    is_any_read = False
    for part, name in TABLES.items():
        table = find_any(source, name)
        if table is None:
            continue

        try:
            records = _records(table)
        except MintError as error:
            unread.append(str(error))
            continue

        is_any_read = True
        yield from _clips(records, source, table, part, "wavcaps", skip, audio)

    if not is_any_read:
        raise MintError(unread[0])
    for fault in unread:
        skip.note(f"{fault}; the clips of this source are left out")


def read_part(source: Path, table: Path, part: str, corpus: str, skip: Skip, audio: Path | None) -> Iterator[Example]:
    """Yield the clips of one source's JSON.

    Raises:
        MintError: the JSON or a blacklist cannot be read.
    """
    yield from _clips(_records(table), source, table, part, corpus, skip, audio)


def _clips(
    records: list[Any], source: Path, table: Path, part: str, corpus: str, skip: Skip, audio: Path | None
) -> Iterator[Example]:
    """Yield the clips of one source, less those on a blacklist and those without a caption."""
    excluded = _blacklisted(table.parent.parent / "blacklist", LISTED_AS.get(part), skip)
    # The folder of the source itself may be given, in which nothing is named after it.
    if audio is not None and audio.name.startswith(part):
        recordings = Recordings(audio)
    else:
        recordings = Recordings(*_audio_folders(audio or source, part))

    for number, record in enumerate(records, start=1):
        name = f"{table.name}, record {number}"
        if not isinstance(record, dict) or record.get("id") in (None, "") or not isinstance(record["id"], str | int):
            skip(name, "it has no id")
            continue

        # AudioSet's ids end with `.wav`, here and in the blacklists; the recordings are FLAC files.
        clip = str(record["id"]).removesuffix(".wav")
        if clip in excluded:
            skip(f"{part}/{clip}", excluded[clip])
            continue
        try:
            text = caption(record.get("caption"))
        except MintError as error:
            skip(f"{part}/{clip}", str(error))
            continue

        yield Example(
            id=f"{part}/{clip}",
            audio=recordings.find(clip, published=f"{clip}.flac"),
            task="captioning",
            split="train",
            corpus=corpus,
            prompt=PROMPTS["WavCaps"],
            captions=(text,),
            metadata=_origin(part, clip),
        )


def _audio_folders(home: Path, part: str) -> list[Path]:
    """Return the outermost folders of a source's recordings, behind links too."""
    folders: list[Path] = []
    for parent, _ in walk(home):
        path = Path(parent)
        is_named = path != home and path.name.startswith(part) and path.parent.name != "json_files"
        # A folder is walked before those in it, so that the outermost one is known already.
        if is_named and not any(folder in path.parents for folder in folders):
            folders.append(path)
    return folders or [home / part]


def _blacklisted(folder: Path, key: str | None, skip: Skip) -> dict[str, str]:
    """Return the clips that a list names, with the reason to leave them out.

    Raises:
        MintError: a list cannot be read; to go on without it would train on what it names.
    """
    if key is None:
        return {}

    excluded: dict[str, str] = {}
    # Archives from macOS bring a hidden `._NAME.json` beside each file, which is no JSON.
    lists = sorted(path for path in folder.glob("*.json") if path.name[0] != ".")
    if not lists:
        skip.note(f"{folder}: {NO_LISTS}")
    for path in lists:
        content = read_json(path)
        clips = content.get(key, []) if isinstance(content, dict) else None
        if not isinstance(clips, list):
            raise MintError(f"{path} is no blacklist with a list for each source; take WavCaps' own file")
        for clip in clips:
            # The first list that names a clip is the reason that is told.
            excluded.setdefault(str(clip).removesuffix(".wav"), f"it is on {path.name}")
    return excluded


def _records(table: Path) -> list[Any]:
    """Return the clips of a JSON: a list, or an object with `data`."""
    loaded = read_json(table, _shortened)
    records = loaded.get("data") if isinstance(loaded, dict) else loaded

    if not isinstance(records, list):
        raise MintError(f"{table}: no list of clips under 'data'; take WavCaps' own file")
    return records


def _shortened(record: dict[str, Any]) -> dict[str, Any]:
    """Return a clip without what is not kept: Freesound's 262,300 have long descriptions."""
    return {key: record[key] for key in ("id", "caption")} if record.keys() >= {"id", "caption"} else record


def _origin(part: str, clip: str) -> dict[str, Any]:
    """Return the id by which other corpora know a clip."""
    if part == "FreeSound":
        return {"source": part, "freesound_id": clip}
    if part == "AudioSet_SL":
        # Before a YouTube id stands a `Y`, as AudioSet's recordings are named.
        return {"source": part, "youtube_id": clip.removeprefix("Y")}
    return {"source": part}
