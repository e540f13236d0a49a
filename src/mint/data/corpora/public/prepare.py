"""Public corpora and tables of one's own -> manifests: what a reader yields, less what is not on disk.

A public corpus always has holes: videos that are gone, archives not fetched. They are counted and listed, with all that
a reader skips, in `NAME.skipped.jsonl` beside the manifest, unless the metadata alone are wanted. Recordings stay where
they are; none is opened.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from tqdm import tqdm

from mint.data.audio.decode import FOREIGN
from mint.data.audio.pyav import is_installed
from mint.data.corpora.outputs import Skip, ignore, listing_skipped, manifest_file
from mint.data.corpora.own.table import read_own_table
from mint.data.corpora.public.audiocaps import read_audiocaps
from mint.data.corpora.public.audioset import read_audioset
from mint.data.corpora.public.catalogue import CATALOGUE, Entry
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
from mint.data.corpora.public.reading import BROKEN
from mint.data.corpora.public.vggsound import read_vggsound
from mint.data.corpora.public.wavcaps import read_wavcaps
from mint.data.corpora.recordings import is_recording
from mint.data.corpora.values import check_texts
from mint.data.manifests.manifest import write_manifest
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
    entry = CATALOGUE[name]
    manifest = manifest_file(output, name)

    with listing_skipped(manifest, note) as skip:
        examples = _as_published(entry.title, READERS[name](source, skip, audio), source)
        # Counted before anything is left out: what is not on disk is named by the files all the same.
        named: Counter[str] = Counter()
        chosen = _Chosen(entry.title, source, metadata_only, skip)
        write_manifest(manifest, chosen.among(_counted(examples, named)))
        # Known when the last clip is read; what fails before has its own message.
        skip.note(_beside_published(entry, named))
    return manifest


def prepare_table(
    source: Path,
    output: Path,
    seed: int,
    audio: Path | None = None,
    metadata_only: bool = False,
    note: Callable[[str], None] = ignore.note,
    columns: Mapping[str, str] | None = None,
) -> Path:
    """Make a manifest of a table of one's own; as `prepare_public`, `output` a folder for `csv.jsonl`.

    Args:
        source: as of `read_own_table`.
        output: as of `prepare_public`.
        seed: of the splits.
        audio: what the paths are relative to; None: the table.
        metadata_only: as of `prepare_public`.
        note: as of `prepare_public`.
        columns: as of `read_own_table`.
    """
    manifest = manifest_file(output, "csv")

    with listing_skipped(manifest, note) as skip:
        examples = read_own_table(source, skip, audio, seed, columns)
        chosen = _Chosen(source.name, source, metadata_only, skip)
        write_manifest(manifest, chosen.among(examples))
    return manifest


def _counted(examples: Iterable[Example], named: Counter[str]) -> Iterator[Example]:
    """Pass examples on, and count those of each split."""
    # Passed on one by one: a corpus of two million clips is never in memory.
    for example in examples:
        named[example.split] += 1
        yield example


def _beside_published(entry: Entry, named: Counter[str]) -> str:
    """Return how many clips the files name, beside how many are published: a table may have been cut off."""
    published = _in_words(entry.published) if entry.published else f"{entry.clips:,} clips in all"
    return f"{entry.title}: its files name {_in_words(named)}; published are {published}"


def _in_words(counts: Mapping[str, int]) -> str:
    """Return the number of clips of each split, as in '1,200 train, 400 validation'."""
    return ", ".join(f"{count:,} {split}" for split, count in counts.items())


def _as_published(title: str, examples: Iterator[Example], source: Path) -> Iterator[Example]:
    """Yield what a reader yields; where it stumbles over a whole file, raise one line."""
    try:
        yield from examples
    except MintError:
        raise
    except BROKEN as error:
        reason = f"{type(error).__name__}: {error}"
        raise MintError(f"{source}: not as {title} is published ({reason}); take the official files") from error


class _Chosen:
    """The examples of a corpus whose recording is on disk, or all of them.

    Args:
        title: of the corpus.
        source: where it is read from.
        metadata_only: whether clips are kept whose recording is not there.
        skip: told what is left out.
    """

    def __init__(self, title: str, source: Path, metadata_only: bool, skip: Skip) -> None:
        self._title, self._source, self._metadata_only, self._skip = title, source, metadata_only, skip
        # Suffixes of the recordings that are there.
        self._suffixes: Counter[str] = Counter()
        # How many are not, and where the first of them was looked for.
        self._missing = 0
        self._sought: Path | None = None

    def among(self, examples: Iterable[Example]) -> Iterator[Example]:
        """Yield the chosen ones.

        Raises:
            MintError: there is none.
        """
        # The bar is shown on a terminal alone.
        for example in tqdm(examples, self._title, unit="clip", leave=False, mininterval=1.0, disable=None):
            # Such a line would stop whoever reads the manifest, in the midst of a training.
            try:
                check_texts(example)
            except MintError as error:
                self._skip(example.id, str(error))
                continue

            # No recording is opened: a corpus has millions, on disks that may be slow.
            is_there = is_recording(example.audio)
            if is_there:
                self._suffixes[example.audio.suffix.lower()] += 1
            else:
                self._missing += 1
                self._sought = self._sought or example.audio
            if is_there or self._metadata_only:
                yield example
            else:
                self._skip(example.id, NOT_THERE)

        self._note_what_needs_pyav()
        self._conclude()

    def _note_what_needs_pyav(self) -> None:
        """Note how many recordings cannot be decoded here."""
        # By the most frequent first, as a person would look for them.
        foreign = {suffix: count for suffix, count in self._suffixes.most_common() if suffix in FOREIGN}
        if foreign and not is_installed():
            formats = ", ".join(f"{count} {suffix}" for suffix, count in foreign.items())
            total = sum(foreign.values())
            self._skip.note(f"{total} recordings cannot be decoded without PyAV ({formats}); {WITHOUT_PYAV}")

    def _conclude(self) -> None:
        """Note how many recordings are not there, or refuse a corpus of which nothing can be used."""
        present, missing = self._suffixes.total(), self._missing

        if missing and self._metadata_only:
            self._skip.note(
                f"{missing} of {missing + present} recordings are not on disk; the manifest says where they would be"
            )
        elif self._sought is not None and not present:
            # A table names a file; a public corpus a clip, whose recording may have any suffix.
            is_table = self._source.is_file()
            sought = self._sought if is_table else f"{self._sought.with_suffix('')}.*"
            raise MintError(
                f"{self._source}: none of {missing} recordings of {self._title} is there; the first was looked for as "
                f"{sought}; unpack the audio there, say where it is with --audio, or keep all clips with "
                f"--metadata-only"
            )
        elif not present:
            reason = f" ({self._skip.first[0]})" if self._skip.first else ""
            cure = "mend its lines" if self._source.is_file() else "take the official files"
            raise MintError(f"{self._source}: {self._title} names no clip here that can be used{reason}; {cure}")
