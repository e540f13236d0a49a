"""How fast does audio become samples, and what does the feature cache save?

Decoding to mono at 16 kHz, whole files and 10 s out of 4 minutes, in every format, in seconds of audio a second;
against librosa in the same run where it is installed (`pip install librosa`; nothing here needs it), first call
included. Then an epoch of clips of the quickstart's length read from the cache, against decoding and encoding them.

    python benchmarks/audio.py
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import json
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from common import Row, alternate, compare, in_child, parser, report, stopwatch
from inference import write_clips
from mint.builders import build_encoder
from mint.config import EncoderConfig
from mint.data.audio import load_audio
from mint.data.cache import FeatureCache, clip_key, encode_batch, fill_cache
from mint.types import Example

RATE, STEREO_RATE = 16000, 48000
FORMATS = {
    "wav": {"format": "WAV", "subtype": "PCM_16"},
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
    "mp3": {"format": "MP3"},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
}
OURS, THEIRS = "mint", "librosa"
TOLERANCE = 1e-3
CLIP_SECONDS, CLIPS_AT_ONCE = 4.0, 15
"""As the quickstart: clips of 4 s, encoded a minute at a time."""


def main() -> None:
    options = read_options()
    if options.first is not None:
        print(json.dumps(stopwatch(lambda: loader(options.first)(options.file, 0.0, None))))
        return
    long, start, part = (6.0, 3.0, 1.0) if options.quick else (240.0, 120.0, 10.0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows: list[Row] = []
        for name in FORMATS:
            whole = write(folder / f"whole.{name}", 2.0 if options.quick else 30.0)
            file = write(folder / f"long.{name}", long)
            rows += measure_decoding(name, whole, soundfile.info(whole).duration, (0.0, None), options)
            rows += measure_decoding(f"{name}, {part:g} s of {long:g} s", file, part, (start, part), options)
        rows += measure_first(folder / "whole.flac")
        rows += measure_epoch(folder, options)
    report("audio", rows, options)


def read_options() -> argparse.Namespace:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--first", choices=(OURS, THEIRS), help=argparse.SUPPRESS)
    options.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    return options.parse_args()


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
    """The first file in a new process; what the package imports when it is first used counts."""
    names = [OURS, *([THEIRS] if importlib.util.find_spec(THEIRS) else [])]
    seconds = [in_child("audio.py", ["--first", name, "--file", str(path)]) for name in names]
    row = Row("flac", "first call in a new process", "s", seconds[0])
    return [dataclasses.replace(row, peer=THEIRS, theirs=other, aim=1.0) for other in seconds[1:]] or [row]


def measure_epoch(folder: Path, options: argparse.Namespace) -> list[Row]:
    """An epoch from the cache against decoding and encoding it, the same features."""
    encoder = build_encoder(EncoderConfig(family="tiny") if options.quick else EncoderConfig())
    paths = write_clips(folder, STEREO_RATE, CLIP_SECONDS, 4 if options.quick else 60)
    examples = [
        Example(id=path.stem, audio=path, task="labels", split="train", corpus="tones", captions=("A tone.",))
        for path in paths
    ]
    cache = FeatureCache(folder / "features", encoder.identity)
    fill_cache(cache, encoder, examples, 30.0)
    keys = [clip_key(example) for example in examples]

    def cached() -> list[torch.Tensor]:
        return [cache.read_window(key, 0) for key in keys]

    def encoded() -> list[torch.Tensor]:
        features = []
        for first in range(0, len(paths), CLIPS_AT_ONCE):
            samples = [load_audio(path, encoder.sample_rate) for path in paths[first : first + CLIPS_AT_ONCE]]
            features += encode_batch(encoder, samples)
        return features

    if not all(torch.allclose(a, b, atol=1e-2) for a, b in zip(cached(), encoded(), strict=True)):
        raise SystemExit("features from the cache are not those encoded on the fly")
    seconds = alternate({"cache": cached, "decoding and encoding": encoded}, options.rounds)
    aims = {} if options.quick else {"decoding and encoding": 10.0}
    return compare(f"{len(paths)} clips of {CLIP_SECONDS:g} s", "features of an epoch", seconds, aims)


if __name__ == "__main__":
    main()
