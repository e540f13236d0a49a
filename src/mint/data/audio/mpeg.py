"""How long MPEG audio is, counted by its frames, and where one MP3 ends and another that was joined to it begins.

An MP3 says how long it is only if its first frame is a header (Xing, Info or VBRI). Without one libsndfile divides the
size of the file by that of the first frame. That is wrong with a cover picture in front, which is counted as sound, and
with a variable bit rate: the clip seems longer than it is, or its end is lost. So the frames are counted here: each has
a header of four bytes that tells its size. Files whose header accounts for all of their bytes are not read.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from mint.data.audio.streams import Stream, Window

RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""Version of MPEG as headers write it (3: 1, 2: 2, 0: 2.5) -> rates in Hz."""
BIT_RATES = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""1 or 2 (MPEG 2 and 2.5), and layer -> kbit/s of the indices from 1 on."""
AGREEING = 3
"""Frames of one kind that must follow each other where a stream is to begin: two agree by chance too often."""
PADDING = 1 << 12
"""Bytes between a tag and the first frame that are searched."""


class Frame(NamedTuple):
    """What the four bytes of a frame's header say."""

    kind: tuple[int, int, int, int]
    """Version, layer, rate in Hz and channels: they are the same in a whole stream."""
    size: int
    """Bytes, with the header."""
    samples: int
    """Samples in each channel."""


class Header(NamedTuple):
    """What a Xing, Info or VBRI header says of its stream; 0: it does not say."""

    num_frames: int
    num_bytes: int


class Run(NamedTuple):
    """Frames of one kind that follow each other."""

    start: int
    """Position of the first frame, which may be a header."""
    sound: int
    """Position of the first frame that is sound."""
    end: int
    """Position after the last frame."""
    num_frames: int
    """Number of frames that are sound."""
    header: Header | None


def mpeg_streams(window: Window) -> tuple[Stream, ...]:
    """Return the streams of an MPEG audio file; none where libsndfile needs no help, or it is another kind of file."""
    tag = _after_tag(window, 0)
    if not tag and frame_of(window.at(0, 4)) is None:
        return ()

    # A tag behind the sound is none of it, and a file ends with whole frames only if the tag is left out.
    end = _before_tags(window)
    runs: list[Run] = []
    position = _next_start(window, tag, end, PADDING)
    while position is not None:
        run = _run_at(window, position, end)
        runs.append(run)
        position = _next_start(window, run.end, end, end)

    streams = []
    for run in runs:
        # A stream that was cut off is read by its header, which promises more, unless another one stands in its place.
        is_whole = run.header is not None and 0 < run.header.num_frames <= run.num_frames
        if is_whole or (run is runs[-1] and run.header is not None and run.header.num_frames):
            streams.append(Stream(run.start, run.end - run.start))
        else:
            streams.append(_counted(window, run))

    # A whole file with one header is best left to libsndfile, which trims what the encoder added.
    return () if len(streams) == 1 and streams[0].frames is None else tuple(streams)


@lru_cache(maxsize=1 << 12)
def frame_of(header: bytes) -> Frame | None:
    """Read the four bytes of a frame's header; None: they are none."""
    # Eleven bits that are set open every frame.
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bit_rate, rate = header[2] >> 4, header[2] >> 2 & 3
    # Values that the standard reserves; bit rate 0 is "free", which no encoder in use writes.
    if version == 1 or layer == 4 or bit_rate in (0, 15) or rate == 3:
        return None

    hertz = RATES[version][rate]
    generation = 1 if version == 3 else 2
    bits = 1000 * BIT_RATES[generation, layer][bit_rate - 1]
    padding = header[2] >> 1 & 1
    channels = 1 if header[3] >> 6 == 3 else 2
    if layer == 1:
        return Frame((version, layer, hertz, channels), 4 * (12 * bits // hertz + padding), 384)
    samples = 576 if layer == 3 and generation == 2 else 1152
    return Frame((version, layer, hertz, channels), samples // 8 * bits // hertz + padding, samples)


def _run_at(window: Window, start: int, end: int) -> Run:
    """Return the frames that begin at a position.

    They end after those that their header counts, and where another header or another kind of frame is.
    """
    first = frame_of(window.at(start, 4))
    assert first is not None
    header = _header(window, start, first)
    if (
        header is not None
        and header.num_frames
        and header.num_bytes
        and start + header.num_bytes + 2 * first.size >= end
    ):
        return Run(start, start + first.size, end, header.num_frames, header)  # it accounts for all that follows

    # Frames are counted one by one: those of a variable bit rate differ in size.
    sound = start if header is None else start + first.size
    position, count = sound, 0
    while header is None or not header.num_frames or count < header.num_frames:
        frame = frame_of(window.at(position, 4))
        if frame is None or frame.kind != first.kind or position + frame.size > end:
            break
        # Another header is that of a file that was joined to this one.
        if count and _header(window, position, frame) is not None:
            break
        position += frame.size
        count += 1
    return Run(start, sound, position, count, header)


def _counted(window: Window, run: Run) -> Stream:
    """Return a stream that libsndfile reads to its last frame, although no header says how many there are.

    libsndfile stops where it believes the end to be: the size of the file over that of the first frame. Silent frames
    behind the stream move that beyond the last frame; what is read of them is cut off by `frames`.
    """
    header = window.at(run.sound, 4)
    first = frame_of(header)
    assert first is not None
    silent = bytes((header[0], header[1] | 1, header[2], header[3]))  # 1: no checksum follows

    size = run.end - run.sound
    missing = max(0, run.num_frames * (first.size + 1) - size)
    filler = silent + bytes(first.size - 4)
    return Stream(run.sound, size, run.num_frames * first.samples, filler, missing // first.size + 2)


def _header(window: Window, position: int, frame: Frame) -> Header | None:
    """Read the header of a stream, which is a frame of its own; None where a frame is sound."""
    version, layer, _, channels = frame.kind
    if layer != 3:
        return None

    # The header stands where a frame has its samples: after the side information, whose size is fixed.
    side = (17 if channels == 1 else 32) if version == 3 else (9 if channels == 1 else 17)
    content = window.at(position + 4, 60)

    fields = content[side:]
    if fields[:4] in (b"Xing", b"Info"):
        # Flags, and then what they say is there: bit 0 the frames, bit 1 the bytes.
        numbers = [int.from_bytes(fields[first : first + 4]) for first in (4, 8, 12)]
        frames = numbers[1] if numbers[0] & 1 else 0
        size = numbers[1 + (numbers[0] & 1)] if numbers[0] & 2 else 0
        return Header(frames, size)
    if content[32:36] == b"VBRI":
        return Header(int.from_bytes(content[46:50]), int.from_bytes(content[42:46]))
    return None


def _next_start(window: Window, position: int, end: int, limit: int) -> int | None:
    """Return the first position from `position` on, and within `limit` bytes, where a stream begins; None: nowhere."""
    position = _after_tag(window, position)
    limit = min(end, position + limit)
    while 0 <= position < limit:
        if _agrees(window, position, end):
            return position
        position = window.find(b"\xff", position + 1)
    return None


def _agrees(window: Window, position: int, end: int) -> bool:
    """Return whether frames of one kind follow each other from a position on: some, or up to the end of the sound."""
    kinds = set()
    for _ in range(AGREEING):
        frame = frame_of(window.at(position, 4))
        if frame is None:
            break

        kinds.add(frame.kind)
        position += frame.size
        if position >= end:
            return len(kinds) == 1 and position == end
    else:
        return len(kinds) == 1
    return False


def _after_tag(window: Window, position: int) -> int:
    """Return where an ID3v2 tag ends that begins at a position; the position itself where none does."""
    header = window.at(position, 10)
    if header[:3] != b"ID3" or len(header) < 10:
        return position

    size = 0
    for byte in header[6:]:
        size = size << 7 | byte & 0x7F  # seven bits a byte, so that no tag looks like a frame
    has_footer = header[5] >> 4 & 1
    return position + 10 + size + 10 * has_footer


def _before_tags(window: Window) -> int:
    """Return where the tags at the end of a file begin, ID3v1 and APE; the end of the file where there are none."""
    end = window.size
    if window.at(max(0, end - 128), 3) == b"TAG":
        end -= 128

    footer = window.at(max(0, end - 32), 32)
    if footer[:8] == b"APETAGEX":
        has_header = footer[23] >> 7
        end -= int.from_bytes(footer[12:16], "little") + 32 * has_header
    return end
