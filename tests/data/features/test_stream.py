"""Features that come one clip after another: those of a plain loop, whatever is decoded ahead, cached or broken."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from mint.data.audio import ahead
from mint.data.audio.decode import load_audio, load_part, load_windows
from mint.data.features import stream
from mint.data.features.cache import FeatureCache
from mint.data.features.encode import encode_batch, encode_samples, fill_cache
from mint.data.features.stored import write_stored
from mint.data.features.stream import ClipFeatures, stream_features
from mint.encoders.tiny import TinyEncoder
from mint.types import Clip, Example, MintError

if TYPE_CHECKING:
    from collections.abc import Iterator

RATE, MAX_SECONDS = 16000, 0.3


@pytest.fixture(autouse=True)
def three_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "read_threads", lambda: 3)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, round(seconds * RATE)).astype(np.float32)


def write_noise(path: Path, seconds: float, seed: int = 0) -> Path:
    soundfile.write(path, noise(seconds, seed), RATE, "FLOAT")
    return path


@pytest.fixture
def sources(tmp_path: Path) -> list[Any]:
    """Clips of every form, short ones and ones of several windows."""
    files = [write_noise(tmp_path / f"{number}.wav", 0.15 + 0.2 * number, number) for number in range(4)]
    part = Example("part", files[3], "noise", "train", "noises", start=0.2, duration=0.5)
    write_stored(tmp_path / "stored.npz", torch.ones(3, 16), TinyEncoder.identity)
    stored = replace(part, audio=tmp_path / "stored.npz", start=0.0, duration=None)
    return [files[0], str(files[3]), part, Clip(noise(0.7, 9), RATE), (noise(0.1, 8), RATE), stored, *files[1:3]]


def plainly(source: Any) -> list[Tensor]:
    """One clip by itself, without threads."""
    if isinstance(source, Example):
        if source.audio.suffix == ".npz":
            return [torch.ones(3, 16)]
        source = (load_audio(source.audio, RATE, source.start, source.duration), RATE)
    return [encode_samples(TinyEncoder(), window) for window in load_windows(source, RATE, MAX_SECONDS)]


def same(clips: list[ClipFeatures], sources: list[Any]) -> bool:
    for clip, source in zip(clips, sources, strict=True):
        assert clip.source is source
        assert clip.error is None
        expected = plainly(source)
        assert len(clip.windows) == len(expected)
        assert all(torch.equal(*pair) for pair in zip(clip.windows, expected, strict=True))
    return True


@pytest.mark.parametrize("device", ["cpu", "meta"], ids=["one by one", "in batches, as for an accelerator"])
def test_features_are_those_of_a_plain_loop(sources: list[Any], device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "device_of", lambda _: torch.device(device))
    monkeypatch.setattr(stream, "SECONDS_AT_ONCE", 1)
    batches: list[int] = []

    def count(encoder: Any, samples: Any) -> list[Tensor]:
        batches.append(len(samples))
        return encode_batch(encoder, samples)

    monkeypatch.setattr(stream, "encode_batch", count)
    assert same(list(stream_features(iter(sources), TinyEncoder(), MAX_SECONDS)), sources)
    assert max(batches) == (1 if device == "cpu" else 4)


def test_a_clip_that_cannot_be_used_is_an_item_in_its_turn(sources: list[Any], tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    bad: list[Any] = [tmp_path / "text.wav", tmp_path / "missing.wav", (np.array([np.nan]), RATE), 3.5]
    mixed = [sources[0], bad[0], sources[1], bad[1], bad[2], sources[3], bad[3]]
    clips = list(stream_features(mixed, TinyEncoder(), MAX_SECONDS))
    assert [clip.source for clip in clips] == mixed
    assert [type(clip.error) for clip in clips if clip.error] == [MintError] * 4
    assert "text.wav: not audio" in str(clips[1].error)
    assert same([clips[0], clips[2], clips[5]], [sources[0], sources[1], sources[3]])


def test_features_that_the_cache_cannot_hold_are_an_error(
    sources: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "encode_batch", lambda _, samples: [torch.full((2, 16), torch.inf) for _ in samples])
    cache = FeatureCache(tmp_path / "cache", TinyEncoder.identity)
    clip, *_ = stream_features([sources[1]], TinyEncoder(), MAX_SECONDS, cache, keep=True)
    assert clip.windows == []
    assert f"{sources[1]}: its features are not finite" in str(clip.error)
    assert list(cache) == []


def test_little_is_read_ahead_and_nothing_is_left_behind(tmp_path: Path) -> None:
    path, taken = write_noise(tmp_path / "a.wav", 1.0), 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield path

    clips = stream_features(endless(), TinyEncoder(), MAX_SECONDS)
    for used in range(1, 9):
        next(clips)
        assert taken <= used + 5
    with pytest.raises(KeyboardInterrupt):
        clips.throw(KeyboardInterrupt)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mint-read")]


def test_the_later_windows_of_a_clip_are_read_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was cut off ends with the last window that there is."""
    path, begun = write_noise(tmp_path / "a.wav", 3.0), []

    def count(path: str | Path, rate: int, start: float, duration: float | None) -> Any:
        begun.append(start)
        return load_part(path, rate, start, duration) if start < 1.5 else None

    encoded = 0

    def encode(_: Any, samples: Any) -> list[Tensor]:
        nonlocal encoded
        encoded += len(samples)
        assert len(begun) <= encoded + 5
        return [torch.ones(2, 16) for _ in samples]

    monkeypatch.setattr(stream, "load_part", count)
    monkeypatch.setattr(stream, "encode_batch", encode)
    [clip] = stream_features([path], TinyEncoder(), MAX_SECONDS)
    assert len(clip.windows) == encoded == 5
    assert begun == pytest.approx([0.3 * number for number in range(1, 10)])


def test_what_is_cached_is_neither_decoded_nor_encoded(
    sources: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FeatureCache(tmp_path / "cache", TinyEncoder.identity)
    files = [source for source in sources if isinstance(source, str | Path | Example)]
    assert same(list(stream_features(files, TinyEncoder(), MAX_SECONDS, cache)), files)
    assert list(cache) == []  # it is looked up, and left as it is
    assert same(list(stream_features(sources, TinyEncoder(), MAX_SECONDS, cache, keep=True)), sources)

    # The keys are those of training and evaluation.
    examples = [one for one in files if isinstance(one, Example)]
    examples += [
        Example(str(one), Path(one), "noise", "train", "noises") for one in files if not isinstance(one, Example)
    ]
    filled = fill_cache(cache, TinyEncoder(), examples, MAX_SECONDS)
    assert filled.encoded == 1  # the file of features, which costs nothing to read

    monkeypatch.setattr(stream, "load_parts", lambda *_: pytest.fail("a file is decoded"))
    monkeypatch.setattr(stream, "encode_batch", lambda *_: pytest.fail("the encoder computes"))
    again = FeatureCache(tmp_path / "cache", TinyEncoder.identity)
    assert same(list(stream_features(files, TinyEncoder(), MAX_SECONDS, again)), files)


def test_what_was_computed_is_kept_where_the_consumer_stops(sources: list[Any], tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache", TinyEncoder.identity)
    clips = stream_features(sources, TinyEncoder(), MAX_SECONDS, cache, keep=True)
    next(clips)
    clips.close()
    assert len(list(cache)) == 1
