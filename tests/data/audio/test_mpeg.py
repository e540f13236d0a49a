"""MP3s of any making are as long as what is decoded of them: frames are counted where no header says how many."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mint.data.audio.decode import load_audio, load_windows, probe, windows
from mint.data.audio.listen import check_audio
from mint.data.audio.mpeg import frame_of

RATE = 44100
PICTURE = np.random.default_rng(0).bytes(2_000_000)


def encoded(seconds: float = 3.0, rate: int = RATE, mode: str = "CONSTANT", channels: int = 1) -> bytes:
    """A tone of 440 Hz, loud noise and then near silence, so that a variable bit rate varies."""
    rng = np.random.default_rng(1)
    samples = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    samples += np.where(np.arange(len(samples)) < len(samples) / 3, 0.3, 1e-4) * rng.normal(size=len(samples))
    buffer = io.BytesIO()
    options: dict[str, Any] = {"bitrate_mode": mode, "compression_level": 0.5}
    soundfile.write(buffer, np.stack([samples] * channels, 1), rate, format="MP3", **options)
    return buffer.getvalue()


def without_header(content: bytes) -> bytes:
    """An MP3 without its first frame, the header (Info) that says how many there are."""
    frame = frame_of(content[:4])
    assert frame is not None
    assert b"Info" in content[: frame.size] or b"Xing" in content[: frame.size]
    return content[frame.size :]


def tag(content: bytes) -> bytes:
    """An ID3v2 tag."""
    size = len(content)
    return b"ID3\x03\x00\x00" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + content


def count_frames(content: bytes) -> int:
    """Samples of the frames of an MP3 without tags, one after another."""
    position = samples = 0
    while (frame := frame_of(content[position : position + 4])) is not None:
        position += frame.size
        samples += frame.samples
    assert position == len(content)
    return samples


TAGS: dict[str, tuple[bytes, bytes]] = {
    "none": (b"", b""),
    "ID3": (tag(bytes(300)), b""),
    "a picture": (tag(PICTURE), b""),
    "padding": (tag(bytes(300)) + bytes(500), b""),
    "ID3v1": (b"", b"TAG" + bytes(125)),
    "APE": (b"", b"APETAGEX" + bytes([208, 7, 0, 0, 132, 3, 0, 0]) + bytes(916)),
    "both": (tag(PICTURE), b"TAG" + b"x" * 125),
}


@pytest.mark.parametrize("stored", ["file", "member"])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("tags", TAGS)
def test_without_a_header_the_frames_say_how_long_it_is(tmp_path: Path, tags: str, mode: str, stored: str) -> None:
    front, back = TAGS[tags]
    sound = without_header(encoded(mode=mode))
    path = tmp_path / "clip.mp3"
    path.write_bytes(front + sound + back)
    if stored == "member":
        with tarfile.open(tmp_path / "0.tar", "w") as shard:
            shard.add(path, "clip.mp3")
        path = tmp_path / "0.tar::clip.mp3"

    samples = count_frames(sound)
    assert samples == pytest.approx(3.0 * RATE, abs=2500)
    assert probe(path) == (samples / RATE, RATE, 1)
    whole = load_audio(path, RATE)
    assert len(whole) == samples
    assert check_audio(path) == samples / RATE
    for start, duration in ((0.5, 0.25), (2.9, 9.0)):
        first = round(start * RATE)
        part = load_audio(path, RATE, start, duration)
        np.testing.assert_array_equal(part, whole[first : first + round(duration * RATE)])
    lengths = [len(window) for window in load_windows(path, RATE, 1.0, 3)]
    assert lengths == [round(length * RATE) for _, length in windows(samples / RATE, 1.0, 3)]


def test_the_samples_are_those_that_libsndfile_decodes(tmp_path: Path) -> None:
    """Of a constant bit rate it reads them all, while it promises more than there are."""
    path = tmp_path / "clip.mp3"
    path.write_bytes(tag(bytes(20_000)) + without_header(encoded()))
    with soundfile.SoundFile(path) as file:
        promised, samples = file.frames, file.read(dtype="float32")
    assert promised > len(samples) + RATE
    np.testing.assert_array_equal(load_audio(path, RATE), samples)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 32000, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_rate(tmp_path: Path, rate: int, channels: int) -> None:
    content = encoded(1.0, rate, channels=channels)
    path = tmp_path / "clip.mp3"
    for one in (content, without_header(content), tag(PICTURE) + without_header(content)):
        path.write_bytes(one)
        assert probe(path)[0] == pytest.approx(1.0, abs=2400 / rate)
        assert probe(path)[1:] == (rate, channels)
        assert check_audio(path) == probe(path)[0]


def test_a_header_that_counts_less_than_there_is(tmp_path: Path) -> None:
    """Two files joined, and only the first has a header; or a tool that went on writing after it."""
    first = encoded(2.0)
    path = tmp_path / "clip.mp3"
    path.write_bytes(first + without_header(encoded(1.0)))
    assert probe(path)[0] == pytest.approx(3.0, abs=0.06)
    assert len(load_audio(path, RATE)) == round(probe(path)[0] * RATE)


def test_what_joined_files_have_around_them(tmp_path: Path) -> None:
    """Tags at both ends of each, and one that was cut off in front of another."""
    whole = encoded(2.0)
    path = tmp_path / "clip.mp3"
    path.write_bytes((tag(PICTURE) + whole + TAGS["ID3v1"][1]) * 2)
    assert probe(path)[0] == 4.0
    assert check_audio(path) == 4.0
    path.write_bytes(whole[: len(whole) // 2] + tag(bytes(99)) + whole)
    assert check_audio(path) == probe(path)[0]
    assert 2.5 < probe(path)[0] < 3.5


def test_damage_in_the_middle_costs_a_frame(tmp_path: Path) -> None:
    sound = without_header(encoded())
    damaged = bytearray(sound)
    third = next(index for index in range(2000, len(sound)) if sound[index] == 0xFF and frame_of(sound[index:][:4]))
    damaged[third] = 0
    path = tmp_path / "clip.mp3"
    path.write_bytes(damaged)
    assert probe(path)[0] == (count_frames(sound) - 1152) / RATE
    assert check_audio(path) == probe(path)[0]


def headers() -> Any:
    """A header of each kind with the size of its frame, reckoned by hand."""
    return [
        ("fffb9064", 417, 1152),  # MPEG 1, layer III, 128 kbit/s at 44.1 kHz: 144 * 128000 / 44100
        ("fffb9264", 418, 1152),  # with padding
        ("fff388c4", 288, 576),  # MPEG 2, 64 kbit/s at 16 kHz: 72 * 64000 / 16000
        ("ffe398c4", 720, 576),  # MPEG 2.5, 80 kbit/s at 8 kHz: 72 * 80000 / 8000
        ("fffd9404", 480, 1152),  # layer II, 160 kbit/s at 48 kHz: 144 * 160000 / 48000
        ("ffff9404", 288, 384),  # layer I, 288 kbit/s at 48 kHz: 4 * 12 * 288000 / 48000
    ]


@pytest.mark.parametrize(("header", "size", "samples"), headers())
def test_headers_of_frames(header: str, size: int, samples: int) -> None:
    frame = frame_of(bytes.fromhex(header))
    assert frame is not None
    assert (frame.size, frame.samples) == (size, samples)


@pytest.mark.parametrize("header", ["fffbf064", "fffb0064", "fffb9c64", "ffeb9064", "fff99064", "fefb9064", "ffff"])
def test_what_is_no_header(header: str) -> None:
    """A bit rate or rate that there is not, a free bit rate, no version or layer, no synchronisation, too short."""
    assert frame_of(bytes.fromhex(header)) is None
