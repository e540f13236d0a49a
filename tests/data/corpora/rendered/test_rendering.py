"""Notes become audio: the MIDI file, and what is heard of it on a tiny SoundFont."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest

from mint.data.corpora.rendered.soundfont import RATE, Note, midi_file, read_soundfont, render
from mint.types import MintError
from tiny_soundfont import write_soundfont


@pytest.fixture(scope="module")
def font(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_soundfont(tmp_path_factory.mktemp("font") / "tiny.sf2")


def parse_midi(data: bytes) -> list[tuple[int, bytes]]:
    """A naive reader of what `midi_file` writes: (tick, message) of each event."""
    assert data[:4] == b"MThd"
    assert struct.unpack(">IHHH", data[4:14]) == (6, 0, 1, 480)
    assert data[14:18] == b"MTrk"
    (length,) = struct.unpack(">I", data[18:22])
    stream, now, events = io.BytesIO(data[22:]), 0, []
    assert len(data) == 22 + length
    while True:
        delta = 0
        while (byte := stream.read(1)[0]) & 128:
            delta = delta << 7 | byte & 127
        now += delta << 7 | byte
        status = stream.read(1)
        if status == b"\xff":
            kind, size = stream.read(2)
            events.append((now, bytes([255, kind]) + stream.read(size)))
            if kind == 0x2F:
                assert stream.read() == b""
                return events
        else:
            events.append((now, status + stream.read(1 if status[0] & 0xF0 == 0xC0 else 2)))


def frequency(samples: np.ndarray) -> float:
    """The strongest frequency in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 2**17))
    return float(spectrum.argmax() * RATE / 2**17)


def power(samples: np.ndarray, start: float, end: float) -> float:
    """Mean square between two times in seconds."""
    return float(np.square(samples[round(start * RATE) : round(end * RATE)]).mean())


def test_midi_file_holds_each_note_on_its_program() -> None:
    notes = [Note(0.0, 1.0, 60, 90, 5), Note(1.0, 40.0, 60, 80, 5), Note(0.5, 0.25, 38, 70, 8, drum=True)]
    events = parse_midi(midi_file(notes, 50.0))
    assert events[0] == (0, b"\xff\x51" + (1_000_000).to_bytes(3, "big"))
    assert {message for tick, message in events if message[0] & 0xF0 == 0xC0} == {b"\xc0\x05", b"\xc9\x08"}
    assert [event for event in events if event[1][0] & 0xF0 in (0x80, 0x90)] == [
        (0, b"\x90\x3c\x5a"),
        (240, b"\x99\x26\x46"),
        (360, b"\x89\x26\x00"),
        (480, b"\x80\x3c\x00"),
        (480, b"\x90\x3c\x50"),
        (41 * 480, b"\x80\x3c\x00"),
    ]
    assert events[-1] == (50 * 480, b"\xff\x2f")
    programs = [index for index, (_, message) in enumerate(events) if message[0] & 0xF0 == 0xC0]
    assert max(programs) < min(index for index, (_, message) in enumerate(events) if message[0] & 0xF0 == 0x90)


def test_fourteen_programs_have_channels_of_their_own() -> None:
    events = parse_midi(midi_file([Note(0, 1, 60, 90, program) for program in range(14)], 2.0))
    channels = [message[0] & 15 for _, message in events if message[0] & 0xF0 == 0xC0]
    assert len(set(channels)) == 14
    assert 9 not in channels


@pytest.mark.parametrize("pitch", [57, 69, 76])
def test_pitch(font: Path, pitch: int) -> None:
    samples = render(font, [Note(0, 1, pitch, 100, 0)], 1.0)
    assert frequency(samples) == pytest.approx(440 * 2 ** ((pitch - 69) / 12), rel=0.005)


def test_length_is_exact_and_time_is_kept(font: Path) -> None:
    samples = render(font, [Note(1.0, 0.5, 69, 100, 0)], 2.123)
    assert samples.shape == (round(2.123 * RATE),)
    assert samples.dtype == np.float32
    assert power(samples, 0, 0.98) < 1e-9
    assert power(samples, 1.05, 1.45) > 1e-3
    assert power(samples, 1.8, 2.1) < 0.01 * power(samples, 1.05, 1.45)  # released; some reverberation is left


def test_a_program_is_heard_from_the_first_note_on(font: Path) -> None:
    sine, saw, drum = (render(font, [Note(0, 1, 69, 100, program, program == 9)], 1.0) for program in (0, 1, 9))
    assert frequency(sine) == pytest.approx(frequency(saw), rel=0.005)
    overtones = [np.abs(np.fft.rfft(x))[1500:].sum() / np.abs(np.fft.rfft(x)).sum() for x in (sine, saw, drum)]
    assert overtones[0] < 0.5 * overtones[1] < 0.5 * overtones[2]


def test_louder_velocity_is_louder_and_nothing_clips(font: Path) -> None:
    peaks = [np.abs(render(font, [Note(0, 1, 69, velocity, 0)], 1.0)).max() for velocity in (25, 75, 127)]
    assert 0.01 < peaks[0] < peaks[1] < peaks[2] <= 0.951
    many = [Note(0, 1, pitch, 127, 0) for pitch in range(50, 90, 5)]
    assert np.abs(render(font, many, 1.0)).max() == pytest.approx(0.95)


def test_the_same_notes_give_the_same_samples(font: Path) -> None:
    notes = [Note(0, 1, 69, 100, 0), Note(0.2, 1, 60, 100, 1)]
    np.testing.assert_array_equal(render(font, notes, 1.0), render(font, notes, 1.0))


def test_silence_is_silence(font: Path) -> None:
    assert not render(font, [], 1.0).any()


def test_missing_soundfont(tmp_path: Path) -> None:
    with pytest.raises(MintError, match=r"nope\.sf2: no readable SoundFont .*mint assets fetch"):
        read_soundfont(tmp_path / "nope.sf2")


def test_broken_soundfont(tmp_path: Path) -> None:
    path = tmp_path / "broken.sf2"
    path.write_bytes(b"not a soundfont at all")
    with pytest.raises(MintError, match=r"broken\.sf2: not a SoundFont"):
        render(path, [Note(0, 1, 69, 100, 0)], 1.0)
