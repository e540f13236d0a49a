"""The clips that someone names: files, folders, manifests and lists of paths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mint.data.corpora.recordings import audio_files
from mint.data.features.stream import Source
from mint.data.manifests.manifest import PARQUET, read_manifest
from mint.text_files import text_lines
from mint.types import Example, MintError

MANIFESTS = (".jsonl", PARQUET)
LIST = ".txt"


class ClipKey(NamedTuple):
    """What tells one clip of a job from another."""

    audio: str
    id: str | None = None
    start: float = 0.0
    duration: float | None = None


def gather(arguments: Iterable[str]) -> list[Source]:
    """Return the clips that some arguments name, in their order, each once.

    Args:
        arguments: audio files; folders, which stand for the recordings at any depth below them; manifests (`.jsonl` or
            `.parquet`); and lists (`.txt`) with one path a line, relative to the list's folder.

    Raises:
        MintError: there is no clip in one of them, or it cannot be read.
    """
    clips: dict[ClipKey, Source] = {}

    for argument in arguments:
        count = 0
        for source in _named_by(argument):
            # A clip that is named twice would have two rows.
            clips.setdefault(key_of(source), source)
            count += 1
        if not count:
            raise MintError(f"there are no audio files in {argument!r}; give files, or a folder that holds some")
    return list(clips.values())


def _named_by(argument: str) -> Iterator[Source]:
    path = Path(argument)
    # A folder may have any name, such as set.txt.
    if path.is_dir():
        yield from map(str, audio_files(path))
    elif path.suffix.lower() in MANIFESTS:
        yield from read_manifest(path)
    elif path.suffix.lower() == LIST:
        for line in text_lines(path):
            # Blank lines stand for nothing; spaces may belong to a name.
            if line.strip():
                yield str(path.parent / line.strip("\r\n"))
    else:
        yield argument


def key_of(source: Source) -> ClipKey:
    """Return what tells a file or the clip of a manifest from others."""
    if isinstance(source, Example):
        return ClipKey(str(source.audio), source.id, source.start, source.duration)
    return ClipKey(str(source))


def row_of(source: Source, with_parts: bool) -> dict[str, Any]:
    """Return the columns that name a clip in a file of results.

    Args:
        source: the clip.
        with_parts: whether there are columns for what only the clips of manifests have.
    """
    key = key_of(source)
    if not with_parts:
        return {"audio": key.audio}
    return {"id": key.id, "audio": key.audio, "start": key.start, "duration": key.duration}


def key_of_row(row: dict[str, Any]) -> ClipKey:
    """Return the key of the clip that a row of results names."""
    return ClipKey(row["audio"], row.get("id"), row.get("start", 0.0), row.get("duration"))
