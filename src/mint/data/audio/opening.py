"""Open a file of sound: by libsndfile or PyAV, whole or as the streams that lie in it, with errors in one line."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from mint.data.audio.members import HEAD, Location, Section, is_member, locate, open_stored
from mint.data.audio.mpeg import mpeg_streams
from mint.data.audio.pyav import open_sound
from mint.data.audio.streams import UNKNOWN_SIZE, Stream, Window, chunk_streams, ogg_streams
from mint.types import MintError

FOREIGN = (".m4a", ".aac", ".wma", ".mp4", ".mkv", ".webm")
"""Suffixes of formats that libsndfile does not read; PyAV does, if it is installed."""
MAGIC = (
    (4, b"ftyp", "MPEG-4"),
    (4, b"moov", "QuickTime"),
    (0, b"\x1a\x45\xdf\xa3", "Matroska or WebM"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
)
"""Position and content of the first bytes of such formats, whatever the suffix says, with their names."""
UNKNOWN_FRAMES = 1 << 60
"""libsndfile gives the largest integer as the length of a FLAC stream that does not state it."""
RATES = (50, 20_000_000)
"""Rates in Hz that sound has, from seismometers to the fastest converters; resampling from others would not end."""
MP3_RUN_UP_SECONDS = 1
"""Seconds that are decoded before a part of an MP3."""
FRAMES_AT_ONCE = 1 << 20
"""Samples in each channel that are decoded at a time where they are only passed over."""
BLOCK_FRAMES = 1 << 18
"""Samples in each channel of a block, some seconds: a file of any length is decoded in the memory of one."""
PROMISE = re.compile(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
"""Line of libsndfile's log: the bytes of sound that a header of WAV, AIFF or AU promises, and those that there are."""
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/+(?=[^/])", re.IGNORECASE)


class Sound(Protocol):
    """An open file of sound, of which one part is read, or the whole in blocks."""

    frames: int
    """Number of samples in each channel."""
    promised: int
    """The same as the header gives it, which may be more if the file was cut off."""
    samplerate: int
    """Hz."""
    channels: int

    def read(self, first: int, count: int) -> NDArray[np.float32]:
        """Decode `count` samples from the sample `first` on, [S, channels]; fewer where the file ends earlier."""
        ...

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Decode the whole from its beginning, one block [S, channels] in memory at a time."""
        ...


@contextmanager
def open_audio(path: Path) -> Iterator[Sound]:
    """Open a file or member; what goes wrong, also while it is read, becomes one line with a cure.

    Raises:
        MintError: missing, a folder, not permitted, empty, without samples, of unknown length, or not audio.
    """
    try:
        location = locate(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    if location.size == 0:
        raise MintError(f"{path}: the file is empty (0 bytes); fetch or export it again")

    # What is read is decoded inside the block, so that its errors are caught here too.
    cure = f"export it again{_conversion(path)}"
    try:
        with ExitStack() as stack:
            sound = _decoder(path, location, cure, stack)

            if sound.frames == 0:
                raise MintError(f"{path}: the file holds no samples; fetch or export it again")
            if sound.frames > UNKNOWN_FRAMES:
                raise MintError(f"{path}: the header does not say how long it is (a stream was saved); {cure}")
            if not RATES[0] <= sound.samplerate <= RATES[1]:
                raise MintError(f"{path}: its header gives a rate of {sound.samplerate} Hz, which no sound has; {cure}")
            yield sound
    except OSError as error:
        raise _unreadable(path, error) from None
    except MemoryError:
        raise MintError(f"{path}: too long, or its header is wrong; give a duration, or {cure}") from None
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: headerless .raw, whose rate nobody knows
        try:
            open_stored(path).close()
        except OSError as refused:  # libsndfile does not say why
            raise _unreadable(path, refused) from None
        reason = getattr(error, "error_string", str(error)).rstrip(".")
        raise MintError(
            f"{path}: not audio that can be decoded ({reason}); give wav, flac, ogg, opus, mp3 or aiff, or {cure}"
        ) from None


def foreign_format(head: bytes) -> str | None:
    """Return the name of a format that PyAV reads and libsndfile does not, by a file's first bytes; None: another."""
    for position, magic, name in MAGIC:
        if head[position : position + len(magic)] == magic:
            return name
    return None


class _Decoded:
    """A file, or one stream of it, that libsndfile decodes."""

    def __init__(self, file: soundfile.SoundFile, frames: int | None = None) -> None:
        self._file = file
        self.frames: int = file.frames if frames is None else frames
        self.promised = round(self.frames * _promised_share(file.extra_info))
        self.samplerate: int = file.samplerate
        self.channels: int = file.channels

    def read(self, first: int, count: int) -> NDArray[np.float32]:
        """Decode a part, [S, channels]."""
        count = max(0, min(count, self.frames - first))
        if self._file.seekable():
            # After a seek mpg123 lacks the bits that earlier frames hold for the next ones, and leaves these silent.
            # One call reads run-up and part, since soundfile seeks again after each.
            begin = max(0, first - self.samplerate * MP3_RUN_UP_SECONDS) if self._file.format == "MP3" else first
            self._file.seek(begin)
            samples = self._file.read(first - begin + count, dtype="float32", always_2d=True)
            return np.ascontiguousarray(samples[first - begin :])

        while first > 0:  # codecs of telephones: what stands before the part is decoded and thrown away
            passed = len(self._file.read(min(first, FRAMES_AT_ONCE), dtype="float32", always_2d=True))
            first = first - passed if passed else 0
        part: NDArray[np.float32] = self._file.read(count, dtype="float32", always_2d=True)
        return part

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Decode the whole, in blocks [S, channels]."""
        remaining = self.frames
        while remaining > 0:
            block = self._file.read(min(remaining, BLOCK_FRAMES), dtype="float32", always_2d=True)
            if not len(block):  # the file was cut off
                return
            remaining -= len(block)
            yield block


class _Chain:
    """Streams of one file, heard one after another at the rate of the first."""

    def __init__(self, streams: Sequence[Sound]) -> None:
        self._streams = streams
        self.samplerate = streams[0].samplerate
        self.channels = streams[0].channels if len({one.channels for one in streams}) == 1 else 1
        self._lengths = [round(one.frames * self.samplerate / one.samplerate) for one in streams]
        self.frames = self.promised = sum(self._lengths)

    def read(self, first: int, count: int) -> NDArray[np.float32]:
        """Decode a part, [S, channels]; channels that differ between the streams are averaged, [S, 1]."""
        last = min(first + count, self.frames)
        pieces = [np.zeros((0, self.channels), np.float32)]

        begin = 0  # of each stream, in samples of the whole
        for stream, length in zip(self._streams, self._lengths, strict=True):
            start, stop = max(first - begin, 0), min(last - begin, length)
            if start < stop:
                pieces.append(self._piece(stream, start, stop))
            begin += length

        return np.concatenate(pieces)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Decode the whole, in blocks [S, channels] at the rate of the first stream."""
        for stream, length in zip(self._streams, self._lengths, strict=True):
            if stream.samplerate == self.samplerate:
                for block in stream.blocks():
                    yield block if block.shape[1] == self.channels else mean_of_channels(block)[:, None]
            else:
                # A part of a stream is resampled by itself, and so are its blocks, to give the same samples.
                for start in range(0, length, BLOCK_FRAMES):
                    yield self._piece(stream, start, min(start + BLOCK_FRAMES, length))

    def _piece(self, stream: Sound, start: int, stop: int) -> NDArray[np.float32]:
        """Decode the samples from `start` to `stop` of one stream, counted at the rate of the first."""
        ratio = stream.samplerate / self.samplerate
        begin = round(start * ratio)
        samples = stream.read(begin, round(stop * ratio) - begin)

        if samples.shape[1] != self.channels:
            samples = mean_of_channels(samples)[:, None]
        if stream.samplerate != self.samplerate and len(samples):
            samples = soxr.resample(samples, stream.samplerate, self.samplerate, "HQ")
        return samples[: stop - start]


def _promised_share(log: str) -> float:
    """Return how much more sound a header promises than there is, as libsndfile logs it; 1: as much."""
    match = PROMISE.search(log)
    if match is None:
        return 1.0
    promised, present = int(match[1]), int(match[2])
    return promised / present if present and promised < UNKNOWN_SIZE else 1.0


def mean_of_channels(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of the channels, [S, channels] -> [S].

    It is that of `mean(axis=1)`, bit for bit, which takes several times as long.
    """
    total: NDArray[np.float32] = samples[:, 0]
    for channel in range(1, samples.shape[1]):
        total = total + samples[:, channel]
    return total / np.float32(samples.shape[1]) if samples.shape[1] > 1 else total


def _decoder(path: Path, location: Location, cure: str, stack: ExitStack) -> Sound:
    """Return the decoder of a file; `stack` closes what it opens."""
    with open_stored(path) as file:
        format_ = foreign_format(file.read(16))
    if format_ is not None:  # libsndfile might take the bytes of an m4a that is called .mp3 for frames of an MP3
        return stack.enter_context(open_sound(path, stack.enter_context(open_stored(path)), format_, cure))

    # Most files are one stream that libsndfile reads by itself, by its path.
    streams = find_streams(location)
    if streams:
        return _chain(path, location, streams, cure, stack)

    source = stack.enter_context(open_stored(path)) if is_member(path) else _native(path)
    try:
        return _Decoded(stack.enter_context(soundfile.SoundFile(source)))
    except soundfile.SoundFileError:
        if path.suffix.lower() not in FOREIGN:
            raise
        file = stack.enter_context(open_stored(path))
        return stack.enter_context(open_sound(path, file, path.suffix, cure))


@lru_cache(maxsize=1 << 12)
def find_streams(location: Location) -> tuple[Stream, ...]:
    """Return the streams that a file is to be decoded by; none where libsndfile reads it as a whole.

    Raises:
        OSError: it cannot be read.
    """
    with Path(location.file).open("rb") as file:
        window = Window(BufferedReader(Section(file, location.offset, location.size)), location.size)
        head = window.at(0, 4)
        if head == b"OggS":
            streams = ogg_streams(window)
        elif head in (b"RIFF", b"FORM"):
            streams = chunk_streams(window)
        else:
            return mpeg_streams(window)
    return streams if len(streams) > 1 else ()


def _chain(path: Path, location: Location, streams: Sequence[Stream], cure: str, stack: ExitStack) -> Sound:
    """Open the streams of a file, each as a file of its own."""
    sounds: list[Sound] = []
    for stream in streams:
        file = Path(location.file).open("rb")  # noqa: SIM115  # closed with its section
        section = Section(file, location.offset + stream.offset, stream.size, stream.filler, stream.repeats)
        source = stack.enter_context(BufferedReader(section, HEAD))
        try:
            sounds.append(_Decoded(stack.enter_context(soundfile.SoundFile(source)), stream.frames))
        except soundfile.SoundFileError as error:
            if not sounds:
                raise
            seconds = sum(sound.frames / sound.samplerate for sound in sounds)
            raise MintError(
                f"{path}: it goes on after its first stream, at {seconds:.2f} s, with what cannot be decoded "
                f"({error.error_string.rstrip('.')}); {cure}"
            ) from None
    return sounds[0] if len(sounds) == 1 else _Chain(sounds)


def _conversion(path: Path) -> str:
    """Return how to write a file again where readers find it: by its own name in another format."""
    if is_member(path):
        return " and write its shard again"
    target = path.with_suffix(".wav" if path.suffix.lower() == ".flac" else ".flac")
    # With ./ in front neither a hyphen nor a colon in a name means anything to ffmpeg.
    old, new = (shlex.quote(os.path.join(os.curdir, name)) for name in (path, target))  # noqa: PTH118
    return f", for instance with `ffmpeg -i {old} {new}`, in its place"


def _native(path: Path) -> Path | bytes:
    """Return a path as libsndfile takes it, whatever bytes the name is made of."""
    return path if sys.platform == "win32" else os.fsencode(path)


def _unreadable(path: Path, error: OSError) -> MintError:
    """Return one line about a file that cannot be opened."""
    if isinstance(error, PermissionError):
        return MintError(f"{path}: it may not be read; change its permissions")
    if isinstance(error, IsADirectoryError):
        return MintError(f"{path} is a folder; give the audio files in it")
    if ADDRESS.match(str(path)):
        return MintError(f"{path} is an address; download the file and give its path")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        detail = f" ({error})" if is_member(path) else ""
        return MintError(f"{path}: no such audio file{detail}; check the path")
    return MintError(f"{path}: it cannot be read ({error.strerror or error}); check the path and the disk")
