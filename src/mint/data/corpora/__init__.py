"""The corpora that MINT can prepare, by name. A reader is imported when it is asked for."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Mapping
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
    """The number from which splits, the wording of captions and renderings are drawn."""
    audio: Path | None = None
    """Where its recordings lie; None: where they are published."""
    metadata_only: bool = False
    """Whether clips are kept whose recording is not there."""
    note: Callable[[str], None] = lambda line: None
    """Told, in a line, what a person should know of the corpus."""
    columns: Mapping[str, str] | None = None
    """The names in a table of one's own of columns that mean something."""


@dataclass(frozen=True)
class Corpus:
    """One row of the table."""

    about: str
    prepare: Callable[[Request], list[Path]]
    """Makes the manifests and returns their paths."""
    needs_source: bool
    entry: Entry | None = None
    """Size, licence and origin of a public corpus."""


OWN = ("folder", "csv")
"""Corpora that are read from one's own files, whose columns may have any names."""
RECORDED = ("quickstart", "folder")
"""Corpora that are made from their recordings: there is nothing to keep of a clip without one."""


def prepare_corpus(name: str, request: Request) -> list[Path]:
    """Make the manifests of a corpus, one of `CORPORA`, and return their paths.

    Raises:
        MintError: an unknown name, a source that is missing or not wanted, or what the reader refuses.
    """
    if name not in CORPORA:
        near = _similar(name)
        cure = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(CORPORA)}"
        raise MintError(f"no corpus {name!r}; {cure}")

    corpus = CORPORA[name]
    if corpus.needs_source and request.source is None:
        raise MintError(f"corpus {name!r} is read from files; say where they are with --source")
    if request.source is not None and not corpus.needs_source:
        raise MintError(f"corpus {name!r} takes no source (found {str(request.source)!r}); leave it out")
    if (request.audio is not None or request.metadata_only) and name in RECORDED:
        raise MintError(f"corpus {name!r} is made from its recordings; leave out --audio and --metadata-only")
    if request.columns is not None and name not in OWN:
        raise MintError(f"corpus {name!r} has columns of its own; leave out --columns")
    if request.audio is not None and not request.audio.is_dir():
        raise MintError(f"{request.audio}: no such folder; give that of the recordings with --audio")

    return corpus.prepare(request)


def _similar(name: str) -> list[str]:
    """Return the corpora that a wrong name may mean: `ESC50`, `fma`, `audio-caps`."""
    # Papers write ESC-50, FMA and AudioCaps: case and signs tell no two corpora apart.
    plain = {corpus: re.sub(r"\W|_", "", corpus) for corpus in CORPORA}
    wanted = re.sub(r"\W|_", "", name.lower())

    begins = [corpus for corpus, spelled in plain.items() if wanted and spelled.startswith(wanted)]
    if begins:
        return begins
    near = difflib.get_close_matches(wanted, plain.values(), n=3)
    return [corpus for corpus, spelled in plain.items() if spelled in near]


def _quickstart(request: Request) -> list[Path]:
    """Render the corpora of the quickstart."""
    from mint.assets import fetch
    from mint.data.corpora.outputs import OTHER_SUFFIXES
    from mint.data.corpora.rendered.quickstart import prepare_quickstart

    # Four manifests do not fit in one file.
    if request.output.suffix.lower() in (".jsonl", *OTHER_SUFFIXES) and not request.output.is_dir():
        raise MintError(f"{request.output}: each of the quickstart's corpora has its own manifest; give a folder")
    return prepare_quickstart(request.output, fetch("soundfont") / "TimGM6mb.sf2", request.seed)


def _folder(request: Request) -> list[Path]:
    """Read one's own recordings."""
    from mint.data.corpora.own.folder import read_source

    assert request.source is not None
    return [read_source(request.source, request.output, request.seed, request.note, request.columns)]


def _csv(request: Request) -> list[Path]:
    """Read a table of one's own."""
    from mint.data.corpora.public.prepare import prepare_table

    assert request.source is not None
    # In the order of the parameters of `prepare_table`.
    wanted = (request.audio, request.metadata_only, request.note, request.columns)
    return [prepare_table(request.source, request.output, request.seed, *wanted)]


def _public(name: str, request: Request) -> list[Path]:
    """Read a public corpus."""
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
    # A reader is imported when its corpus is asked for, so that the table costs no time.
    **{name: Corpus(row.task, functools.partial(_public, name), True, row) for name, row in CATALOGUE.items()},
}
