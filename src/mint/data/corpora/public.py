"""Public corpora and tables -> manifests: what a reader yields, less what is not on disk.

A public corpus always has holes: videos that are gone, archives not fetched. They are counted and listed, with all that
a reader skips, in `NAME.skipped.jsonl` beside the manifest. Recordings stay where they are; none is opened.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from mint.data.audio import FOREIGN
from mint.data.corpora.audiocaps import read_audiocaps
from mint.data.corpora.audioset import read_audioset
from mint.data.corpora.catalogue import CATALOGUE
from mint.data.corpora.clotho import read_clotho
from mint.data.corpora.distribution import Skip, ignore
from mint.data.corpora.esc50 import read_esc50
from mint.data.corpora.fma import read_fma
from mint.data.corpora.folder import SUFFIXES, manifest_file, skipped_file
from mint.data.corpora.freesound import read_freesound
from mint.data.corpora.fsd50k import read_fsd50k
from mint.data.corpora.gtzan import read_gtzan
from mint.data.corpora.music4all import read_music4all_genre, read_music4all_key
from mint.data.corpora.musiccaps import read_musiccaps
from mint.data.corpora.nsynth import read_nsynth
from mint.data.corpora.openmic import read_openmic
from mint.data.corpora.table import read_table
from mint.data.corpora.vggsound import read_vggsound
from mint.data.corpora.wavcaps import read_wavcaps
from mint.data.manifest import to_json, write_manifest
from mint.types import Example, MintError

Reader = Callable[[Path, Skip], Iterator[Example]]

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
CONVERSION = "convert them, for instance with `ffmpeg -i CLIP.m4a CLIP.flac` beside each, and prepare again"


def prepare_public(name: str, source: Path, output: Path, note: Callable[[str], None] = ignore.note) -> Path:
    """Make the manifest of a public corpus.

    Args:
        name: in the catalogue.
        source: the folder in which its official files lie.
        output: the manifest, or a folder (created) for `NAME.jsonl`.
        note: told, in a line, what a person should know of the corpus as a whole; nothing twice.

    Returns:
        The manifest.

    Raises:
        MintError: not the folder of this corpus, files that are not as published, or not one recording on disk.
    """
    return _prepare(name, CATALOGUE[name].title, READERS[name], source, output, note)


def prepare_table(source: Path, output: Path, seed: int, note: Callable[[str], None] = ignore.note) -> Path:
    """Make a manifest of a table of one's own; as `prepare_public`, `output` a folder for `csv.jsonl`."""
    return _prepare("csv", source.name, functools.partial(read_table, seed=seed), source, output, note)


def _prepare(name: str, title: str, reader: Reader, source: Path, output: Path, note: Callable[[str], None]) -> Path:
    manifest = manifest_file(output, name)
    listed = skipped_file(manifest)
    temporary = listed.with_name(f".{listed.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:

            def leave_out(audio: str, reason: str) -> None:
                file.write(to_json({"audio": audio, "reason": reason}) + b"\n")

            skip = Skip(leave_out, functools.cache(note))  # nothing is noted twice
            write_manifest(manifest, _present(title, reader, source, skip))
        if temporary.stat().st_size:
            temporary.replace(listed)
        else:
            listed.unlink(missing_ok=True)
    finally:
        temporary.unlink(missing_ok=True)
    return manifest


def _present(title: str, reader: Reader, source: Path, skip: Skip) -> Iterator[Example]:
    """The examples whose recording is on disk."""
    cure = "mend its lines" if source.is_file() else "take the official files"
    there = missing = 0
    sought = source
    first: list[str] = []
    foreign: Counter[str] = Counter()

    def leave_out(name: str, reason: str) -> None:
        first[:] = first or [f" ({name}: {reason})"]
        skip(name, reason)

    try:
        examples = reader(source, Skip(leave_out, skip.note))
        for example in tqdm(examples, title, unit="clip", leave=False, mininterval=1.0, disable=None):  # on a terminal
            if os.path.isfile(example.audio):  # noqa: PTH113 (False for a name that no file can have)
                there += 1
                if (suffix := example.audio.suffix.lower()) in FOREIGN:
                    foreign[suffix] += 1
                yield example
            else:
                sought = sought if missing else example.audio
                missing += 1
                skip(example.id, NOT_THERE)
    except MintError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise MintError(f"{source}: not as {title} is published ({reason}); {cure}") from error
    if foreign:
        formats = ", ".join(f"{count} {suffix}" for suffix, count in foreign.most_common())
        skip.note(f"{foreign.total()} recordings cannot be decoded as they are ({formats}); {CONVERSION}")
    if missing and not there:
        suffix = "" if sought.suffix.lower() in SUFFIXES else ".*"
        raise MintError(
            f"{source}: none of {missing} recordings of {title} is there; "
            f"the first was looked for as {sought}{suffix}; unpack the audio into this folder"
        )
    if not there:
        raise MintError(f"{source}: {title} names no clip here that can be used{''.join(first)}; {cure}")
