"""Miniatures of public corpora: official files written as they are published, and recordings of a few samples."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import soundfile

from mint.data.corpora.distribution import ignore
from mint.data.corpora.folder import read_skipped
from mint.data.corpora.public import prepare_public
from mint.data.manifest import read_manifest
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


def write(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    """An official file, line by line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding=encoding)
    return path


def prepared(
    name: str, source: Path, note: Callable[[str], None] = ignore.note
) -> tuple[dict[str, Example], dict[str, str]]:
    """What `mint data prepare` makes of a corpus: examples by id, and reasons by what was skipped."""
    manifest = prepare_public(name, source, source.parent / "manifests", note)
    assert manifest == source.parent / "manifests" / f"{name}.jsonl"
    examples = list(read_manifest(manifest))
    found = {example.id: example for example in examples}
    assert len(found) == len(examples), "ids are unique"
    assert {example.corpus for example in examples} == {name}
    return found, {one["audio"]: one["reason"] for one in read_skipped(manifest)}


def splits(examples: Iterable[Example]) -> dict[str, str]:
    """Id -> split."""
    return {example.id: example.split for example in examples}
