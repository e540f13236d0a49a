"""Captions of Freesound (Font et al., 2013), of which nobody has published an official set.

Two forms are read: LAION's (`audio-dataset`, unpacked from its tar files), a JSON with `text`, one or two captions from
title and description, beside each recording, below `train/`, `valid/` or `test/`; and WavCaps' Freesound part with its
blacklists (`json_files/FreeSound/fsd_final.json`), whose captions ChatGPT cleaned. LAION's full collection overlaps
with Clotho, ESC-50, FSD50K and UrbanSound8K; its *no overlap* version does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mint.data.corpora.public.catalogue import CATALOGUE
from mint.data.corpora.public.reading import Recordings, Skip, find_any, ignore, read_json, walk
from mint.data.corpora.public.wavcaps import SOURCES, read_part
from mint.data.manifests.prompts import PROMPTS
from mint.types import Example, MintError

SPLITS = {"valid": "validation", "val": "validation", "test": "test"}
"""Folder -> split; all others are for training."""


def read_freesound(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the clips of either form.

    Raises:
        MintError: neither form is in the folder.
    """
    if (table := find_any(source, f"json_files/FreeSound/{SOURCES['FreeSound']}")) is not None:
        yield from read_part(source, table, "FreeSound", "freesound", skip, audio)
        return
    found = False
    for parent, names in walk(source):
        texts = [name for name in names if name.endswith(".json") and name[0] != "."]
        place = audio / Path(parent).relative_to(source) if audio else Path(parent)
        recordings = Recordings(place) if texts else None
        for name in texts:
            assert recordings is not None
            found = True
            yield from _pair(source, Path(parent, name), recordings, skip)
    if not found:
        reason = "there is no JSON beside a recording in it" if source.is_dir() else "no such folder"
        raise MintError(f"{source}: {reason}; give the folder of Freesound ({CATALOGUE['freesound'].where})")


def _pair(source: Path, text: Path, recordings: Recordings, skip: Skip) -> Iterator[Example]:
    """The clip of one JSON."""
    name = text.relative_to(source).with_suffix("")
    try:
        record = read_json(text)
        texts = record["text"]
    except (MintError, KeyError, TypeError):
        skip(name.as_posix(), "its JSON is broken or has no text")
        return
    captions = tuple(filter(None, (caption.strip() for caption in ([texts] if isinstance(texts, str) else texts))))
    if not captions:
        skip(name.as_posix(), "it has no caption")
        return
    freesound_id = (record.get("original_data") or {}).get("id")
    yield Example(
        id=name.as_posix(),
        audio=recordings.find(name.name, published=f"{name.name}.flac"),
        task="captioning",
        split=next((SPLITS[part] for part in name.parts[:-1] if part in SPLITS), "train"),
        corpus="freesound",
        prompt=PROMPTS["FreeSound"],
        captions=captions,
        metadata={} if freesound_id is None else {"freesound_id": str(freesound_id)},
    )
