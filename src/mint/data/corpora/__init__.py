"""The corpora that MINT can prepare, by name. A reader is imported when it is asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mint.data.corpora.public.catalogue import CATALOGUE, Entry
from mint.types import MintError


@dataclass(frozen=True)
class Request:
    """How a corpus is to be prepared."""

    source: Path | None
    """Where the files of the corpus lie, if it needs any."""
    output: Path
    """A folder, or for a corpus with one manifest that file."""
    seed: int = 0
    """Of splits, of the wording of captions and of what is rendered."""
    audio: Path | None = None
    """Where its recordings lie; None: where they are published."""
    metadata_only: bool = False
    """Whether clips are kept whose recording is not there."""
    note: Callable[[str], None] = lambda line: None
    """Told, in a line, what a person should know of the corpus."""


@dataclass(frozen=True)
class Corpus:
    """One row of the table."""

    about: str
    prepare: Callable[[Request], list[Path]]
    """Makes the manifests."""
    needs_source: bool
    entry: Entry | None = None
    """Size, licence and origin of a public corpus."""


def prepare(name: str, request: Request) -> list[Path]:
    """Make the manifests of a corpus, one of `CORPORA`.

    Raises:
        MintError: an unknown name, a source that is missing or not wanted, or what the reader refuses.
    """
    if name not in CORPORA:
        raise MintError(f"no corpus {name!r}; choose one of {', '.join(CORPORA)}")
    if CORPORA[name].needs_source and request.source is None:
        raise MintError(f"corpus {name!r} is read from files; say where they lie with --source")
    if request.source is not None and not CORPORA[name].needs_source:
        raise MintError(f"corpus {name!r} takes no source (found {str(request.source)!r}); leave it out")
    if (request.audio is not None or request.metadata_only) and name in ("quickstart", "folder"):
        raise MintError(f"corpus {name!r} is made from its recordings; leave out --audio and --metadata-only")
    if request.audio is not None and not request.audio.is_dir():
        raise MintError(f"{request.audio}: no such folder; give that of the recordings with --audio")
    return CORPORA[name].prepare(request)


def _quickstart(request: Request) -> list[Path]:
    from mint.assets import fetch
    from mint.data.corpora.own.folder import OTHER_FILES
    from mint.data.corpora.rendered.quickstart import prepare_quickstart

    if request.output.suffix.lower() in (".jsonl", *OTHER_FILES) and not request.output.is_dir():
        raise MintError(f"{request.output}: each of the quickstart's corpora has its own manifest; give a folder")
    return prepare_quickstart(request.output, fetch("soundfont") / "TimGM6mb.sf2", request.seed)


def _folder(request: Request) -> list[Path]:
    from mint.data.corpora.own.folder import read_source

    assert request.source is not None
    return [read_source(request.source, request.output, request.seed)]


def _csv(request: Request) -> list[Path]:
    from mint.data.corpora.public.prepare import prepare_table

    assert request.source is not None
    wanted = (request.audio, request.metadata_only, request.note)
    return [prepare_table(request.source, request.output, request.seed, *wanted)]


def _public(name: str, request: Request) -> list[Path]:
    from mint.data.corpora.public.prepare import prepare_public

    assert request.source is not None
    wanted = (request.audio, request.metadata_only, request.note)
    return [prepare_public(name, request.source, request.output, *wanted)]


CORPORA = {
    "quickstart": Corpus(
        "notes, ensembles, chords and percussion, rendered with captions and labels", _quickstart, False
    ),
    "folder": Corpus("your own recordings: a sub-folder per label, or a table with audio,label", _folder, True),
    "csv": Corpus("your own clips: a table with audio and label, labels or caption", _csv, True),
    **{name: Corpus(row.task, functools.partial(_public, name), True, row) for name, row in CATALOGUE.items()},
}
