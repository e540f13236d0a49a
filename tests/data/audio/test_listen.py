"""What is wrong with how a clip sounds is found, and nothing is found in sound that is as it should be."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mint.data.audio.listen import Heard, listen
from mint.types import MintError
from tiny_video import encoded

RATE = 16000
TIME = np.arange(2 * RATE) / RATE
TONE = 0.5 * np.sin(2 * np.pi * 440 * TIME)
NOISE = np.random.default_rng(0).normal(size=len(TIME))


def heard(path: Path, samples: np.ndarray, **options: Any) -> Heard:
    """What is heard of samples, [S] or [S, channels], in a file of this name."""
    options = options or ({"subtype": "FLOAT"} if path.suffix == ".wav" else {})
    soundfile.write(path, samples, RATE, **options)
    return listen(path)


def stereo(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.stack([left, right], axis=1)


def square(level: float) -> np.ndarray:
    return level * np.sign(np.sin(2 * np.pi * 100 * TIME + 0.01))


SOUND: dict[str, np.ndarray] = {
    "a tone": TONE,
    "a tone at full scale": np.sin(2 * np.pi * 440 * TIME),
    "a low tone at full scale": np.sin(2 * np.pi * 25 * TIME),
    "noise": 0.2 * NOISE,
    "noise above full scale": 0.45 * NOISE,
    "quiet noise": 0.001 * NOISE,
    "a click in silence": np.where(np.arange(len(TIME)) == 5000, 0.9, 0.0),
    "a loud master": np.clip(0.45 * NOISE, -1, 1),
    "a wide picture": stereo(0.2 * NOISE, 0.2 * NOISE[::-1]),
    "one channel alone": stereo(TONE, 0 * TONE),
    "two equal channels": stereo(TONE, TONE),
    "a quarter turn": stereo(TONE, 0.5 * np.cos(2 * np.pi * 440 * TIME)),
    "many channels": 0.2 * np.random.default_rng(1).normal(size=(len(TIME), 8)),
    "a small offset": TONE + 0.02,
    "a quiet square wave": square(0.3),
    "a fade": TONE * np.linspace(0, 1, len(TIME)),
}


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
@pytest.mark.parametrize("name", SOUND)
def test_nothing_is_found_in_sound(tmp_path: Path, name: str, suffix: str) -> None:
    samples = SOUND[name]
    if suffix == ".mp3" and samples.ndim == 2 and samples.shape[1] > 2:
        samples = samples[:, :2]
    assert heard(tmp_path / f"clip{suffix}", samples).findings == ()


FAULTS: list[tuple[str, np.ndarray, str]] = [
    ("digital silence", 0 * TONE, "it is silent"),
    ("dither", 3e-5 * NOISE.clip(-2, 2), "it is silent"),
    ("silence in two channels", stereo(0 * TONE, 0 * TONE), "it is silent"),
    ("one channel inverted", stereo(TONE, -TONE), "its channels cancel each other"),
    ("noise inverted", stereo(0.2 * NOISE, -0.2 * NOISE), "its channels cancel each other"),
    ("nearly inverted", stereo(0.2 * NOISE, -0.19 * NOISE), "its channels cancel each other"),
    ("two of four inverted", np.stack([TONE, -TONE, NOISE / 9, -NOISE / 9], 1), "its channels cancel each other"),
    ("clipped at full scale", np.clip(3 * TONE, -1, 1), "it is clipped: 5[0-9] % of its samples"),
    ("clipped noise", np.clip(0.6 * NOISE, -1, 1), "it is clipped: (9|10) % of its samples"),
    ("clipped and turned down", 0.7 * np.clip(3 * TONE, -1, 1), r"extremes \(-0\.7 and 0\.7\)"),
    ("an offset", TONE * 0.4 + 0.1, r"a mean of 0\.10 \(a DC offset\)"),
    ("an offset below", TONE * 0.4 - 0.3, r"a mean of -0\.30 \(a DC offset\)"),
]


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize(("name", "samples", "message"), FAULTS, ids=[name for name, *_ in FAULTS])
def test_each_fault_is_found_alone(tmp_path: Path, name: str, samples: np.ndarray, message: str, suffix: str) -> None:
    (finding,) = heard(tmp_path / f"clip{suffix}", samples).findings
    assert re.search(message, finding)
    assert ";" in finding  # the cure


@pytest.mark.parametrize(
    ("samples", "peak"),
    [
        ((TONE * 26200).astype(np.int16).astype(float), "13100"),
        (TONE * 127, "63.5"),
        (np.where(np.arange(len(TIME)) == 5000, 1e30, TONE), r"1e+30"),
        (np.where(np.arange(len(TIME)) == 5000, -1e30, TONE), r"1e+30"),
    ],
)
def test_samples_far_above_full_scale(tmp_path: Path, samples: np.ndarray, peak: str) -> None:
    findings = heard(tmp_path / "clip.wav", samples).findings
    assert findings[0].startswith(f"its samples reach {peak}, where 1 is full scale; divide")
    assert len(findings) == 1


def test_two_faults_are_two_findings(tmp_path: Path) -> None:
    assert [finding[:20] for finding in heard(tmp_path / "clip.wav", 0 * TONE + 0.25).findings] == [
        "it is silent; fetch ",
        "its samples have a m",
    ]


def test_a_part_is_judged_by_itself(tmp_path: Path) -> None:
    """A clip that lies in the silence of a longer file is silent; windows of a long file are judged together."""
    samples = np.concatenate([0 * TONE, TONE, np.clip(9 * TONE, -1, 1)])
    path = tmp_path / "clip.wav"
    soundfile.write(path, samples, RATE)
    assert [len(listen(path, start, 2.0).findings) for start in (0.0, 2.0, 4.0)] == [1, 0, 1]
    long = np.concatenate([np.zeros(40 * 1000), 0.3 * NOISE[: 5 * 1000]])
    soundfile.write(path, long, 1000)
    assert listen(path).findings == ()
    soundfile.write(path, np.zeros(200 * 1000), 1000)
    assert len(listen(path).findings) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(tmp_path: Path, value: float) -> None:
    samples = TONE.copy()
    samples[-1] = value
    with pytest.raises(MintError, match="NaN or infinite"):
        heard(tmp_path / "clip.wav", samples)


@pytest.mark.parametrize("container", ["WAV", "AIFF", "AU", "WAVEX"])
@pytest.mark.parametrize("share", [0.2, 0.9])
def test_a_file_that_was_cut_off(tmp_path: Path, container: str, share: float) -> None:
    path = tmp_path / "clip.wav"
    whole = heard(path, TONE, format=container)
    assert (whole.end, whole.promised, whole.findings) == (2.0, 2.0, ())
    path.write_bytes(path.read_bytes()[: round(share * path.stat().st_size)])
    cut = listen(path)
    assert cut.promised == pytest.approx(2.0, abs=2e-3)
    assert cut.end == pytest.approx(2.0 * share, abs=0.01)


def test_a_header_that_counts_less_than_there_is(tmp_path: Path) -> None:
    """As a recorder leaves it that crashed."""
    path = tmp_path / "clip.wav"
    soundfile.write(path, 0.1 * NOISE, RATE)
    content = bytearray(path.read_bytes())
    content[40:44] = (RATE).to_bytes(4, "little")
    path.write_bytes(content)
    assert listen(path).end == 0.5
    assert listen(path).findings[0].startswith("its header says 0.50 s, but 48000 bytes follow, and are not read; mend")


@pytest.mark.parametrize("end", [b"LIST" + (4).to_bytes(4, "little") + b"INFO", b"TAG" + bytes(125), bytes(9000)])
@pytest.mark.parametrize("count", [2 * RATE, 2 * RATE - 1])
def test_what_follows_the_sound_is_no_fault(tmp_path: Path, count: int, end: bytes) -> None:
    """A chunk of text, a tag of MP3s, padding; also where the sound has an odd number of bytes, padded or not."""
    buffer = io.BytesIO()
    soundfile.write(buffer, TONE[:count], RATE, "PCM_U8", format="WAV")
    for content in {buffer.getvalue(), buffer.getvalue()[: 44 + count]}:
        (tmp_path / "clip.wav").write_bytes(content + end)
        assert listen(tmp_path / "clip.wav").findings == ()


@pytest.mark.parametrize("container", ["FLAC", "AU", "CAF", "W64", "m4a", "webm"])
def test_what_goes_on_after_its_first_stream(tmp_path: Path, container: str) -> None:
    """Formats whose decoders stop there: what is not read is named."""
    path = tmp_path / "clip.bin"
    if container in ("m4a", "webm"):
        path.write_bytes(encoded(container, TONE[None], RATE))
    else:
        soundfile.write(path, 0.1 * NOISE, RATE, format=container)
    assert listen(path).findings == ()
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() * 2)
    (finding,) = listen(path).findings
    assert finding.startswith(f"it goes on after its first stream: another one begins at byte {size}, and is not read;")


@pytest.mark.parametrize("container", ["WAV", "AIFF", "MP3", "OGG"])
def test_joined_files_that_are_read_to_the_end(tmp_path: Path, container: str) -> None:
    path = tmp_path / "clip.bin"
    soundfile.write(path, 0.1 * NOISE, RATE, format=container)
    path.write_bytes(path.read_bytes() * 2)
    assert listen(path).end == pytest.approx(4.0, abs=0.01)
    assert listen(path).findings == ()
