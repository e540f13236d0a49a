"""Public corpora and tables -> manifests: what a reader yields, less what is not on disk.

A public corpus always has holes: videos that are gone, archives not fetched. They are counted and listed, with all that
a reader skips, in `NAME.skipped.jsonl` beside the manifest, unless the metadata alone are wanted. Recordings stay where
they are; none is opened.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from mint.data.audio.decode import FOREIGN
from mint.data.audio.pyav import is_installed
from mint.data.corpora.own.folder import manifest_file, skipped_file
from mint.data.corpora.own.table import read_table
from mint.data.corpora.public.audiocaps import read_audiocaps
from mint.data.corpora.public.audioset import read_audioset
from mint.data.corpora.public.catalogue import CATALOGUE
from mint.data.corpora.public.clotho import read_clotho
from mint.data.corpora.public.esc50 import read_esc50
from mint.data.corpora.public.fma import read_fma
from mint.data.corpora.public.freesound import read_freesound
from mint.data.corpora.public.fsd50k import read_fsd50k
from mint.data.corpora.public.gtzan import read_gtzan
from mint.data.corpora.public.music4all import read_music4all_genre, read_music4all_key
from mint.data.corpora.public.musiccaps import read_musiccaps
from mint.data.corpora.public.nsynth import read_nsynth
from mint.data.corpora.public.openmic import read_openmic
from mint.data.corpora.public.reading import Skip, ignore
from mint.data.corpora.public.vggsound import read_vggsound
from mint.data.corpora.public.wavcaps import read_wavcaps
from mint.data.manifests.manifest import to_json, write_manifest
from mint.types import Example, MintError

Reader = Callable[[Path, Skip, Path | None], Iterator[Example]]

READERS: dict[str, Reader] = {
    "audioset": read_audioset,
    "vggsound": read_vggsound,
    "openmic": read_openmic,
    "fma-small": functools.partial(read_fma, subset="small"),
    "fma-medium": functools.partial(read_fma, subset="medium"),
    "fma-large": functools.partial(read_fma, subset="large"),
    "nsynth": read_nsynth,
    "fsd50k": read_fsd50k,
    "music4all-key": read_music4all_key,
    "music4all-genre": read_music4all_genre,
    "gtzan": read_gtzan,
    "wavcaps": read_wavcaps,
    "freesound": read_freesound,
    "clotho": read_clotho,
    "audiocaps": read_audiocaps,
    "esc50": read_esc50,
    "musiccaps": read_musiccaps,
}
"""Name in the catalogue -> reader."""

NOT_THERE = "the recording is not on disk"
WITHOUT_PYAV = (
    "`pip install 'mint-audio[video]'`, or convert them, for instance with `ffmpeg -i CLIP.m4a CLIP.flac` beside each, "
    "and prepare again"
)


def prepare_public(
    name: str,
    source: Path,
    output: Path,
    audio: Path | None = None,
    metadata_only: bool = False,
    note: Callable[[str], None] = ignore.note,
) -> Path:
    """Make the manifest of a public corpus.

    Args:
        name: in the catalogue.
        source: the folder in which its official files lie.
        output: the manifest, or a folder (created) for `NAME.jsonl`.
        audio: the folder in which its recordings lie; None: where they are published.
        metadata_only: keep clips whose recording is not there, with the path at which it would be.
        note: told, in a line, what a person should know of the corpus as a whole; nothing twice.

    Returns:
        The manifest.

    Raises:
        MintError: not the folder of this corpus, files that are not as published, or, where more than the metadata is
            wanted, not one recording on disk.
    """

    def read(skip: Skip) -> Iterator[Example]:
        return READERS[name](source, skip, audio)

    return _prepare(CATALOGUE[name].title, read, source, manifest_file(output, name), metadata_only, note)


def prepare_table(
    source: Path,
    output: Path,
    seed: int,
    audio: Path | None = None,
    metadata_only: bool = False,
    note: Callable[[str], None] = ignore.note,
) -> Path:
    """Make a manifest of a table of one's own; as `prepare_public`, `output` a folder for `csv.jsonl`."""

    def read(skip: Skip) -> Iterator[Example]:
        return read_table(source, skip, audio, seed)

    return _prepare(source.name, read, source, manifest_file(output, "csv"), metadata_only, note)


def _prepare(
    title: str,
    read: Callable[[Skip], Iterator[Example]],
    source: Path,
    manifest: Path,
    metadata_only: bool,
    note: Callable[[str], None],
) -> Path:
    listed = skipped_file(manifest)
    temporary = listed.with_name(f".{listed.name}.{os.getpid()}")
    first: list[str] = []
    try:
        with temporary.open("wb") as file:

            def leave_out(audio: str, reason: str) -> None:
                first[:] = first or [f" ({audio}: {reason})"]
                file.write(to_json({"audio": audio, "reason": reason}) + b"\n")

            skip = Skip(leave_out, functools.cache(note))  # nothing is noted twice
            examples = _as_published(title, read(skip), source)
            shown = tqdm(examples, title, unit="clip", leave=False, mininterval=1.0, disable=None)  # on a terminal
            write_manifest(manifest, _chosen(title, shown, source, metadata_only, skip, first))
        if temporary.stat().st_size:
            temporary.replace(listed)
        else:
            listed.unlink(missing_ok=True)
    finally:
        temporary.unlink(missing_ok=True)
    return manifest


def _as_published(title: str, examples: Iterator[Example], source: Path) -> Iterator[Example]:
    """What a reader yields; where it stumbles, one line."""
    try:
        yield from examples
    except MintError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise MintError(f"{source}: not as {title} is published ({reason}); take the official files") from error


def _chosen(
    title: str, examples: Iterable[Example], source: Path, metadata_only: bool, skip: Skip, first: Sequence[str]
) -> Iterator[Example]:
    """The examples whose recording is on disk, or all of them; `first` is what was skipped first, if anything was."""
    there: Counter[str] = Counter()
    missing = 0
    sought = source
    for example in examples:
        is_there = os.path.isfile(example.audio)  # noqa: PTH113 (False for a name that no file can have)
        if is_there:
            there[example.audio.suffix.lower()] += 1
        else:
            sought = sought if missing else example.audio
            missing += 1
        if is_there or metadata_only:
            yield example
        else:
            skip(example.id, NOT_THERE)
    foreign = [(suffix, count) for suffix, count in there.most_common() if suffix in FOREIGN]
    if foreign and not is_installed():
        formats = ", ".join(f"{count} {suffix}" for suffix, count in foreign)
        total = sum(count for _, count in foreign)
        skip.note(f"{total} recordings cannot be decoded without PyAV ({formats}); {WITHOUT_PYAV}")
    if missing and metadata_only:
        skip.note(
            f"{missing} of {missing + there.total()} recordings are not on disk; the manifest says where they would be"
        )
    elif missing and not there:
        name = sought if source.is_file() else f"{sought.with_suffix('')}.*"
        raise MintError(
            f"{source}: none of {missing} recordings of {title} is there; the first was looked for as {name}; unpack "
            f"the audio there, say where it is with --audio, or keep all clips with --metadata-only"
        )
    elif not there:
        cure = "mend its lines" if source.is_file() else "take the official files"
        raise MintError(f"{source}: {title} names no clip here that can be used{''.join(first)}; {cure}")
