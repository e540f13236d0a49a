"""How fast does audio become samples?

Decoding to mono at 16 kHz, whole files and 10 s out of 4 minutes, in every format, in seconds of audio a second and
core; against librosa in the same run where it is installed (`pip install librosa`; nothing here needs it), first call
included. 10 s out of 4 minutes should cost what a file of 10 s costs: that is measured beside it.

    python benchmarks/audio.py
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from common import Row, alternate, compare, parser, report
from mint.data.audio.decode import load_audio

RATE, STEREO_RATE = 16000, 48000
FORMATS = {
    "wav": {"format": "WAV", "subtype": "PCM_16"},
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
    "mp3": {"format": "MP3"},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
}
OURS, THEIRS = "mint", "librosa"
FIRST = {
    OURS: f"import sys; from mint.data.audio.decode import load_audio; load_audio(sys.argv[1], {RATE})",
    THEIRS: f"import sys; import librosa; librosa.load(sys.argv[1], sr={RATE}, mono=True)",
}
TOLERANCE = 1e-3


def main() -> None:
    options = parser(__doc__.splitlines()[0]).parse_args()
    long, start, part = (6.0, 3.0, 1.0) if options.quick else (240.0, 120.0, 10.0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows: list[Row] = []
        for name in FORMATS:
            whole = write(folder / f"whole.{name}", 2.0 if options.quick else 30.0)
            file, short = write(folder / f"long.{name}", long), write(folder / f"short.{name}", part)
            rows += measure_decoding(name, whole, soundfile.info(whole).duration, (0.0, None), options)
            case = f"{name}, {part:g} s of {long:g} s"
            rows += measure_decoding(case, file, part, (start, part), options)
            calls = {
                "part": partial(load_audio, file, RATE, start, part),
                f"a file of {part:g} s": partial(load_audio, short, RATE),
            }
            aims = {} if options.quick else {f"a file of {part:g} s": 1.0}
            rows += compare(case, "decoding", alternate(calls, options.rounds), aims)
        rows += measure_first(folder / "whole.flac")
    report("audio", rows, options)


def write(path: Path, seconds: float) -> Path:
    """A stereo file of noise with a slow melody; written in blocks, as libsndfile wants for Vorbis."""
    generator = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", STEREO_RATE, 2, **FORMATS[path.suffix[1:]]) as file:
        for second in range(round(seconds)):
            times = second + np.arange(STEREO_RATE) / STEREO_RATE
            tone = 0.3 * np.sin(2 * np.pi * 110 * (1 + second % 8) * times)
            file.write(tone[:, None] + 0.02 * generator.standard_normal((STEREO_RATE, 2)))
    return path


def loader(name: str) -> Callable[[Path, float, float | None], Any]:
    """How a package loads (path, start, duration); imports it if need be."""
    if name == OURS:
        return lambda path, start, duration: load_audio(path, RATE, start, duration)
    librosa: Any = importlib.import_module("librosa")
    return lambda path, start, duration: librosa.load(path, sr=RATE, mono=True, offset=start, duration=duration)[0]


def measure_decoding(
    case: str, path: Path, seconds: float, part: tuple[float, float | None], options: argparse.Namespace
) -> list[Row]:
    """Seconds of audio a second, of our loader and of librosa if it is there."""
    names = [OURS, *([THEIRS] if importlib.util.find_spec(THEIRS) else [])]
    loaders = {name: loader(name) for name in names}
    samples = [load(path, *part) for load in loaders.values()]
    for other in samples[1:]:
        shared = min(len(samples[0]), len(other))
        difference = float(np.abs(samples[0][:shared] - other[:shared]).max())
        if abs(len(samples[0]) - len(other)) > 1 or not difference <= TOLERANCE:
            raise SystemExit(f"{case}: samples differ from librosa's by {difference}")
    rounds = alternate({name: partial(load, path, *part) for name, load in loaders.items()}, options.rounds)
    ours, *theirs = (seconds / statistics.median(values) for values in rounds.values())
    row = Row(case, "decoding", "s of audio/s", ours, more_is_better=True, rounds=tuple(rounds.values()))
    return [dataclasses.replace(row, peer=THEIRS, theirs=speed, aim=1.0) for speed in theirs] or [row]


def measure_first(path: Path) -> list[Row]:
    """The first file in a new process; what a package imports counts, what Python itself takes does not."""
    names = [OURS, *([THEIRS] if importlib.util.find_spec(THEIRS) else [])]
    seconds = []
    for name in names:
        code = f"import time; start = time.perf_counter(); {FIRST[name]}; print(time.perf_counter() - start)"
        command = [sys.executable, "-c", code, str(path)]
        seconds.append(float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))
    row = Row("flac", "first call in a new process", "s", seconds[0])
    return [dataclasses.replace(row, peer=THEIRS, theirs=other, aim=1.0) for other in seconds[1:]] or [row]


if __name__ == "__main__":
    main()
