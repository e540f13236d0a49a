"""A SoundFont of a few kilobytes: program 0 is a sine, program 1 a sawtooth, the drum kit a short burst of noise."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

RATE = 44000
PERIOD = 100  # samples: A4
LENGTH = 40 * PERIOD


def write_soundfont(path: Path) -> Path:
    """Write it; both melodic samples loop and sound A4 at MIDI note 69."""
    phase = np.arange(LENGTH) / PERIOD
    noise = np.random.default_rng(0).uniform(-1, 1, LENGTH) * np.linspace(1, 0, LENGTH)
    waves = [np.sin(2 * np.pi * phase), 2 * (phase % 1) - 1, noise]
    samples = b"".join((20000 * wave).astype("<i2").tobytes() + bytes(92) for wave in waves)
    pdta = [
        _chunk(
            b"phdr",
            b"".join(_preset(*row) for row in [("a", 0, 0, 0), ("b", 1, 0, 1), ("d", 0, 128, 2), ("EOP", 0, 0, 3)]),
        ),
        _chunk(b"pbag", b"".join(struct.pack("<HH", index, 0) for index in range(4))),
        _chunk(b"pmod", bytes(10)),
        _chunk(b"pgen", b"".join(struct.pack("<HH", 41, index) for index in range(3)) + bytes(4)),
        _chunk(b"inst", b"".join(struct.pack("<20sH", b"i%d" % index, index) for index in range(4))),
        _chunk(b"ibag", b"".join(struct.pack("<HH", 2 * index, 0) for index in range(4))),
        _chunk(b"imod", bytes(10)),
        _chunk(b"igen", b"".join(struct.pack("<HHHH", 54, index < 2, 53, index) for index in range(3)) + bytes(4)),
        _chunk(
            b"shdr", b"".join(_sample(index) for index in range(3)) + struct.pack("<20sIIIIIBbHH", b"EOS", *[0] * 9)
        ),
    ]
    info = _chunk(b"ifil", struct.pack("<HH", 2, 1)) + _chunk(b"isng", b"EMU8000\0") + _chunk(b"INAM", b"tiny\0\0")
    body = b"sfbk" + _list(b"INFO", info) + _list(b"sdta", _chunk(b"smpl", samples)) + _list(b"pdta", b"".join(pdta))
    path.write_bytes(_chunk(b"RIFF", body))
    return path


def _preset(name: str, program: int, bank: int, bag: int) -> bytes:
    return struct.pack("<20sHHHIII", name.encode(), program, bank, bag, 0, 0, 0)


def _sample(index: int) -> bytes:
    start = index * (LENGTH + 46)
    return struct.pack("<20sIIIIIBbHH", b"s%d" % index, start, start + LENGTH, start, start + LENGTH, RATE, 69, 0, 0, 1)


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def _list(name: bytes, data: bytes) -> bytes:
    return _chunk(b"LIST", name + data)
