"""Any file or array becomes mono float32 at the wanted rate; what cannot is refused in one line."""

from __future__ import annotations

import shlex
import subprocess
import tarfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from mint.data.audio.decode import (
    AudioSource,
    as_clip,
    load_audio,
    load_parts,
    load_windows,
    probe,
    windows,
)
from mint.data.audio.listen import check_audio
from mint.data.corpora.recordings import Recordings
from mint.types import Clip, MintError


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int, **options: str) -> Path:
    soundfile.write(path, samples, rate, **options)
    return path


def strongest(samples: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * rate / len(samples))


@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 96000])
def test_any_rate_and_channels(tmp_path: Path, rate: int, channels: int) -> None:
    path = write(tmp_path / "clip.wav", np.repeat(tone(1.0, rate)[:, None], channels, axis=1), rate)
    assert probe(path) == (1.0, rate, channels)
    samples = load_audio(path, 16000)
    assert samples.dtype == np.float32
    assert samples.shape == (16000,)
    assert strongest(samples, 16000) == pytest.approx(440, abs=1)
    assert np.abs(samples).max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("clip.wav", {"subtype": "FLOAT"}),
        ("clip.flac", {}),
        ("clip.ogg", {}),
        ("clip.aiff", {}),
        ("clip.mp3", {}),
        ("clip.opus", {"format": "OGG", "subtype": "OPUS"}),
        ("clip.dat", {"format": "WAV"}),
    ],
)
def test_any_format(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    path = write(tmp_path / name, tone(2.0, 48000), 48000, **options)
    samples = load_audio(str(path), 16000)
    assert len(samples) == pytest.approx(32000, abs=2000)
    assert strongest(samples, 16000) == pytest.approx(440, abs=1)


def test_channels_are_averaged(tmp_path: Path) -> None:
    stereo = np.random.default_rng(0).uniform(-1, 1, (1000, 2)).astype(np.float32)
    path = write(tmp_path / "clip.wav", stereo, 16000, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(path, 16000), stereo.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("name", ["clip.wav", "clip.flac", "clip.ogg", "clip.mp3"])
def test_a_part_is_the_slice_of_the_whole(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 10 * 16000).astype(np.float32)
    path = write(tmp_path / name, noise, 16000)
    whole = load_audio(path, 16000)
    np.testing.assert_allclose(load_audio(path, 16000, 2.5, 1.25), whole[40000:60000], atol=1e-6)
    np.testing.assert_allclose(load_audio(path, 16000, 9.0), whole[144000:], atol=1e-6)
    assert len(load_audio(path, 16000, 9.0, 5.0)) == len(whole) - 144000


@pytest.mark.parametrize("rate", [4000, 16000, 192000])
def test_one_sample_is_a_clip(tmp_path: Path, rate: int) -> None:
    path = write(tmp_path / "clip.wav", np.array([0.25], np.float32), rate, subtype="FLOAT")
    samples = load_audio(path, 16000)
    assert samples.size >= 1
    assert np.isfinite(samples).all()
    assert as_clip((np.array([0.25]), rate), 16000).size >= 1
    check_audio(path)


def empty_file(path: Path) -> None:
    path.write_bytes(b"")


def text_file(path: Path) -> None:
    path.write_text("this is not audio")


def no_samples(path: Path) -> None:
    soundfile.write(path, np.zeros((0, 1), np.float32), 16000)


def nan_samples(path: Path) -> None:
    soundfile.write(path, np.array([0, np.nan, 0], np.float32), 16000, subtype="FLOAT")


def infinite_samples(path: Path) -> None:
    soundfile.write(path, np.array([0, np.inf, 0], np.float32), 44100, subtype="FLOAT")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such audio file; check the path"),
        (empty_file, r"the file is empty \(0 bytes\); fetch or export it again"),
        (text_file, "not audio that can be decoded .*; give wav, flac"),
        (no_samples, "the file holds no samples; fetch or export it again"),
        (nan_samples, "NaN or infinite samples; export it again"),
        (infinite_samples, "NaN or infinite samples; export it again"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, make: object, message: str) -> None:
    path = tmp_path / "bad.wav"
    make(path)  # type: ignore[operator]
    for read in (lambda: load_audio(path, 16000), lambda: as_clip(path, 16000), lambda: check_audio(path)):
        with pytest.raises(MintError, match=rf"bad\.wav: .*{message}") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_damaged_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.flac", np.random.default_rng(0).uniform(-0.5, 0.5, 50000), 16000)
    path.write_bytes(path.read_bytes()[:40000])
    with pytest.raises(MintError, match=r"cut\.flac: not audio that can be .*ffmpeg -i .*/cut\.flac .*/cut\.wav`"):
        load_audio(path, 16000)


@pytest.mark.parametrize("name", ["clip.m4a", 'a  (b) [c]\'s "d" $HOME.mp4', "-i.webm", "http:a;b.wav", "x.flac"])
def test_the_command_that_is_suggested_writes_a_file_that_readers_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Run by a shell that knows one program, in ffmpeg's place; in the file's folder, as it is given there."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ffmpeg").write_text('#!/bin/sh\n[ $# = 3 ] && [ "$1" = -i ] && /bin/mv "$2" "$3"\n')
    (tmp_path / "bin" / "ffmpeg").chmod(0o755)
    (tmp_path / "clips").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.chdir(tmp_path / "clips")
    for path in (Path(name), tmp_path / "clips" / name):
        Path(name).write_text("this is not audio")
        with pytest.raises(MintError, match="ffmpeg") as caught:
            probe(path)
        command = next(part for part in str(caught.value).split("`") if part.startswith("ffmpeg "))
        assert "-" not in [word[0] for word in shlex.split(command)[2:]]
        subprocess.run(command, shell=True, check=True)
        found = Recordings(tmp_path / "clips").find(path.stem)
        assert found.is_file()
        assert found.suffix in (".flac", ".wav")
        assert found.suffix != path.suffix
        found.unlink()


def test_a_member_of_a_shard_is_made_anew_with_its_shard(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("this is not audio")
    with tarfile.open(tmp_path / "0.tar", "w") as shard:
        shard.add(tmp_path / "a.wav", "a.wav")
    with pytest.raises(MintError, match=r"0\.tar::a\.wav: not audio .*export it again and write its shard again$"):
        probe(tmp_path / "0.tar::a.wav")


def test_an_mp3_that_was_cut_off_gives_what_there_is(tmp_path: Path) -> None:
    """Its header is that of the whole, here of 4 s; the bytes end before 2 s."""
    path = write(tmp_path / "clip.mp3", np.random.default_rng(0).uniform(-0.5, 0.5, 64000), 16000)
    whole = load_audio(path, 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert probe(path)[0] == 4.0
    there = load_audio(path, 16000)
    assert 25000 < len(there) < 32000
    np.testing.assert_array_equal(there, whole[: len(there)])
    parts = list(load_windows(path, 16000, 0.5))  # of eight
    np.testing.assert_allclose(np.concatenate(parts), there, atol=2e-2)
    assert [len(part) for part in parts] == [8000, 8000, 8000, len(there) - 24000]
    assert check_audio(path) == len(there) / 16000
    assert check_audio(path, 0.5, 1.0) == 1.5
    for read in (load_audio(path, 16000, 1.0, 9.0), *load_parts(path, 16000, [(1.0, 9.0), (3.0, 1.0)])):
        assert len(read) == len(there) - 16000
    with pytest.raises(MintError, match=r"it ends before 3\.00 s, although its header says otherwise; fetch or"):
        load_audio(path, 16000, 3.0)
    with pytest.raises(MintError, match=r"it ends before 3\.00 s"):
        check_audio(path, 3.0, 0.5)


def test_a_flac_stream_of_unknown_length_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "stream.flac", tone(1.0, 16000), 16000)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # STREAMINFO's 36 bits of the number of samples
    data[22:26] = bytes(4)
    path.write_bytes(data)
    for read in (lambda: load_audio(path, 16000), lambda: check_audio(path), lambda: probe(path)):
        with pytest.raises(MintError, match=r"stream\.flac: the header does not say how long it is .*ffmpeg"):
            read()


def test_headerless_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "samples.raw"
    path.write_bytes(bytes(1000))
    with pytest.raises(MintError, match=r"samples\.raw: not audio"):
        load_audio(path, 16000)


def test_a_start_past_the_end_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.wav", tone(1.0, 16000), 16000)
    with pytest.raises(MintError, match=r"start 1\.0 s is past the end \(1\.00 s\); give a smaller start"):
        load_audio(path, 16000, 1.0)
    with pytest.raises(MintError, match="start 7"):
        check_audio(path, 7.0, 100.0)


@pytest.mark.parametrize(("start", "duration"), [(-1.0, None), (0.0, 0.0), (0.0, -2.0), (float("nan"), None)])
def test_senseless_parts_are_refused(tmp_path: Path, start: float, duration: float | None) -> None:
    path = write(tmp_path / "clip.wav", tone(1.0, 16000), 16000)
    with pytest.raises(MintError, match="give start >= 0 and duration > 0"):
        load_audio(path, 16000, start, duration)


def test_arrays() -> None:
    mono = tone(0.5, 16000)
    stereo = np.stack([mono, -0.5 * mono])
    np.testing.assert_array_equal(as_clip((mono, 16000), 16000), mono)
    np.testing.assert_array_equal(as_clip(Clip(mono, 16000), 16000), mono)
    np.testing.assert_array_equal(as_clip((mono.tolist(), 16000), 16000), mono)
    np.testing.assert_allclose(as_clip((stereo, 16000), 16000), 0.25 * mono, atol=1e-7)
    np.testing.assert_allclose(as_clip((stereo.T, 16000), 16000), 0.25 * mono, atol=1e-7)
    assert as_clip((mono.astype(np.float64), 16000), 8000).shape == (4000,)
    rate: Any = np.int64(16000)
    assert as_clip((mono, rate), 8000).dtype == np.float32


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([-32768, 0, 16384], np.int16), [-1, 0, 0.5]),
        (np.array([-(2**31), 2**30], np.int32), [-1, 0.5]),
        (np.array([0, 128, 192], np.uint8), [-1, 0, 0.5]),
    ],
)
def test_integer_samples_are_scaled(samples: np.ndarray, expected: list[float]) -> None:
    np.testing.assert_allclose(as_clip((samples, 16000), 16000), expected)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(10), r"audio is ndarray; give a path or \(samples, rate\)"),
        ((np.zeros(10), "16000"), "the rate is '16000'; give it in Hz"),
        ((np.zeros(10), 0), "the rate is 0 Hz; give one from 50"),
        ((np.zeros((2, 3, 4)), 16000), r"the shape \(2, 3, 4\)"),
        ((np.zeros(0), 16000), "holds no samples"),
        ((np.array([0.0, np.nan]), 16000), "NaN or infinite"),
    ],
)
def test_bad_arrays_are_refused(audio: AudioSource, message: str) -> None:
    with pytest.raises(MintError, match=message):
        as_clip(audio, 16000)


@given(st.floats(0.01, 20000), st.floats(0.5, 60), st.integers(1, 20))
def test_windows_lie_inside_and_spread_evenly(seconds: float, longest: float, most: int) -> None:
    found = windows(seconds, longest, most)
    assert 1 <= len(found) <= most
    assert found[0][0] == 0
    if seconds <= longest:
        assert found == [(0, seconds)]
        return
    assert all(length == longest for _, length in found)
    if len(found) > 1:
        assert found[-1][0] + longest == pytest.approx(seconds)
        assert np.ptp(np.diff([start for start, _ in found])) <= 1e-6 * seconds
    if seconds <= longest * most:  # then they cover the clip
        assert all(after[0] <= before[0] + longest + 1e-6 for before, after in pairwise(found))


def test_windows_of_the_paper() -> None:
    assert windows(5.0) == [(0.0, 5.0)]
    assert windows(30.0) == [(0.0, 30.0)]
    assert windows(31.0) == [(0.0, 30.0), (1.0, 30.0)]
    assert len(windows(3 * 3600.0)) == 10


def test_windows_of_file_and_array_agree(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 70 * 1000).astype(np.float32)
    path = write(tmp_path / "clip.wav", noise, 1000, subtype="FLOAT")
    from_file, from_array = list(load_windows(path, 1000)), list(load_windows((noise, 1000), 1000))
    assert [len(part) for part in from_file] == [30000, 30000, 30000]
    for one, other in zip(from_file, from_array, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(from_file[1], noise[20000:50000])


def test_three_hours_cost_ten_windows(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", 8000, 1) as file:
        for _ in range(3 * 60):
            file.write(np.zeros(60 * 8000, np.float32))
    assert probe(path)[0] == 3 * 3600
    lengths = [len(part) for part in load_windows(path, 16000)]
    assert lengths == [30 * 16000] * 10
    check_audio(path)


@pytest.mark.parametrize("channels", [1, 2, 5, 7])
def test_any_number_of_channels_is_averaged(tmp_path: Path, channels: int) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (1000, channels)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 16000, "FLOAT")
    assert (load_audio(tmp_path / "a.wav", 16000) == samples.mean(axis=1)).all()
