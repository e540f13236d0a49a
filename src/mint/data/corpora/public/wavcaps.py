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

from mint.data.corpora.public.reading import Recordings, Skip, find, find_any, ignore, read_json, walk
from mint.data.manifests.prompts import PROMPTS
from mint.types import Example, MintError

SOURCES = {
    "FreeSound": "fsd_final.json",
    "BBC_Sound_Effects": "bbc_final.json",
    "SoundBible": "sb_final.json",
    "AudioSet_SL": "as_final.json",
}
LISTED_AS = {"FreeSound": "FreeSound", "AudioSet_SL": "AudioSet"}
"""Source -> its key in a blacklist."""
NO_LISTS = "no blacklist was found, so that clips of AudioCaps, Clotho and others are not left out"


def read_wavcaps(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the clips of the sources whose JSON is there.

    Raises:
        MintError: no JSON of a source is in the folder, or one is broken.
    """
    find("wavcaps", source, *(f"json_files/{part}/{name}" for part, name in SOURCES.items()))
    for part, name in SOURCES.items():
        if (table := find_any(source, f"json_files/{part}/{name}")) is not None:
            yield from read_part(source, table, part, "wavcaps", skip, audio)


def read_part(source: Path, table: Path, part: str, corpus: str, skip: Skip, audio: Path | None) -> Iterator[Example]:
    """Yield the clips of one source's JSON."""
    excluded = _blacklisted(table.parent.parent / "blacklist", LISTED_AS.get(part), skip)
    whole = audio is not None and audio.name.startswith(part)
    recordings = Recordings(*([audio] if audio is not None and whole else _audio_folders(audio or source, part)))
    for record in _records(table):
        clip = str(record["id"]).removesuffix(".wav")
        caption = str(record["caption"]).strip()
        if clip in excluded:
            skip(f"{part}/{clip}", excluded[clip])
        elif not caption:
            skip(f"{part}/{clip}", "it has no caption")
        else:
            yield Example(
                id=f"{part}/{clip}",
                audio=recordings.find(clip, published=f"{clip}.flac"),
                task="captioning",
                split="train",
                corpus=corpus,
                prompt=PROMPTS["WavCaps"],
                captions=(caption,),
                metadata=_origin(part, clip),
            )


def _audio_folders(home: Path, part: str) -> list[Path]:
    """The outermost folders of a source's recordings, behind links too."""
    below = (Path(parent) for parent, _ in walk(home))
    folders = [path for path in below if path != home and path.name.startswith(part)]
    folders = [path for path in folders if path.parent.name != "json_files"]
    return [path for path in folders if not any(other in path.parents for other in folders)] or [home / part]


def _blacklisted(folder: Path, key: str | None, skip: Skip) -> dict[str, str]:
    """Clips that a list names, and the reason to leave them out."""
    if key is None:
        return {}
    found: dict[str, str] = {}
    lists = sorted(folder.glob("*.json"))
    if not lists:
        skip.note(f"{folder}: {NO_LISTS}")
    for path in lists:
        for clip in read_json(path).get(key, ()):
            found.setdefault(str(clip).removesuffix(".wav"), f"it is on {path.name}")
    return found


def _records(table: Path) -> list[dict[str, Any]]:
    """The clips of a JSON: a list, or an object with `data`."""
    loaded = read_json(table, _shortened)
    records = loaded if isinstance(loaded, list) else loaded.get("data")
    if not isinstance(records, list):
        raise MintError(f"{table}: no list of clips under 'data'; take WavCaps' own file")
    return records


def _shortened(found: dict[str, Any]) -> dict[str, Any]:
    """A clip without what is not kept: Freesound's 262,300 have long descriptions."""
    return {key: found[key] for key in ("id", "caption")} if found.keys() >= {"id", "caption"} else found


def _origin(part: str, clip: str) -> dict[str, Any]:
    """The id by which other corpora know a clip."""
    if part == "FreeSound":
        return {"source": part, "freesound_id": clip}
    if part == "AudioSet_SL":
        return {"source": part, "youtube_id": clip.removeprefix("Y")}
    return {"source": part}
