"""Miniatures of public corpora: official files written as they are published, and recordings of a few samples."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from mint.data.corpora.outputs import ignore, read_skipped
from mint.data.corpora.public.prepare import prepare_public
from mint.data.corpora.recordings import SUFFIXES
from mint.data.manifests.manifest import read_manifest
from mint.types import Example


def _wav() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.linspace(-0.5, 0.5, 160), 16000, format="WAV")
    return file.getvalue()


WAV = _wav()


def record(folder: Path, *names: str) -> None:
    """Recordings under these names; readers look at names alone."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(WAV)


def tone(path: Path, number: int) -> Path:
    """A recording of a few samples that no other number has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(number).uniform(-0.5, 0.5, 800), 8000, format="WAV")
    return path


def write(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    """An official file, line by line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding=encoding)
    return path


def prepared(
    name: str, source: Path, note: Callable[[str], None] = ignore.note, **wanted: Any
) -> tuple[dict[str, Example], dict[str, str]]:
    """What `mint data prepare` makes of a corpus: examples by id, and reasons by what was skipped."""
    manifest = prepare_public(name, source, source.parent / "manifests", note=_without_counts(note), **wanted)
    assert manifest == source.parent / "manifests" / f"{name}.jsonl"
    examples = list(read_manifest(manifest))
    found = {example.id: example for example in examples}
    assert len(found) == len(examples), "ids are unique"
    assert {example.corpus for example in examples} == {name}
    return found, {one["audio"]: one["reason"] for one in read_skipped(manifest)}


def _without_counts(note: Callable[[str], None]) -> Callable[[str], None]:
    """Pass notes on but for that of the counts, which a miniature never has."""
    return lambda line: None if "; published are " in line else note(line)


def splits(examples: Iterable[Example]) -> dict[str, str]:
    """Id -> split."""
    return {example.id: example.split for example in examples}


def check_without_audio(name: str, source: Path) -> None:
    """The recordings of a miniature are taken away: the metadata alone name all clips, and where each would be.

    Then they are found in another folder that is given, and, once they lie where the metadata's manifest says, there.
    """
    found, _ = prepared(name, source)
    whole, reasons = prepared(name, source, metadata_only=True)
    assert whole.keys() >= found.keys()
    assert found == {key: whole[key] for key in found}
    elsewhere = source.parent / "elsewhere"
    for path in sorted(source.rglob("*")):
        if path.suffix.lower() in SUFFIXES:
            place = elsewhere / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.rename(place)
    for folder in sorted((path for path in source.rglob("*") if path.is_dir()), reverse=True):
        with suppress(OSError):  # something else lies in it
            folder.rmdir()

    notes: list[str] = []
    alone, still = prepared(name, source, notes.append, metadata_only=True)
    assert list(alone) == list(whole)
    assert still == reasons
    for key, example in alone.items():
        assert replace(example, audio=whole[key].audio) == whole[key]
        assert example.audio.resolve().is_relative_to(source)
        assert not example.audio.exists()
    total = len(alone)
    assert f"{total} of {total} recordings are not on disk; the manifest says where they would be" in notes

    moved, _ = prepared(name, source, audio=elsewhere)
    assert list(moved) == list(found)
    assert all(example.audio.resolve().is_relative_to(elsewhere) for example in moved.values())

    for example in alone.values():
        record(example.audio.parent, example.audio.name)
    assert prepared(name, source)[0] == alone
