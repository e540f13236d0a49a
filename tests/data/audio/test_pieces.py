"""Pieces of a recording: those of a naive loop, sample by sample, in the memory of a few."""

from __future__ import annotations

import itertools
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mint.data.audio import opening
from mint.data.audio.decode import as_clip, load_audio, probe
from mint.data.audio.pieces import pieces
from mint.types import MintError
from tiny_video import encoded

RATE = 8000


def write(path: Path, seconds: float = 5.3, rate: int = RATE, channels: int = 2) -> Path:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (round(seconds * rate), channels))
    soundfile.write(path, samples, rate)
    return path


def naively(path: Path, rate: int, every: float, hop: float) -> list[tuple[float, float, Any]]:
    """The whole in memory, and each piece cut out of it, until one reaches the end."""
    _, source_rate, _ = probe(path)
    whole = load_audio(path, source_rate)
    length = round(every * source_rate)
    cut: list[tuple[float, float, Any]] = []
    for index in itertools.count():
        first = round(index * hop * source_rate)
        if first >= len(whole) or (index and round((index - 1) * hop * source_rate) + length >= len(whole)):
            return cut
        end = min(index * hop + every, len(whole) / source_rate)
        cut.append((index * hop, end, as_clip((whole[first : first + length], source_rate), rate)))
    raise AssertionError


@pytest.mark.parametrize("block", [1000, 1 << 18], ids=["small blocks", "one block"])
@pytest.mark.parametrize(("every", "hop"), [(1.0, 1.0), (1.0, 0.3), (0.7, 0.7), (2.5, 1.25), (9.0, 9.0), (5.3, 5.3)])
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_pieces_are_those_that_are_cut_out_one_by_one(
    tmp_path: Path, name: str, every: float, hop: float, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "BLOCK_FRAMES", block)
    path = write(tmp_path / name, rate=16000 if name.endswith("mp3") else RATE)
    found, expected = list(pieces(path, RATE, every, hop)), naively(path, RATE, every, hop)
    for piece, (start, end, samples) in zip(found, expected, strict=True):
        assert (piece.start, piece.end) == pytest.approx((start, end))
        # The decoder of MP3 rounds the last bit in another way where it is asked for other blocks.
        np.testing.assert_allclose(piece.samples, samples, rtol=0, atol=1e-6 if name.endswith("mp3") else 0)


def test_samples_in_memory_and_other_rates(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", rate=11025, channels=1)
    samples, rate = soundfile.read(path, dtype="float32")
    for piece, other in zip(pieces(path, RATE, 2.0, 1.0), pieces((samples, rate), RATE, 2.0, 1.0), strict=True):
        assert piece[:2] == other[:2]
        np.testing.assert_array_equal(piece.samples, other.samples)
    for piece, (_, _, expected) in zip(pieces(path, RATE, 2.0, 1.0), naively(path, RATE, 2.0, 1.0), strict=True):
        np.testing.assert_array_equal(piece.samples, expected)


@pytest.mark.parametrize("rates", [(8000, 8000), (8000, 16000)], ids=["one rate", "two rates"])
def test_streams_that_follow_each_other(
    tmp_path: Path, rates: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "BLOCK_FRAMES", 3000)
    parts = [write(tmp_path / f"{index}.ogg", 1.7, rate) for index, rate in enumerate(rates)]
    path = tmp_path / "both.ogg"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    found = list(pieces(path, RATE, 1.0, 1.0))
    whole = load_audio(path, RATE)
    joined = np.concatenate([piece.samples for piece in found])
    assert len(joined) == len(whole)
    if rates[0] == rates[1]:
        np.testing.assert_array_equal(joined, whole)
    else:
        np.testing.assert_allclose(joined[: round(1.7 * RATE)], whole[: round(1.7 * RATE)])


@pytest.mark.parametrize("kind", ["m4a", "webm", "mkv"])
def test_foreign_formats(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("av")
    path = tmp_path / f"a.{kind}"
    path.write_bytes(encoded(kind, np.random.default_rng(0).uniform(-0.5, 0.5, (2, 48000 * 3)), 48000))
    whole = load_audio(path, 48000)
    joined = np.concatenate([piece.samples for piece in pieces(path, 48000, 0.7, 0.7)])
    np.testing.assert_array_equal(joined[: len(whole)], whole)


@pytest.mark.parametrize(
    ("every", "hop", "message"),
    [
        (0.0, 1.0, "every is 0.0; give seconds above 0"),
        (float("nan"), 1.0, "every is nan"),
        (1.0, float("inf"), "hop is inf"),
        ("1", 1.0, "every is '1'"),
        (1.0, 2.0, "a hop of 2 s leaves gaps between pieces of 1 s; give at most 1"),
    ],
)
def test_times_that_no_pieces_have(tmp_path: Path, every: Any, hop: Any, message: str) -> None:
    with pytest.raises(MintError, match=message):
        next(pieces(write(tmp_path / "a.wav"), RATE, every, hop))


def test_bad_recordings(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    for name, message in (("text.wav", "not audio"), ("gone.wav", "no such audio file")):
        with pytest.raises(MintError, match=message):
            next(pieces(tmp_path / name, RATE, 1.0, 1.0))
    with pytest.raises(MintError, match="holds no samples"):
        next(pieces((np.zeros(0, np.float32), RATE), RATE, 1.0, 1.0))


def test_three_hours_in_the_memory_of_some_pieces(tmp_path: Path) -> None:
    """Silence that takes no room on the disk."""
    size = 3 * 3600 * RATE * 2
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16, b"data", size
    )
    path = tmp_path / "long.wav"
    path.write_bytes(head)
    with path.open("r+b") as file:
        file.truncate(len(head) + size)

    tracemalloc.start()
    count, last = 0, 0.0
    for piece in pieces(path, RATE, 10.0, 10.0):
        count, last = count + 1, piece.end
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (count, last) == (1080, 3 * 3600.0)
    assert peak < 8 * 2**20
