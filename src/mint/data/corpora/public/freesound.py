"""Captions of Freesound (Font et al., 2013), of which nobody has published an official set.

Two forms are read: LAION's (`audio-dataset`, unpacked from its tar files), a JSON with `text`, one or two captions from
title and description, beside each recording, below `train/`, `valid/` or `test/`; and WavCaps' Freesound part with its
blacklists (`json_files/FreeSound/fsd_final.json`), whose captions ChatGPT cleaned. LAION's full collection overlaps
with Clotho, ESC-50, FSD50K and UrbanSound8K; its *no overlap* version does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mint.data.corpora.outputs import Skip, ignore
from mint.data.corpora.public.reading import find_any, not_the_corpus
from mint.data.corpora.public.wavcaps import TABLES, read_part
from mint.data.corpora.recordings import Recordings
from mint.data.corpora.values import captions
from mint.data.manifests.prompts import PROMPTS
from mint.files import walk
from mint.text_files import read_json
from mint.types import Example, MintError

SPLITS = {"valid": "validation", "val": "validation", "test": "test"}
"""Folder -> split; all others are for training."""


def read_freesound(source: Path, skip: Skip = ignore, audio: Path | None = None) -> Iterator[Example]:
    """Yield the clips of either form.

    Raises:
        MintError: neither form is in the folder.
    """
    # WavCaps' form is one JSON; without it, the folder is taken for LAION's.
    table = find_any(source, TABLES["FreeSound"])
    if table is not None:
        yield from read_part(source, table, "FreeSound", "freesound", skip, audio)
        return

    is_empty = True
    for parent, names in walk(source):
        texts = [name for name in names if name.endswith(".json")]
        if not texts:
            continue

        is_empty = False
        # Recordings elsewhere lie in folders of the same names.
        folder = audio / Path(parent).relative_to(source) if audio else Path(parent)
        recordings = Recordings(folder)
        for name in texts:
            try:
                yield _pair(source, Path(parent, name), recordings)
            except MintError as error:
                skip(Path(parent, name).relative_to(source).with_suffix("").as_posix(), str(error))
    if is_empty:
        raise not_the_corpus("freesound", source, "there is no JSON beside a recording in it")


def _pair(source: Path, text: Path, recordings: Recordings) -> Example:
    """Return the clip of one JSON.

    Raises:
        MintError: the JSON is broken or says nothing.
    """
    name = text.relative_to(source).with_suffix("")
    record = _record(text)
    texts = record["text"]

    split = "train"
    for folder in name.parts[:-1]:
        if folder in SPLITS:
            split = SPLITS[folder]
            break

    return Example(
        id=name.as_posix(),
        audio=recordings.find(name.name, published=f"{name.name}.flac"),
        task="captioning",
        split=split,
        corpus="freesound",
        prompt=PROMPTS["FreeSound"],
        # One text or a list of them, as the title and the description give.
        captions=captions([texts] if isinstance(texts, str) else texts),
        metadata={"freesound_id": _freesound_id(record)},
    )


def _record(text: Path) -> dict[str, Any]:
    """Return the object in a JSON file, which has a text or a list under `text`."""
    try:
        record = read_json(text)
    except MintError as error:
        cure = "it is a Git LFS pointer, fetch it" if "LFS" in str(error) else "fetch it again"
        raise MintError(f"its JSON is broken; {cure}") from None

    if not isinstance(record, dict) or not isinstance(record.get("text"), str | list):
        raise MintError("its JSON has no text")
    return record


def _freesound_id(record: dict[str, Any]) -> str:
    """Return the number of a sound at Freesound; empty where it is not said.

    Files are numbered within the collection: `63.flac` need not be Freesound's 63. The empty text says that the name of
    the file is not to be taken for the id.
    """
    # What the collection kept of Freesound's own entry of the sound, if anything.
    origin = record.get("original_data")
    number = str(origin.get("id")) if isinstance(origin, dict) else ""
    return number if number.isdecimal() else ""
