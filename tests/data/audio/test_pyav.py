"""m4a, webm and their like: a part is the slice of the whole, and what cannot be read is refused in one line."""

from __future__ import annotations

import importlib
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mint.data.audio import pyav as video
from mint.data.audio.decode import load_audio, load_windows, probe
from mint.data.audio.listen import check_audio
from mint.types import MintError
from tiny_video import FORMATS, encoded

av: Any = importlib.import_module("av")
RATE = 16000
LOSSLESS = ("mp4", "mkv")


def noise(seconds: float, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.4, 0.4, (channels, round(seconds * RATE)))


CONTENT = {kind: encoded(kind, noise(5.0, 2), RATE) for kind in FORMATS}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_part_is_the_slice_of_the_whole(tmp_path: Path, kind: str) -> None:
    """At offsets before and after the second from which a part of mp4 is decoded alone."""
    path = tmp_path / f"clip.{kind}"
    path.write_bytes(CONTENT[kind])
    whole = load_audio(path, RATE)
    assert len(whole) == pytest.approx(5 * RATE, abs=2048)
    assert probe(path)[0] == pytest.approx(len(whole) / RATE, abs=0.1)
    assert probe(path)[1:] == (48000 if kind == "webm" else RATE, 2)  # opus is always decoded at 48 kHz
    rate = probe(path)[1]
    whole = load_audio(path, rate)
    for start in (0.0, 0.3, 1.0, 1.7, 2.71828, 3.9):
        first = round(start * rate)
        np.testing.assert_array_equal(load_audio(path, rate, start, 1.0), whole[first : first + rate])
    assert len(load_audio(path, RATE, 4.5, 9.0)) == pytest.approx(0.5 * RATE, abs=2048)
    check_audio(path)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_sound_is_what_was_encoded(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"clip.{kind}"
    path.write_bytes(CONTENT[kind])
    np.testing.assert_allclose(load_audio(path, RATE), noise(5.0, 2).mean(axis=0), atol=2**-15)


def test_a_tone_keeps_its_place_and_pitch(tmp_path: Path) -> None:
    """Silence for two seconds, then 440 Hz; read at another rate, and as windows."""
    tone = 0.4 * np.sin(2 * np.pi * 440 * np.arange(2 * 44100) / 44100)
    path = tmp_path / "tone.m4a"
    path.write_bytes(encoded("m4a", np.concatenate([np.zeros(2 * 44100), tone])[None], 44100))
    samples = load_audio(path, 16000)
    assert np.abs(samples[: 2 * 16000 - 800]).max() < 0.01
    part = load_audio(path, 16000, 2.5, 1.0)
    assert part.shape == (16000,)
    assert np.abs(np.fft.rfft(part)).argmax() == 440
    assert [len(window) for window in load_windows(path, 16000, max_seconds=2.5)] == [40000, 40000]


def test_a_member_of_a_shard(tmp_path: Path) -> None:
    (tmp_path / "a.m4a").write_bytes(CONTENT["m4a"])
    with tarfile.open(tmp_path / "0.tar", "w") as shard:
        shard.add(tmp_path / "a.m4a", "a.m4a")
    member, file = (load_audio(path, RATE, 2.0, 1.0) for path in (tmp_path / "0.tar::a.m4a", tmp_path / "a.m4a"))
    np.testing.assert_array_equal(member, file)


def test_what_libsndfile_reads_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its name is."""
    monkeypatch.setattr(video, "is_installed", lambda: False)
    soundfile.write(tmp_path / "clip.m4a", noise(1.0).T, RATE, format="FLAC")
    assert len(load_audio(tmp_path / "clip.m4a", RATE)) == RATE


@pytest.mark.parametrize("suffix", [".mp3", ".wav", ".flac", ".MP4", ".txt", ""])
@pytest.mark.parametrize("kind", FORMATS)
def test_under_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, suffix: str) -> None:
    """It is read as what it is, and where PyAV is missing it is called that."""
    right, wrong = tmp_path / f"right.{kind}", tmp_path / f"wrong{suffix}"
    for path in (right, wrong):
        path.write_bytes(CONTENT[kind])
    np.testing.assert_array_equal(load_audio(wrong, RATE), load_audio(right, RATE))
    assert probe(wrong) == probe(right)
    with tarfile.open(tmp_path / "0.tar", "w") as shard:
        shard.add(wrong, "a.mp3")
    np.testing.assert_array_equal(load_audio(tmp_path / "0.tar::a.mp3", RATE), load_audio(right, RATE))
    monkeypatch.setattr(video, "is_installed", lambda: False)
    name = {"m4a": "MPEG-4", "mp4": "MPEG-4", "aac": "AAC", "webm": "Matroska or WebM", "mkv": "Matroska or WebM"}[kind]
    with pytest.raises(MintError, match=rf"wrong{suffix}: {name} is read with PyAV; `pip install"):
        load_audio(wrong, RATE)


def test_without_pyav_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.m4a"
    path.write_bytes(CONTENT["m4a"])
    monkeypatch.setattr(video, "is_installed", lambda: False)
    with pytest.raises(MintError, match=r"clip\.m4a: MPEG-4 is read with PyAV; `pip install 'mint-audio\[video\]'`,"):
        load_audio(path, RATE)


def no_sound(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 16
        for frame in (av.VideoFrame(16, 16, "yuv420p"), None):
            container.mux(stream.encode(frame))


def playlist(path: Path) -> None:
    (path.parent / "other.mp4").write_bytes(CONTENT["mp4"])
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{path.parent / 'other.mp4'}\n#EXT-X-ENDLIST\n")


def concatenation(path: Path) -> None:
    (path.parent / "other.mp4").write_bytes(CONTENT["mp4"])
    path.write_text("ffconcat version 1.0\nfile other.mp4\n")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_sound, "there is no sound in it"),
        (playlist, r"not audio that can be decoded \(Invalid .*\); export it again, for instance with `ffmpeg"),
        (concatenation, r"not audio that can be decoded \(Invalid"),
        (lambda path: path.write_text("this is not audio"), r"not audio that can be decoded \(Invalid"),
        (lambda path: path.write_bytes(b""), r"the file is empty"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "clip.mp4"
    make(path)
    for read in (probe, check_audio, lambda path: load_audio(path, RATE, 0.0, 1.0)):
        with pytest.raises(MintError, match=rf"clip\.mp4: {message}"):
            read(path)
