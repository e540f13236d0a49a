"""Notes -> audio: a General MIDI SoundFont played by midirenderer (RustySynth), one call a clip.

A clip is written as a small standard MIDI file, because that is what the renderer reads. One call costs about 4 ms for
parsing the SoundFont and 4 ms per second of sound; clips on one long timeline would save the former, but reverberation
would carry from clip to clip.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import soundfile
import soxr

from mint.data.audio.decode import Samples
from mint.types import MintError

RATE = 16000
"""Hz of the rendered corpora: what YAMNet and data2vec hear."""
GAIN = 6.0
"""The renderer leaves headroom for many voices: a single note of velocity 127 peaks near 0.16."""
PEAK = 0.95
"""A clip that the gain would take beyond this is scaled down to it."""
DRUM_CHANNEL = 9
TICKS = 480
"""MIDI ticks a second."""
NOTE_OFF, NOTE_ON, CONTROL_CHANGE, PROGRAM_CHANGE = 0x80, 0x90, 0xB0, 0xC0
"""First bytes of MIDI messages; the channel is added to them."""


@dataclass(frozen=True)
class Note:
    """One note of a clip."""

    start: float
    """Seconds."""
    length: float
    """Seconds until the key is released."""
    pitch: int
    """MIDI number, 60 is middle C; on a drum kit the number of the drum."""
    velocity: int
    """1 to 127."""
    program: int
    """0 to 127; of a drum kit: the kit."""
    drum: bool = False


def render(soundfont: Path, notes: Iterable[Note], seconds: float) -> Samples:
    """Play notes.

    Returns:
        [S] mono at 16 kHz, `seconds` long exactly, whatever still sounds at the end is cut.

    Raises:
        MintError: the SoundFont is missing or broken.
    """
    from midirenderer import render_wave_from

    try:
        wave = render_wave_from(read_soundfont(soundfont), midi_file(notes, seconds))
    except RuntimeError as error:
        raise MintError(f"{soundfont}: not a SoundFont that can be played ({error}); fetch it again") from None

    stereo, rate = soundfile.read(io.BytesIO(wave), dtype="float32", always_2d=True)  # [S', 2]
    mono = GAIN * soxr.resample(stereo.mean(axis=1), rate, RATE, "HQ")  # [S], or a few samples less

    size = round(seconds * RATE)
    mono = np.pad(mono[:size], (0, max(0, size - len(mono))))
    # Silence has no peak to divide by.
    peak = max(float(np.abs(mono).max()), 1e-9)
    return np.asarray(mono * min(1.0, PEAK / peak), dtype=np.float32)


def renderer_version() -> str:
    """Return the version of midirenderer, an optional dependency.

    Raises:
        MintError: it is not installed.
    """
    try:
        return metadata.version("midirenderer")
    except metadata.PackageNotFoundError:
        raise MintError("midirenderer is not installed; `pip install mint-audio[quickstart]` brings it") from None


@functools.cache
def read_soundfont(path: Path) -> bytes:
    """Return the bytes of a SoundFont, read once a process.

    Raises:
        MintError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise MintError(f"{path}: no readable SoundFont ({error.strerror}); `mint assets fetch` brings one") from None


def midi_file(notes: Iterable[Note], seconds: float) -> bytes:
    """Return a standard MIDI file of type 0 that lasts `seconds`.

    Each program has a channel of its own (at most 15). All drums share one channel, and so one kit.
    """
    notes = list(notes)
    programs = sorted({note.program for note in notes if not note.drum})
    free = [channel for channel in range(16) if channel != DRUM_CHANNEL]
    channel_of = dict(zip(programs, free, strict=False))

    # One beat a second, so that ticks are those of a second.
    track = b"\x00\xff\x51\x03" + (1_000_000).to_bytes(3, "big")
    kits = {(DRUM_CHANNEL, note.program) for note in notes if note.drum}
    for channel, program in kits | {(channel, program) for program, channel in channel_of.items()}:
        track += bytes([0, PROGRAM_CHANGE | channel, program])

    end = round(seconds * TICKS)
    now = 0
    for tick, message in _events(notes, channel_of, end):
        track += _variable_length(tick - now) + message
        now = tick

    # A controller that changes nothing: the renderer ends with the last message, not with the end of the track.
    track += _variable_length(end - now) + bytes([CONTROL_CHANGE, 7, 100]) + b"\x00\xff\x2f\x00"
    header = b"MThd" + struct.pack(">IHHH", 6, 0, 1, TICKS)
    return header + b"MTrk" + struct.pack(">I", len(track)) + track


def _events(notes: Iterable[Note], channel_of: dict[int, int], end: int) -> list[tuple[int, bytes]]:
    """Return the ticks and messages of notes, none after the end; at one tick, notes end before others begin."""
    events = []
    for note in notes:
        channel = DRUM_CHANNEL if note.drum else channel_of[note.program]
        starts, stops = round(note.start * TICKS), round((note.start + note.length) * TICKS)
        events.append((min(starts, end), bytes([NOTE_ON | channel, note.pitch, note.velocity])))
        events.append((min(stops, end), bytes([NOTE_OFF | channel, note.pitch, 0])))
    # NOTE_OFF is the smaller byte, so that the order of the messages is the order that is wanted.
    return sorted(events)


def _variable_length(value: int) -> bytes:
    """Return MIDI's variable-length number: seven bits a byte, the highest bit set on all but the last."""
    groups = [value & 127]
    while value := value >> 7:
        groups.append(value & 127 | 128)
    return bytes(reversed(groups))
