"""Which recording of Freesound or YouTube a clip comes from, by its metadata or by how its corpus names its files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mint.text_files import read_json, shown
from mint.types import Example, MintError

SECONDS = r"\d+(?:\.\d+)?"
SEGMENT = re.compile(
    rf"(?:Y?([\w-]{{11}})(?:_{SECONDS}(?:[_-]{SECONDS})?)?|\[([\w-]{{11}})\](?:-\[{SECONDS}-{SECONDS}\])?)"
    r"(?:\.[A-Za-z]\w{1,4})?",
    re.ASCII,
)
"""A file of a YouTube video or a segment of one, as the readers of corpora find them; the id is one of the groups."""
YOUTUBE_CORPORA = ("audioset", "audiocaps", "vggsound", "musiccaps")
FREESOUND_CORPORA = ("fsd50k", "freesound")
BLACKLIST_SOURCES = {"AudioSet": "youtube", "FreeSound": "freesound"}
"""Keys of a blacklist that hold ids of YouTube or Freesound; others are passed over."""


def recording_ids(example: Example) -> frozenset[str]:
    """Return where a clip comes from, as `youtube:ID` and `freesound:ID`; nothing where it is unknown.

    `youtube_id` and `freesound_id` in its metadata are taken as they are; an empty one says that the id is not known.
    Where there is neither, its corpus says how ids and file names are made: AudioSet, AudioCaps, VGGSound and
    MusicCaps begin with the YouTube id, perhaps after a `Y`; FSD50K and Freesound with the number of the sound;
    ESC-50 has it second (`1-100032-A-0.wav`); WavCaps has a folder or `source` for each origin, and `Y...` or the
    number in it. Clotho's names hold none: its metadata do.
    """
    stated = set()
    for site in ("youtube", "freesound"):
        value = example.metadata.get(f"{site}_id")
        if value not in (None, ""):  # 0 is an id
            stated.add(f"{site}:{value}")
    # An id that is stated to be empty is not known: the number of a file must not be taken for it.
    if stated or "youtube_id" in example.metadata or "freesound_id" in example.metadata:
        return frozenset(stated)

    corpus = _plain(example.corpus)
    names = (example.id.rpartition("/")[2], example.audio.name)
    if corpus.startswith("wavcaps"):
        origin = _plain(f"{example.metadata.get('source', '')} {example.id} {example.audio.parent.name} {corpus}")
        # A number is an id of Freesound only in Freesound's part: BBC's names are numbers as well.
        ids = _first(_youtube, names) if "audioset" in origin else frozenset()
        return ids or (_first(_freesound, names) if "freesound" in origin else frozenset())
    if corpus.startswith(YOUTUBE_CORPORA):
        return _first(_youtube, names)
    if corpus.startswith(FREESOUND_CORPORA):
        return _first(_freesound, names)
    if corpus.startswith("esc50"):
        return _first(lambda name: _freesound(name.partition("-")[2]), names)
    return frozenset()


@dataclass(frozen=True)
class Blacklist:
    """Recordings that should not be trained on."""

    ids: frozenset[str]
    """Recordings, as `recording_ids` writes them."""
    unread: int
    """Number of entries that are no id of their source."""


def read_blacklist(path: Path) -> Blacklist:
    """Read a blacklist in WavCaps' format: `{"AudioSet": ["Yid.wav"], "FreeSound": ["number"]}`; lists may be empty.

    Raises:
        MintError: no such file, of another form, or entries of which none is an id.
    """
    form = "it must hold lists AudioSet and FreeSound"
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise MintError(f"{path}: no such blacklist; check the path") from None
    except (OSError, MintError) as error:
        raise MintError(f"{path} is no blacklist ({error}); {form}") from None
    if not isinstance(content, dict) or not content.keys() & BLACKLIST_SOURCES.keys():
        raise MintError(f"{path} is no blacklist; {form}")

    entries: list[Any] = []
    ids: set[str] = set()
    unread = 0
    for key, site in BLACKLIST_SOURCES.items():
        listed = content.get(key, [])
        if not isinstance(listed, list):
            raise MintError(f"{path} is no blacklist; {form}")
        read = {"youtube": _youtube, "freesound": _freesound}[site]

        for entry in listed:
            read_ids = read(str(entry)) if type(entry) in (str, int) else frozenset()
            ids.update(read_ids)
            unread += not read_ids
        entries.extend(listed)

    # Another file with a list of that name would otherwise ban nothing without a word.
    if entries and not ids:
        raise MintError(
            f"{path} is no blacklist: none of its {len(entries)} entries, such as {shown(entries[0])}, "
            f"is a YouTube id or a Freesound number"
        )
    return Blacklist(frozenset(ids), unread)


def _plain(name: str) -> str:
    """Return a corpus's name without punctuation and case: `ESC-50` and `esc50` are one."""
    return re.sub(r"[\W_]", "", name).lower()


def _first(read: Callable[[str], frozenset[str]], names: Iterable[str]) -> frozenset[str]:
    """Return what is read of the first name of which anything is."""
    return next(filter(None, map(read, names)), frozenset())


def _youtube(name: str) -> frozenset[str]:
    """Return the YouTube id in `Yxxxxxxxxxxx.wav`, `xxxxxxxxxxx_30.000-40.000.flac`, `[xxxxxxxxxxx]-[30-40].mp3`."""
    match = SEGMENT.fullmatch(name)
    return frozenset({f"youtube:{match[1] or match[2]}"}) if match else frozenset()


def _freesound(name: str) -> frozenset[str]:
    """Return the number at the beginning of `64760.wav`, `64760_1.wav` or `64760`."""
    match = re.match(r"(\d+)(?=$|[^\w]|_)", name)
    return frozenset({f"freesound:{int(match[1])}"}) if match else frozenset()
