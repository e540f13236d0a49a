"""Files of several streams are read to their end, and those that cannot be sought are read from their beginning."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mint.data.audio.decode import load_audio, load_windows, probe
from mint.data.audio.listen import check_audio
from mint.types import MintError

RATE = 16000
OGG: dict[str, Any] = {"format": "OGG", "subtype": "VORBIS"}
OPUS: dict[str, Any] = {"format": "OGG", "subtype": "OPUS"}


def tone(hertz: float, seconds: float, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """[S, channels]."""
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave[:, None], channels, axis=1)


def encoded(samples: np.ndarray, rate: int = RATE, **options: Any) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, **options)
    return buffer.getvalue()


def strongest(samples: np.ndarray) -> float:
    """The frequency in Hz at which there is most, of samples at `RATE`."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * RATE / len(samples))


@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        ("WAV", "GSM610"),
        ("WAV", "G721_32"),
        ("WAV", "NMS_ADPCM_16"),
        ("WAV", "NMS_ADPCM_24"),
        ("WAV", "NMS_ADPCM_32"),
        ("W64", "GSM610"),
        ("AIFF", "GSM610"),
        ("AU", "G721_32"),
        ("AU", "G723_24"),
        ("AU", "G723_40"),
        ("XI", "DPCM_16"),
    ],
)
def test_codecs_that_cannot_be_sought(tmp_path: Path, container: str, subtype: str) -> None:
    path = tmp_path / "call.wav"
    low, high = tone(440, 1.0, 8000), tone(1000, 1.0, 8000)
    soundfile.write(path, np.concatenate([low, high]), 8000, subtype, format=container)
    seconds, rate, channels = probe(path)
    assert seconds == pytest.approx(2.0 * 8000 / rate, abs=0.01)  # XI states no rate
    assert channels == 1
    whole = load_audio(path, rate)
    assert len(whole) == pytest.approx(16000, abs=120)  # codecs of blocks fill up the last one
    assert len(whole) == round(seconds * rate)
    np.testing.assert_array_equal(whole[9000:12000], load_audio(path, rate, 9000 / rate, 3000 / rate))
    if rate == 8000:
        assert len(load_audio(path, RATE)) == pytest.approx(32000, abs=240)
        assert strongest(load_audio(path, RATE, 0.0, 1.0)) == pytest.approx(440, abs=1)
        assert strongest(load_audio(path, RATE, 1.0, 1.0)) == pytest.approx(1000, abs=1)
        assert check_audio(path, 0.0, 1.0) == 1.0


CHAINS = {
    "ogg and ogg": (encoded(tone(440, 2.0), **OGG), encoded(tone(880, 2.0), **OGG)),
    "opus and opus": (encoded(tone(440, 2.0), **OPUS), encoded(tone(880, 2.0), **OPUS)),
    "another rate": (encoded(tone(440, 2.0), **OGG), encoded(tone(880, 2.0, 44100), 44100, **OGG)),
    "a lower rate": (encoded(tone(440, 2.0, 48000), 48000, **OGG), encoded(tone(880, 2.0, 8000), 8000, **OGG)),
    "other channels": (encoded(tone(440, 2.0), **OGG), encoded(tone(880, 2.0, channels=2), **OGG)),
    "another codec": (encoded(tone(440, 2.0), **OGG), encoded(tone(880, 2.0), **OPUS)),
    "the other way round": (encoded(tone(440, 2.0), **OPUS), encoded(tone(880, 2.0), **OGG)),
    "mp3 and mp3": (encoded(tone(440, 2.0), format="MP3"), encoded(tone(880, 2.0), format="MP3")),
    "mp3 of another rate": (
        encoded(tone(440, 2.0), format="MP3"),
        encoded(tone(880, 2.0, 44100), 44100, format="MP3"),
    ),
    "mp3 of other channels": (
        encoded(tone(440, 2.0, channels=2), format="MP3"),
        encoded(tone(880, 2.0), format="MP3"),
    ),
    "wav and wav": (encoded(tone(440, 2.0), format="WAV"), encoded(tone(880, 2.0), format="WAV")),
    "wav of another rate": (
        encoded(tone(440, 2.0), format="WAV"),
        encoded(tone(880, 2.0, 8000), 8000, format="WAV", subtype="FLOAT"),
    ),
    "odd wav": (
        encoded(np.resize(tone(440, 2.0), (32001, 1)), format="WAV", subtype="PCM_U8"),
        encoded(tone(880, 2.0), format="WAV"),
    ),
    "aiff and aiff": (encoded(tone(440, 2.0), format="AIFF"), encoded(tone(880, 2.0), format="AIFF")),
}


@pytest.mark.parametrize("stored", ["file", "member"])
@pytest.mark.parametrize("name", CHAINS)
def test_streams_one_after_another_are_read_to_the_end(tmp_path: Path, name: str, stored: str) -> None:
    path = tmp_path / "clip.bin"
    path.write_bytes(b"".join(CHAINS[name]))
    if stored == "member":
        with tarfile.open(tmp_path / "0.tar", "w") as shard:
            shard.add(path, "clip.bin")
        path = tmp_path / "0.tar::clip.bin"
    assert probe(path)[0] == pytest.approx(4.0, abs=0.05)
    whole = load_audio(path, RATE)
    assert len(whole) == pytest.approx(4 * RATE, abs=800)
    assert strongest(whole[: 2 * RATE - 800]) == pytest.approx(440, abs=2)
    assert strongest(whole[2 * RATE + 800 :]) == pytest.approx(880, abs=2)
    assert strongest(load_audio(path, RATE, 2.5, 1.0)) == pytest.approx(880, abs=2)
    assert [len(window) for window in load_windows(path, RATE, 1.0, 4)] == [RATE] * 4
    assert check_audio(path) == pytest.approx(4.0, abs=0.05)


def test_a_part_across_streams_is_the_slice_of_the_whole(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (3, RATE, 1))
    path = tmp_path / "clip.wav"
    path.write_bytes(b"".join(encoded(one, format="WAV") for one in noise))
    whole = load_audio(path, RATE)
    np.testing.assert_allclose(whole, noise.reshape(-1), atol=2**-15)
    for start, duration in ((0.5, 1.0), (0.9, 1.2), (0.25, 2.5), (1.0, 1.0), (2.9, 9.0)):
        part = load_audio(path, RATE, start, duration)
        np.testing.assert_array_equal(part, whole[round(start * RATE) : round((start + duration) * RATE)])


def test_a_second_stream_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    """One whose codec is unknown; it is no reason to take the first for the whole."""
    second = encoded(tone(880, 1.0), **OGG).replace(b"\x01vorbis", b"\x01foobar")
    path = tmp_path / "radio.ogg"
    path.write_bytes(encoded(tone(440, 2.0), **OGG) + second)
    for read in (probe, check_audio):
        with pytest.raises(MintError, match=r"radio\.ogg: it goes on after its first stream, at 2\.00 s, with what"):
            read(path)


@pytest.mark.parametrize("size", [0x7FFFFFFF, 0xFFFFFFFF])
def test_a_wav_that_was_piped_is_one_stream(tmp_path: Path, size: int) -> None:
    """Its size was not known yet when its header was written."""
    content = bytearray(encoded(tone(440, 2.0), format="WAV"))
    content[4:8] = content[40:44] = size.to_bytes(4, "little")
    (tmp_path / "piped.wav").write_bytes(content)
    assert probe(tmp_path / "piped.wav") == (2.0, RATE, 1)


def test_a_rate_that_no_sound_has_is_refused(tmp_path: Path) -> None:
    content = bytearray(encoded(tone(440, 2.0), format="WAV"))
    for rate in (1, 2**31 - 1):
        content[24:28] = rate.to_bytes(4, "little")
        (tmp_path / "clip.wav").write_bytes(content)
        with pytest.raises(MintError, match=rf"clip\.wav: its header gives a rate of {rate} Hz, which no sound has"):
            load_audio(tmp_path / "clip.wav", RATE)


def test_a_folder_and_an_address_are_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(MintError, match=r" is a folder; give the audio files in it$"):
        load_audio(tmp_path, RATE)
    with pytest.raises(MintError, match=r"^https:/+example\.org/a\.wav is an address; download the file and give"):
        load_audio("https://example.org/a.wav", RATE)
