"""Files in which several streams of sound lie one after another: chained Ogg, and WAV or AIFF files joined by `cat`.

A decoder that is given such a file reads its first stream and takes it for the whole. Here the beginnings of the
streams are found, from the sizes in their headers; each is then decoded as a file of its own. MPEG audio is in `mpeg`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, Literal

BLOCK = 1 << 18
"""Number of bytes that are read at a time."""
OGG_HEADER = 27
BEGINS_STREAM = 0x02
"""Flag of an Ogg page that is the first of its stream."""
UNKNOWN_SIZE = 0x7FFFF000
"""A program that does not know a size yet writes 0, or one at the end of the signed or of the unsigned range."""


@dataclass(frozen=True)
class Stream:
    """A range of a file that is decoded by itself."""

    offset: int
    """First byte, counted from the beginning of the file."""
    size: int
    """Number of bytes."""
    frames: int | None = None
    """Number of samples in each channel; None: the decoder tells it from the stream's own header."""
    filler: bytes = b""
    """What the decoder finds behind the stream, `repeats` times."""
    repeats: int = 0


class Window:
    """Random access to the bytes of a file, of which one block is in memory at a time."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.size = size
        self._file = file
        self._begin = 0
        self._block = b""

    def at(self, position: int, count: int) -> bytes:
        """Return up to `count` bytes from a position on; fewer at the end of the file."""
        # A block is read from the position on, since files are read forwards.
        first = position - self._begin
        end = self._begin + len(self._block)
        if first < 0 or position + count > end < self.size:
            self._file.seek(position)
            self._begin, self._block, first = position, self._file.read(max(count, BLOCK)), 0
        return self._block[first : first + count]

    def find(self, pattern: bytes, position: int) -> int:
        """Return the first position from `position` on at which a pattern stands; -1 where there is none."""
        while position < self.size:
            block = self.at(position, BLOCK)
            index = block.find(pattern)
            if index >= 0:
                return position + index
            if len(block) < BLOCK:
                return -1
            position += len(block) - len(pattern) + 1  # a pattern may begin in one block and end in the next
        return -1


def ogg_streams(window: Window) -> tuple[Stream, ...]:
    """Return the links of a chained Ogg file; the streams of one link, such as sound and pictures, stay together."""
    starts = [0]
    has_content = False
    position = 0
    while len(header := window.at(position, OGG_HEADER)) == OGG_HEADER:
        if not header.startswith(b"OggS"):  # damaged: the decoder goes on at the next page, too
            position = window.find(b"OggS", position + 1)
            if position < 0:
                break
            continue

        # The streams of one link all begin before any of them goes on: a beginning after that is a new link.
        if not header[5] & BEGINS_STREAM:
            has_content = True
        elif has_content:
            starts.append(position)
            has_content = False

        # The size of a page is the sum of its table of lacing values.
        lacing = window.at(position + OGG_HEADER, header[26])
        position += OGG_HEADER + len(lacing) + sum(lacing)
    return _between(starts, window.size)


def chunk_streams(window: Window) -> tuple[Stream, ...]:
    """Return the files that were joined to one WAV or AIFF file; all of the rest belongs to the last one."""
    starts: list[int] = []
    position = 0
    while (order := _byte_order(window.at(position, 12))) is not None:
        starts.append(position)
        size = int.from_bytes(window.at(position + 4, 4), order)
        if not 0 < size < UNKNOWN_SIZE:
            break

        position += 8 + size
        if size % 2 and _byte_order(window.at(position, 12)) is None:
            position += 1  # chunks have an even length, which not all programs observe
    return _between(starts, window.size)


def _byte_order(header: bytes) -> Literal["little", "big"] | None:
    """Return the byte order of a file that begins with these twelve bytes; None: neither WAV nor AIFF."""
    if header[:4] == b"RIFF" and header[8:] == b"WAVE":
        return "little"
    if header[:4] == b"FORM" and header[8:] in (b"AIFF", b"AIFC"):
        return "big"
    return None


def _between(starts: list[int], end: int) -> tuple[Stream, ...]:
    """Return the ranges that begin at some positions, the last of which reaches to the end."""
    ends = [*starts, end][1:]
    return tuple(Stream(start, stop - start) for start, stop in zip(starts, ends, strict=True))


def unclaimed_bytes(window: Window) -> tuple[int, int]:
    """Return how many bytes of a WAV file follow those of its sound and are no chunk, and how many are sound.

    A recorder that crashed leaves a header that counts less sound than there is. Both are 0 for another file.
    """
    position, sound = 12, 0
    if _byte_order(window.at(0, 12)) != "little":
        return 0, 0

    while len(header := window.at(position, 8)) == 8:
        name, size = header[:4], int.from_bytes(header[4:], "little")
        is_chunk = all(32 <= byte < 127 for byte in name) and position + 8 + size <= window.size
        if name == b"RIFF" or (sound and not any(header)):  # a file that was joined, or padding
            return 0, sound
        if not is_chunk:
            return (window.size - position if sound else 0), sound
        if name == b"data":
            sound = size

        position += 8 + size
        if size % 2 and not window.at(position, 1).isalpha():
            position += 1  # chunks have an even length, which not all programs observe
    return 0, sound
