"""Which files count as recordings, and finding them below folders: any depth, behind links, hidden ones left out."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from mint.data.audio.decode import FOREIGN
from mint.data.audio.members import is_member, locate
from mint.files import walk

SUFFIXES = (
    *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64"),
    *FOREIGN,
)
"""Suffixes of the files that count as recordings in a folder."""


def audio_files(folder: Path) -> list[Path]:
    """Return the recordings below a folder in the order of their paths."""
    files = []

    for parent, names in walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.suffix.lower() in SUFFIXES and path.is_file():
                files.append(path)

    # The walk gives a folder's own files before those of its sub-folders; paths sort in another order.
    return sorted(files)


def is_recording(path: Path) -> bool:
    """Return whether a file, or a member of a tar shard, lies at a path; False for a name that no file can have."""
    if not is_member(path):
        return os.path.isfile(path)  # noqa: PTH113  # Path.is_file raises for names with null bytes

    try:
        locate(path)
    except OSError:
        return False
    return True


def composed(stem: str) -> str:
    """Return a name with its accented letters in one form, since file systems and tables differ in it."""
    return stem if stem.isascii() else unicodedata.normalize("NFC", stem)


class Recordings:
    """The recordings under some folders, at any depth, by file name without suffix.

    There may be millions: of each the stem alone is kept, folders and suffixes are shared.

    Args:
        folders: where to look; of recordings of one name the first counts, or the first that can be decoded.
    """

    def __init__(self, *folders: Path) -> None:
        self._root = folders[0]
        # Folder and suffix of each stem.
        self._locations: dict[str, tuple[str, str]] = {}
        # The stem as the file system spells it, where that is another form of its accented letters.
        self._spelled: dict[str, str] = {}

        # One pair for all files of a folder: a million pairs of their own would take more room than the stems.
        shared: dict[tuple[str, str], tuple[str, str]] = {}
        for folder in folders:
            for parent, names in walk(folder):
                for name in names:
                    stem, suffix = os.path.splitext(name)  # noqa: PTH122  # a Path for each would take longer
                    key = composed(stem)
                    if suffix.lower() not in SUFFIXES or not self._is_better(suffix, self._locations.get(key)):
                        continue

                    self._locations[key] = shared.setdefault((parent, suffix), (parent, suffix))
                    self._spelled.pop(key, None)
                    if key != stem:
                        self._spelled[key] = stem

    def _is_better(self, suffix: str, known: tuple[str, str] | None) -> bool:
        """Return whether a recording is to be taken rather than the one of its name that is known, if any is."""
        return known is None or (known[1].lower() in FOREIGN and suffix.lower() not in FOREIGN)

    def find(self, *stems: str, published: str = "") -> Path:
        """Return the file with the first of these names that there is, or else a path at which nothing lies.

        Args:
            stems: names without suffix, the surest first.
            published: where the recording lies in the folder as it is published; by default, the first name as a wav.
        """
        for key in map(composed, stems):
            if key in self._locations:
                folder, suffix = self._locations[key]
                return Path(folder, self._spelled.get(key, key) + suffix)

        return self._root / (published or f"{stems[0]}.wav")
