"""The feature cache: the same tensor on every way, and nothing lost or half written."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import struct
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mint.assets import cache_folder
from mint.builders.encoder import build_encoder
from mint.config import EncoderConfig
from mint.data.audio.decode import load_audio, load_windows
from mint.data.features import cache as cache_module
from mint.data.features import encode as encode_module
from mint.data.features.cache import FeatureCache, clip_key, part_key, part_keys
from mint.data.features.encode import decode, encode_batch, encode_samples, fill_cache
from mint.data.features.prepare import Features, open_cache, prepare_features, read_examples
from mint.data.features.upkeep import Verified, prune_cache, verify_cache
from mint.data.id_tables import as_ids
from mint.encoders.tiny import TinyEncoder
from mint.files import writing
from mint.types import Example, MintError

RATE = 16000


def write_clip(path: Path, seconds: float = 0.3, seed: int = 0) -> Example:
    """Noise in a file."""
    soundfile.write(path, np.random.default_rng(seed).uniform(-1, 1, round(seconds * RATE)), RATE, "FLOAT")
    return Example(id=path.stem, audio=path, task="noise", split="train", corpus="noises")


@pytest.fixture
def clips(tmp_path: Path) -> list[Example]:
    return [write_clip(tmp_path / f"{number}.wav", 0.2 + 0.1 * number, seed=number) for number in range(3)]


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "features", TinyEncoder.identity)


def fill(cache: FeatureCache, clips: list[Example], max_seconds: float = 30.0) -> Any:
    return fill_cache(cache, TinyEncoder(), clips, max_seconds)


def again(cache: FeatureCache) -> FeatureCache:
    """The same cache as another process would open it."""
    return FeatureCache(cache.folder.parent, TinyEncoder.identity)


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_a_miss_a_hit_and_no_cache_give_the_same(cache: FeatureCache, clips: list[Example]) -> None:
    missed = fill(cache, clips)
    assert (missed.encoded, list(missed.files)) == (3, [str(clip.audio) for clip in clips])
    hit = fill(again(cache), clips)
    assert (hit.encoded, hit.files) == (0, missed.files)
    for clip in clips:
        direct = [encode_samples(TinyEncoder(), load_audio(clip.audio, RATE))]
        assert equal(cache.read(clip_key(clip)), direct)
        assert equal(again(cache).read(clip_key(clip)), direct)
        assert direct[0].dtype == torch.float32


def test_windows_of_a_long_clip(cache: FeatureCache, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "long.wav", seconds=1.0)
    fill(cache, [clip], max_seconds=0.3)
    key = clip_key(clip)
    heard = [encode_samples(TinyEncoder(), window) for window in load_windows(clip.audio, RATE, 0.3)]
    assert len(heard) == 4
    assert equal(again(cache).read(key), heard)
    assert all(torch.equal(cache.read_window(key, number), heard[number % 4]) for number in range(9))


@pytest.mark.parametrize(
    ("start", "duration", "samples", "windows"),
    [(0.25, None, 0.75, 3), (0.5, 0.2, 0.2, 1), (0.5, 9.0, 0.5, 2), (0.9, 9.0, 0.1, 1), (0.0, 1.0, 1.0, 4)],
)
def test_part_of_a_file(tmp_path: Path, start: float, duration: float | None, samples: float, windows: int) -> None:
    clip = replace(write_clip(tmp_path / "long.wav", seconds=1.0), start=start, duration=duration)
    whole = load_audio(clip.audio, RATE)[round(start * RATE) :][: round(samples * RATE)]
    parts = list(load_windows((whole, RATE), RATE, 0.3))
    assert len(parts) == windows
    found = decode(clip, TinyEncoder().sample_rate, 0.3)
    assert all((ours == part).all() for ours, part in zip(found, parts, strict=True))
    assert equal(encode_batch(TinyEncoder(), found), [encode_samples(TinyEncoder(), part) for part in parts])


def test_parts_of_one_file_are_different_clips(cache: FeatureCache, clips: list[Example]) -> None:
    parts = [replace(clips[0], id=str(start), start=start, duration=0.1) for start in (0.0, 0.1)]
    assert fill(cache, [clips[0], *parts]).encoded == 3
    assert clip_key(clips[0]) == clip_key(replace(clips[0], id="other", audio=clips[0].audio.absolute()))


def test_parts_below_a_millisecond_are_different_clips(cache: FeatureCache, clips: list[Example]) -> None:
    parts = [replace(clips[0], id=str(start), start=start, duration=0.1) for start in (0.0501, 0.0504)]
    assert fill(cache, parts).encoded == 2
    expected = [encode_samples(TinyEncoder(), load_audio(part.audio, RATE, part.start, 0.1)) for part in parts]
    assert not torch.allclose(expected[0], expected[1], atol=0.1)
    for part, features in zip(parts, expected, strict=True):  # encoded alone: but for the last digit of float16
        torch.testing.assert_close(cache.read(clip_key(part))[0], features, rtol=1e-3, atol=1e-5)


times = st.floats(0, 1e6) | st.integers(0, 10**7).map(lambda number: number / 1000) | st.integers(0, 30)
durations = st.none() | times.filter(bool)


@settings(deadline=None, max_examples=50)
@given(times, times, durations, durations, st.binary(min_size=16, max_size=16))
def test_keys_are_those_of_one_part(
    start: float, other: float, duration: float | None, length: float | None, whole: bytes
) -> None:
    first, second = part_key(whole, start, duration), part_key(whole, other, length)
    assert (first == second) == ((start, duration) == (other, length))
    assert (first == whole) == (not start and duration is None)
    assert len(first) == 16


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(times, durations, st.binary(min_size=16, max_size=16)), max_size=20))
def test_keys_of_many_parts_are_those_of_each(parts: list[tuple[float, float | None, bytes]]) -> None:
    starts = np.array([start for start, _, _ in parts], float)
    lengths = np.array([np.nan if duration is None else duration for _, duration, _ in parts], float)
    keys = part_keys(as_ids(b"".join(whole for _, _, whole in parts)), starts, lengths)
    assert keys.tobytes() == b"".join(part_key(whole, start, duration) for start, duration, whole in parts)


def test_parts_at_round_times_differ_in_the_first_half_of_their_keys() -> None:
    """Tables are searched by it alone."""
    whole = bytes(16)
    keys = {part_key(whole, start / 4, length / 4)[:8] for start in range(200) for length in range(1, 200)}
    assert len(keys) == 200 * 199
    bits = np.frombuffer(b"".join(keys), np.uint64)
    set_bits = [int(((bits >> np.uint64(bit)) & np.uint64(1)).sum()) for bit in range(64)]
    assert all(0.48 < count / len(keys) < 0.52 for count in set_bits)


def test_a_start_of_minus_zero_is_the_beginning() -> None:
    assert part_key(b"x" * 16, -0.0, None) == b"x" * 16
    assert part_keys(as_ids(b"x" * 16), np.array([-0.0]), np.array([np.nan])).tobytes() == b"x" * 16


def test_a_changed_file_is_a_miss(cache: FeatureCache, clips: list[Example]) -> None:
    fill(cache, clips)
    before = clip_key(clips[0])
    write_clip(clips[0].audio, 0.2, seed=9)
    os.utime(clips[0].audio, (1, 1))
    assert fill(cache, clips).encoded == 1
    assert clip_key(clips[0]) != before
    expected = encode_samples(TinyEncoder(), load_audio(clips[0].audio, RATE))
    assert equal(cache.read(clip_key(clips[0])), [expected])


def test_the_same_bytes_elsewhere_are_a_hit(cache: FeatureCache, clips: list[Example], tmp_path: Path) -> None:
    fill(cache, clips)
    copy = clips[0].audio.rename(tmp_path / "moved.wav")
    assert fill(cache, [replace(clips[0], audio=copy)]).encoded == 0


def test_another_encoder_or_window_is_a_miss(clips: list[Example], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    encoder = TinyEncoder()
    assert prepare_features(encoder, clips).encoded == 3
    assert prepare_features(encoder, clips).encoded == 0
    assert prepare_features(encoder, clips, max_seconds=10).encoded == 3
    encoder.identity = "tiny, of another make"
    features = prepare_features(encoder, clips)
    assert features.encoded == 3
    assert features.cache.folder.is_relative_to(cache_folder())


def test_bad_clips_are_skipped_and_named(cache: FeatureCache, clips: list[Example], tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not audio")
    bad = [replace(clips[0], id="text", audio=tmp_path / "text.wav"), replace(clips[0], id="no", audio=tmp_path / "no")]
    late = replace(clips[0], id="late", start=5.0)
    filled = fill(cache, [bad[0], clips[0], bad[1], late, clips[1]])
    assert list(filled.files) == [str(clip.audio) for clip in clips[:2]]
    assert [one.id for one in filled.skipped] == ["text", "no", "late"]
    assert "no: No such file or directory" in filled.skipped[1].reason
    assert "past the end" in filled.skipped[2].reason


def test_an_mp3_that_was_cut_off_is_used_as_far_as_it_goes(cache: FeatureCache, tmp_path: Path) -> None:
    """Whether it is one window or several; a part beyond the cut is skipped."""
    path = tmp_path / "cut.mp3"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 4 * RATE), RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    clip = Example(id="cut", audio=path, task="noise", split="train", corpus="noises")
    late = replace(clip, id="late", start=3.0)
    for max_seconds, count in ((30.0, 1), (0.5, 4)):
        places = FeatureCache(cache.root, f"windows of {max_seconds}")
        filled = fill(places, [clip, late], max_seconds)
        assert (filled.encoded, [one.id for one in filled.skipped]) == (1, ["late"])
        assert "it ends before 3.00 s, although its header says otherwise" in filled.skipped[0].reason
        heard = [encode_samples(TinyEncoder(), window) for window in load_windows(path, RATE, max_seconds)]
        assert len(heard) == count
        assert equal(places.read(clip_key(clip)), heard)


class WideEncoder(TinyEncoder):
    """Clips that reach 0.9 have features that float16 does not hold."""

    def encode(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        features, mask = super().encode(waveform, lengths)
        loud = waveform.abs().amax(dim=1) >= 0.9
        return features * torch.where(loud, 1e5, 6e4)[:, None, None], mask


def write_level(path: Path, level: float) -> Example:
    soundfile.write(path, np.full(3200, level), RATE, "FLOAT")
    return Example(id=path.stem, audio=path, task="noise", split="train", corpus="levels")


@pytest.mark.parametrize("seconds", [0, 60])
def test_features_that_overflow_are_skipped(
    cache: FeatureCache, tmp_path: Path, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each example of such a clip, in one batch or in several; the others of the batch are kept."""
    monkeypatch.setattr(encode_module, "SECONDS_AT_ONCE", seconds)
    quiet, loud = write_level(tmp_path / "quiet.wav", 0.5), write_level(tmp_path / "loud.wav", 1.0)
    clips = [loud, quiet, replace(loud, id="again"), replace(quiet, id="too")]
    for encoded in (1, 0):
        filled = fill_cache(cache, WideEncoder(), clips, 30.0)
        assert (filled.encoded, [one.id for one in filled.skipped]) == (encoded, ["loud", "again"])
        assert filled.skipped[0].reason.startswith(f"{loud.audio}: its features are not finite in torch.float16")
    assert list(again(cache)) == [clip_key(quiet)]
    assert equal(cache.read(clip_key(quiet)), [encode_samples(WideEncoder(), load_audio(quiet.audio, RATE))])
    assert cache.read(clip_key(quiet))[0].max() > 1e4
    features = Features(cache, filled.files, filled.skipped)
    assert list(features.usable(clips)) == [quiet, clips[3]]
    with pytest.raises(MintError, match=r"its features are not finite in torch\.float16"):
        encode_samples(WideEncoder(), load_audio(loud.audio, RATE))


def test_bfloat16(tmp_path: Path, clips: list[Example], monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, of the same clips, where nothing overflows; verified and pruned as any other."""
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    encoder = WideEncoder()
    encoder.cache_dtype = torch.bfloat16
    encoder.identity += " in bfloat16"
    loud = write_level(tmp_path / "loud.wav", 1.0)
    for encoded in (4, 0):
        features = prepare_features(encoder, [*clips, loud])
        assert (features.encoded, features.skipped) == (encoded, [])
        for clip in (*clips, loud):
            direct = encode_samples(encoder, load_audio(clip.audio, RATE))
            assert equal(features.windows(clip), [direct])
            assert torch.equal(direct, direct.bfloat16().float())
    assert features.windows(loud)[0].max() > 65504
    assert verify_cache(features.cache, encoder, [*clips, loud], 30.0) == Verified(shards=1, clips=4, checked=4)
    assert prune_cache(features.cache, [loud]).kept == 1
    assert equal(features.windows(loud), [encode_samples(encoder, load_audio(loud.audio, RATE))])


def test_the_precision_of_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    plain, other = (build_encoder(EncoderConfig(family="tiny", cache_dtype=name)) for name in ("float16", "bfloat16"))
    assert (plain.cache_dtype, other.cache_dtype) == (torch.float16, torch.bfloat16)
    assert open_cache(other, 30.0).folder.name != open_cache(plain, 30.0).folder.name
    assert (open_cache(plain, 30.0).dtype, open_cache(other, 30.0).dtype) == (torch.float16, torch.bfloat16)


def test_memory_is_bounded_where_clips_are_long(
    cache: FeatureCache, clips: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_module, "SECONDS_AT_ONCE", 0)
    monkeypatch.setattr(encode_module, "NUMBERS_PER_SHARD", 100)
    fill(cache, clips)
    assert len(list(cache.folder.glob("*.safetensors"))) == 3
    assert fill(again(cache), clips).encoded == 0


def test_a_damaged_shard_is_set_aside(
    cache: FeatureCache, clips: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_module, "SECONDS_AT_ONCE", 0)
    monkeypatch.setattr(encode_module, "CLIPS_PER_SHARD", 1)
    fill(cache, clips)
    whole = {key: cache.read(key) for key in map(clip_key, clips)}
    shards = sorted(cache.folder.glob("*.safetensors"))
    for shard, data in ((shards[0], shards[0].read_bytes()[:-1]), (shards[1], b"")):
        shard.unlink()  # what is mapped into memory is not to shrink
        shard.write_bytes(data)
    opened = again(cache)
    assert sorted(cache.folder.glob("*.damaged")) == [shard.with_suffix(".damaged") for shard in shards[:2]]
    assert sum(key in opened for key in whole) == 1
    assert fill(opened, clips).encoded == 2
    assert all(equal(opened.read(key), windows) for key, windows in whole.items())


def test_a_full_disk(cache: FeatureCache, clips: list[Example], monkeypatch: pytest.MonkeyPatch) -> None:
    fill(cache, clips[:1])

    def no_space(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "write_whole", no_space)
        with pytest.raises(MintError, match=r"cannot write features to .*: No space left .*; free some space, or set"):
            fill(cache, clips)
    assert len(cache.read(clip_key(clips[0]))) == 1
    assert fill(again(cache), clips).encoded == 2


def test_a_limit_of_the_system_on_the_size_of_files(cache: FeatureCache, clips: list[Example]) -> None:
    """The error that the library itself raises where the system refuses to write."""
    resource = pytest.importorskip("resource", reason="limits of POSIX")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        with pytest.raises(MintError, match="cannot write features to"):
            fill(cache, clips)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert half_written(cache) == []
    assert fill(cache, clips).encoded == 3


def test_a_cache_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "features").write_text("")
    with pytest.raises(MintError, match=r"cannot keep features in .*; set MINT_CACHE"):
        FeatureCache(tmp_path / "features", "tiny")


def test_the_encoder_is_named_in_the_folder(cache: FeatureCache) -> None:
    """Written once, as a whole."""
    path = cache.folder / "encoder.txt"
    before = path.stat()
    again(cache)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    for content in (b"", b"\xff", b"tiny"):
        path.write_bytes(content)
        again(cache)
        assert path.read_text() == TinyEncoder.identity + "\n"
    assert list(cache.folder.iterdir()) == [path]


def test_half_written_shards_of_killed_writers_are_removed_at_the_next_start(
    cache: FeatureCache, clips: list[Example]
) -> None:
    context = multiprocessing.get_context("fork")
    writer = context.Process(target=die_while_writing, args=(cache.folder / "0.safetensors",))
    writer.start()
    writer.join()
    assert len(half_written(cache)) == 1
    assert fill(again(cache), clips).encoded == 3
    assert half_written(cache) == []


def die_while_writing(path: Path) -> None:
    with writing(path) as file:
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def half_written(cache: FeatureCache) -> list[Path]:
    return list(cache.folder.glob(".*.tmp"))


def write_for_ever(root: Path, clips: list[Example], together: Any) -> None:
    """Write ever new clips, a shard each, once the other writer begins too."""
    torch.set_num_threads(1)  # a forked process would wait for threads that were not forked with it
    cache = FeatureCache(root, TinyEncoder.identity)
    windows = [encode_samples(TinyEncoder(), load_audio(clips[0].audio, RATE))] * 50
    together.wait()
    for number in range(1_000_000):
        cache.write({struct.pack("<2q", os.getpid(), number): windows})


def test_writers_at_once_that_are_killed(cache: FeatureCache, clips: list[Example]) -> None:
    context = multiprocessing.get_context("fork")
    arguments = cache.folder.parent, clips, context.Barrier(2)
    writers = [context.Process(target=write_for_ever, args=arguments) for _ in range(2)]
    for writer in writers:
        writer.start()
    while len(list(cache.folder.glob("*.safetensors"))) < 40:
        assert all(writer.is_alive() for writer in writers)
        time.sleep(0.01)
    for writer in writers:
        writer.kill()
        writer.join()
    opened = again(cache)
    assert not list(cache.folder.glob("*.damaged"))
    expected = encode_samples(TinyEncoder(), load_audio(clips[0].audio, RATE))
    shards = len(list(cache.folder.glob("*.safetensors")))
    keys = list(opened)
    assert len(keys) == shards
    assert len({key[:8] for key in keys}) == 2
    assert all(torch.equal(window, expected) for key in keys for window in opened.read(key))


def test_features_of_examples(tmp_path: Path, clips: list[Example], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    long = write_clip(tmp_path / "long.wav", 1.0)
    missing = replace(clips[0], id="missing", audio=tmp_path / "missing.wav")
    features = prepare_features(TinyEncoder(), [*clips, long, missing], max_seconds=0.6)
    assert [features.has(example) for example in (clips[0], long, missing)] == [True, True, False]
    assert [one.id for one in features.skipped] == ["missing"]
    first, second = features.windows(long)
    assert torch.equal(features.draw(long, 7), second)
    torch.testing.assert_close(features.mean(long), torch.cat([first, second]).mean(dim=0))


def test_no_manifests() -> None:
    with pytest.raises(MintError, match=r"data.manifests is empty; name at least one"):
        read_examples([])
