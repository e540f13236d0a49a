"""The corpora that MINT can prepare, by name. A reader is imported when it is asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mint.data.corpora.catalogue import CATALOGUE, Entry
from mint.types import MintError


@dataclass(frozen=True)
class Corpus:
    """One row of the table."""

    about: str
    prepare: Callable[[Path | None, Path, int], list[Path]]
    """(source, output, seed) -> manifests."""
    needs_source: bool
    entry: Entry | None = None
    """Size, licence and origin of a public corpus."""


def prepare(name: str, source: Path | None, output: Path, seed: int = 0) -> list[Path]:
    """Make the manifests of a corpus.

    Args:
        name: one of `CORPORA`.
        source: where the files of the corpus lie, if it needs any.
        output: a folder, or for a corpus with one manifest that file.
        seed: of splits, of the wording of captions and of what is rendered.

    Raises:
        MintError: an unknown name, a source that is missing or not wanted, or what the reader refuses.
    """
    if name not in CORPORA:
        raise MintError(f"no corpus {name!r}; choose one of {', '.join(CORPORA)}")
    if CORPORA[name].needs_source and source is None:
        raise MintError(f"corpus {name!r} is read from files; say where they lie with --source")
    if source is not None and not CORPORA[name].needs_source:
        raise MintError(f"corpus {name!r} takes no source (found {str(source)!r}); leave it out")
    return CORPORA[name].prepare(source, output, seed)


def _quickstart(source: Path | None, output: Path, seed: int) -> list[Path]:
    from mint.assets import fetch
    from mint.data.corpora.quickstart import prepare_quickstart

    return prepare_quickstart(output, fetch("soundfont") / "TimGM6mb.sf2", seed)


def _folder(source: Path | None, output: Path, seed: int) -> list[Path]:
    from mint.data.corpora.folder import read_source

    assert source is not None
    return [read_source(source, output, seed)]


def _csv(source: Path | None, output: Path, seed: int) -> list[Path]:
    from mint.data.corpora.public import prepare_table

    assert source is not None
    return [prepare_table(source, output, seed)]


def _public(name: str, source: Path | None, output: Path, seed: int) -> list[Path]:
    from mint.data.corpora.public import prepare_public

    assert source is not None
    return [prepare_public(name, source, output)]


CORPORA = {
    "quickstart": Corpus(
        "notes, ensembles, chords and percussion, rendered with captions and labels", _quickstart, False
    ),
    "folder": Corpus("your own recordings: a sub-folder per label, or a table with audio,label", _folder, True),
    "csv": Corpus("your own clips: a table with audio and label, labels or caption", _csv, True),
    **{name: Corpus(row.task, functools.partial(_public, name), True, row) for name, row in CATALOGUE.items()},
}
