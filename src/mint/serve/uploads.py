"""Uploaded sounds: kept in a private folder while their request is answered, and decoded from there.

A client gives bytes and never a path, and the file's name of the client is not used: the format is known by the bytes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mint.data.audio.decode import load_windows, probe
from mint.serve.limits import Limits, Refused
from mint.types import MintError

if TYPE_CHECKING:
    from mint.serve.counters import Counters

NAME = "upload"
"""Name of every uploaded file; without a suffix, as that would be the client's word."""
MOST_SAMPLES = 1 << 26
"""Samples of one window in all channels before they are mixed: 256 MiB; 30 s of 8 channels at 192 kHz are fewer."""


@dataclass(frozen=True)
class Sound:
    """A decoded upload."""

    seconds: float
    windows: list[Any]
    """Waveforms [S] at the encoder's rate."""


class Uploads:
    """The folder of the sounds that are in the server.

    Args:
        rate: Hz at which the encoder hears.
        window_seconds: longest window.
        limits: what is taken on.
        counters: where seconds are counted.
    """

    def __init__(self, rate: int, window_seconds: float, limits: Limits, counters: Counters) -> None:
        self._rate = rate
        self._window_seconds = window_seconds
        self._limits = limits
        self._counters = counters
        self._folder = tempfile.TemporaryDirectory(prefix="mint-serve-")

    def close(self) -> None:
        """Remove the folder."""
        self._folder.cleanup()

    @contextmanager
    def new_path(self) -> Iterator[Path]:
        """Give a path for one sound inside the block; what is there at the end is removed."""
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))

        try:
            yield folder / NAME
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def write(self, path: Path, content: BinaryIO) -> None:
        """Write a sound to its path.

        Raises:
            Refused: the sound is empty, or larger than the limit.
        """
        with path.open("wb") as file:
            shutil.copyfileobj(content, file, 1 << 20)

        size = path.stat().st_size
        if size == 0:
            raise Refused(422, "the sound is empty (0 bytes); send a file with sound in it", "file")
        if size > self._limits.upload_bytes:
            raise too_large(self._limits)

    def decode(self, path: Path) -> Sound:
        """Decode the windows of a stored sound.

        Raises:
            Refused: it is no sound, or longer than the limit.
        """
        try:
            seconds = self.checked_seconds(path)
            windows = list(load_windows(path, self._rate, self._window_seconds))
        except MintError as error:
            raise Refused(422, without_folder(str(error), path), "file") from None
        self._counters.add("mint_audio_seconds_total", seconds)
        return Sound(seconds, windows)

    def checked_seconds(self, path: Path) -> float:
        """Return the length of a stored sound.

        Raises:
            Refused: it is longer than the limit, or has too many samples for its length.
            MintError: it is no sound.
        """
        seconds, rate, channels = probe(path)
        if seconds > self._limits.seconds:
            raise Refused(
                413, f"the sound lasts {seconds:.1f} s, and the server takes {self._limits.seconds:g} s", "file"
            )
        # A small file may promise a window that fills the memory.
        if min(seconds, self._window_seconds) * rate * channels > MOST_SAMPLES:
            raise Refused(
                413, f"the sound has {channels} channels at {rate} Hz, which is too much; send one channel", "file"
            )
        return seconds


def too_large(limits: Limits) -> Refused:
    """Return the refusal of a sound or a body that is too large."""
    mebibytes = limits.upload_bytes / (1 << 20)
    return Refused(413, f"the upload is larger than {mebibytes:g} MiB; send a shorter sound, or as flac or mp3", "file")


def without_folder(message: str, path: Path) -> str:
    """Return a message in which the private path of an upload is only its name."""
    return message.replace(f"{path.parent}/", "").replace(str(path.parent), "")
