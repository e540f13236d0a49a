"""Verifying and pruning the feature cache, ranks that share the work, and a process that is killed at any moment."""

from __future__ import annotations

import multiprocessing
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from mint.cli import main
from mint.config import load_recipe
from mint.data.audio.decode import load_audio
from mint.data.features import cache as cache_module
from mint.data.features import encode as encode_module
from mint.data.features import file_digests as digests_module
from mint.data.features import upkeep as upkeep_module
from mint.data.features.cache import FeatureCache, clip_key
from mint.data.features.encode import encode_samples, fill_cache
from mint.data.features.prepare import open_cache, open_examples, part_of_rank, prepare_features
from mint.data.features.upkeep import Verified, prune_cache, verify_cache
from mint.data.id_tables import as_ids, find, id_of
from mint.encoders.tiny import TinyEncoder
from mint.types import Example, MintError
from tiny_runs import write_corpus, write_recipe

RATE = 16000


@pytest.fixture
def clips(tmp_path: Path) -> list[Example]:
    """Six clips; the last is longer than the windows of these tests."""
    examples = []
    for number in range(6):
        path = tmp_path / f"{number}.wav"
        samples = np.random.default_rng(number).uniform(-1, 1, round((0.9 if number == 5 else 0.2) * RATE))
        soundfile.write(path, samples, RATE)
        examples.append(Example(id=path.stem, audio=path, task="noise", split="train", corpus="noises"))
    return examples


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureCache:
    monkeypatch.setattr(encode_module, "CLIPS_PER_SHARD", 2)
    monkeypatch.setattr(encode_module, "SECONDS_AT_ONCE", 0)
    return FeatureCache(tmp_path / "features", TinyEncoder.identity)


def fill(cache: FeatureCache, clips: list[Example]) -> int:
    return fill_cache(cache, TinyEncoder(), clips, 0.4).encoded


def verify(cache: FeatureCache, clips: list[Example]) -> Verified:
    return verify_cache(cache, TinyEncoder(), clips, 0.4)


def again(cache: FeatureCache) -> FeatureCache:
    return FeatureCache(cache.folder.parent, TinyEncoder.identity)


def shards(cache: FeatureCache) -> list[Path]:
    return sorted(cache.folder.glob("*.safetensors"))


def replace_shard(path: Path, data: bytes) -> None:
    path.unlink()  # what is mapped into memory is not to change
    path.write_bytes(data)


def test_a_sound_cache(cache: FeatureCache, clips: list[Example]) -> None:
    fill(cache, clips)
    assert verify(cache, clips) == Verified(shards=3, clips=6, checked=6)
    gone = replace(clips[0], id="gone", audio=clips[0].audio.with_name("gone.wav"))
    new = replace(clips[0], id="part", duration=0.1)
    found = verify(cache, [*clips, gone, new])
    assert (found.clips, found.missing, found.sound()) == (6, ["gone", "part"], True)


@pytest.mark.parametrize("place", [-1, -500, 300])
def test_a_flipped_bit_is_found_and_mended(cache: FeatureCache, clips: list[Example], place: int) -> None:
    fill(cache, clips)
    data = bytearray(shards(cache)[1].read_bytes())
    data[place] ^= 1
    replace_shard(shards(cache)[1], bytes(data))
    found = verify(cache, clips)
    assert not found.sound()
    assert (len(found.damaged), found.clips, len(found.missing)) == (1, 4, 2)
    opened = again(cache)
    assert fill(opened, clips) == 2
    assert verify(opened, clips) == Verified(shards=3, clips=6, checked=6)


@pytest.mark.parametrize("fault", ["nan", "width", "flat"])
def test_features_that_cannot_be(cache: FeatureCache, clips: list[Example], fault: str) -> None:
    fill(cache, clips)
    tensors = load_file(shards(cache)[0])
    name = next(iter(tensors))
    good = tensors[name]
    tensors[name] = {"nan": good * float("nan"), "width": good[:, 1:].contiguous(), "flat": good.flatten()}[fault]
    metadata = {cache_module.CHECKSUM: cache_module.checksum(tensors)}
    shards(cache)[0].unlink()
    save_file(tensors, cache.folder / "0.safetensors", metadata=metadata)
    (reason,) = verify(cache, clips).damaged
    assert "or values that are not finite" in reason


def test_features_of_another_clip_are_found_and_made_anew(cache: FeatureCache, clips: list[Example]) -> None:
    """Whole shards with the right checksum, and still wrong."""
    cache.write({clip_key(clips[0]): [torch.rand(5, TinyEncoder.width)]})
    fill(cache, clips)
    result = verify(cache, clips)
    assert (result.wrong, result.damaged, result.sound(), result.not_removed) == (["0"], [], False, "")

    opened = again(cache)
    assert fill(opened, clips) == 1
    assert verify(opened, clips) == Verified(shards=4, clips=6, checked=6)


def swap_features(cache: FeatureCache, first: Example, second: Example) -> None:
    """Keep the features of each of two clips as those of the other, as a cache that was filled wrongly holds them."""
    windows = {clip_key(first): cache.read(clip_key(second)), clip_key(second): cache.read(clip_key(first))}
    prune_cache(cache, [])
    cache.write(windows)


def test_every_clip_is_checked_where_all_are_asked_for(
    cache: FeatureCache, clips: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few clips would not do: here they are others than the wrong ones. Clips of one length cannot be told else."""
    monkeypatch.setattr(upkeep_module, "SAMPLE", 0)
    twin = replace(clips[0], id="0 again")
    fill(cache, clips[:2])
    swap_features(cache, *clips[:2])
    examples = [*clips, twin]
    fill(cache, examples)
    right = {clip.id: encode_samples(TinyEncoder(), load_audio(clip.audio, RATE)) for clip in clips[:5]}
    assert verify(cache, examples).sound()

    result = verify_cache(cache, TinyEncoder(), examples, 0.4, check_all=True)
    assert (result.wrong, result.checked, result.clips) == (["0", "0 again", "1"], 7, 7)
    opened = again(cache)
    assert [clip_key(clip) in opened for clip in clips] == [False, False, True, True, True, True]

    assert fill(opened, examples) == 2
    assert verify_cache(opened, TinyEncoder(), examples, 0.4, check_all=True).sound()
    for clip in clips[:5]:
        torch.testing.assert_close(opened.read(clip_key(clip))[0], right[clip.id], rtol=1e-3, atol=1e-3)


def poison_digest(cache: FeatureCache, first: Example, second: Example) -> None:
    """Record the digest of the second clip's file for that of the first."""
    records = cache.digests._records
    assert records is not None
    row = int(find(records[:, :2], as_ids(id_of(str(first.audio))))[0])
    poisoned = records.copy(order="F")
    poisoned[row, 5:] = as_ids(clip_key(second))
    cache.digests._write(poisoned)
    assert clip_key(first, again(cache).digests) == clip_key(second)


@pytest.mark.parametrize("is_cached", [True, False])
def test_a_file_with_the_digest_of_another(
    cache: FeatureCache, clips: list[Example], monkeypatch: pytest.MonkeyPatch, is_cached: bool
) -> None:
    """Its features are looked for under the other's key, and would be kept there if they were not found."""
    monkeypatch.setattr(digests_module, "UNSURE", -(10**12))
    fill(cache, clips)
    poison_digest(cache, clips[0], clips[1])
    if not is_cached:
        prune_cache(again(cache), clips[2:])

    result = verify_cache(again(cache), TinyEncoder(), clips, 0.4, check_all=True)
    assert (result.wrong_digests, result.wrong, result.sound()) == (["0"], [], False)
    assert result.missing == ([] if is_cached else ["0", "1"])

    opened = again(cache)
    assert clip_key(clips[0], opened.digests) == clip_key(clips[0])
    assert fill(opened, clips) == len(result.missing)
    assert verify_cache(opened, TinyEncoder(), clips, 0.4, check_all=True) == Verified(shards=3, clips=6, checked=6)


def test_clips_that_the_examples_do_not_name(cache: FeatureCache, clips: list[Example]) -> None:
    fill(cache, clips)
    result = verify_cache(cache, TinyEncoder(), clips[:2], 0.4, check_all=True)
    assert (result.clips, result.checked, result.others, result.sound()) == (2, 2, 4, True)


def test_a_clip_that_cannot_be_decoded_any_more(cache: FeatureCache, clips: list[Example]) -> None:
    """Its bytes are those of before, but the decoder refuses them now."""
    text = clips[0].audio.with_name("text.wav")
    text.write_text("no audio")
    odd = replace(clips[0], id="odd", audio=text)
    fill(cache, clips)
    cache.write({clip_key(odd): [torch.rand(5, TinyEncoder.width)]})
    result = verify_cache(cache, TinyEncoder(), [*clips, odd], 0.4, check_all=True)
    assert (result.missing, result.clips, result.wrong, result.sound()) == (["odd"], 6, [], True)


def test_pruning_keeps_what_is_wanted_to_the_bit(cache: FeatureCache, clips: list[Example]) -> None:
    fill(cache, clips)
    wanted = [clips[0], clips[2], clips[3], clips[5]]
    before = {one.id: cache.read(clip_key(one)) for one in clips}
    size = sum(path.stat().st_size for path in cache.folder.iterdir())
    (cache.folder / "x.damaged").write_bytes(bytes(100))
    done = prune_cache(cache, wanted)
    assert (done.kept, done.removed) == (4, 2)
    assert done.freed_bytes > 100
    assert sum(path.stat().st_size for path in cache.folder.iterdir()) < size
    opened = again(cache)
    assert set(opened) == {clip_key(one) for one in wanted}
    for one in wanted:
        kept = opened.read(clip_key(one))
        assert len(kept) == len(before[one.id])
        assert all(torch.equal(*pair) for pair in zip(kept, before[one.id], strict=True))
    for one in clips:  # a reader that was there before goes on
        assert torch.equal(cache.read(clip_key(one))[0], before[one.id][0])
    assert verify(cache, wanted) == Verified(shards=3, clips=4, checked=4)
    assert prune_cache(again(cache), wanted).removed == 0


def test_pruning_keeps_one_of_two(cache: FeatureCache, clips: list[Example]) -> None:
    """Two writers that encode one clip at once both write it."""
    fill(cache, clips)
    for path in shards(cache):
        path.with_stem(f"{path.stem}-2").write_bytes(path.read_bytes())
    done = prune_cache(again(cache), clips)
    assert (done.kept, done.removed) == (6, 6)
    assert verify(cache, clips) == Verified(shards=3, clips=6, checked=6)


def test_pruning_needs_to_know_all_files(cache: FeatureCache, clips: list[Example]) -> None:
    fill(cache, clips)
    clips[3].audio.unlink()
    with pytest.raises(MintError, match=r"cannot read .*3\.wav"):
        prune_cache(cache, clips[2:])
    assert len(set(again(cache))) == 6


@pytest.mark.parametrize(("count", "ranks"), [(0, 3), (2, 3), (7, 3), (9, 3), (5, 1)])
def test_parts_of_ranks(clips: list[Example], count: int, ranks: int) -> None:
    examples = [replace(clips[0], id=str(number)) for number in range(count)]
    parts = [part_of_rank(examples, rank, ranks) for rank in range(ranks)]
    assert [one for part in parts for one in part] == examples
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_rank_sees_all_and_begins_with_its_own(
    clips: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    features = prepare_features(TinyEncoder(), clips)
    assert [Path(name).stem for name in features.files] == ["2", "3", "5", "4", "1", "0"]
    assert all(features.has(one) for one in clips)


def test_the_verb_on_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    recipe = str(write_recipe(tmp_path / "tiny.yaml", 1, write_corpus(tmp_path, clips=2)))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, encoded in (("0", 4), ("1", 5)):
        monkeypatch.setenv("RANK", rank)
        assert main(["cache", recipe]) == 0
        assert capsys.readouterr().out.startswith(f"rank {rank} of 2: {encoded} encoded, 0 already there, 0 skipped: ")
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    assert main(["cache", recipe]) == 0
    assert capsys.readouterr().out.startswith("0 encoded, 9 already there, 0 skipped: ")
    assert main(["cache", recipe, "--verify"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "2 shards, 0 damaged; 9 clips of the recipe there, 0 missing; 8 encoded again, 0 wrong; 0 clips of others: "
    )
    path = next((tmp_path / "cache" / "features").rglob("*.safetensors"))
    replace_shard(path, path.read_bytes()[:-1] + b"?")
    assert main(["cache", recipe, "--verify"]) == 1
    assert "1 damaged" in capsys.readouterr().out
    assert main(["cache", recipe, "--prune"]) == 0
    assert " clips removed, " in capsys.readouterr().out
    assert not list((tmp_path / "cache").rglob("*.damaged"))
    assert main(["cache", recipe, "--verify", "--prune"]) == 2


def test_the_verb_checks_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(upkeep_module, "SAMPLE", 0)
    recipe = str(write_recipe(tmp_path / "tiny.yaml", 1, write_corpus(tmp_path, clips=2)))
    assert main(["cache", recipe]) == 0
    cache = open_cache(TinyEncoder(), 30.0)
    swap_features(cache, *list(cache_examples(recipe))[:2])
    assert main(["cache", recipe]) == 0
    assert main(["cache", recipe, "--verify"]) == 0
    capsys.readouterr()

    assert main(["cache", recipe, "--verify", "--all"]) == 1
    out = capsys.readouterr().out
    assert out.count("  wrong features ") == 3
    assert "  wrong features are removed\n" in out
    assert "9 clips of the recipe there, 0 missing; 9 encoded again, 2 wrong; 0 clips of others" in out
    assert main(["cache", recipe]) == 0
    assert "2 encoded, 7 already there" in capsys.readouterr().out
    assert main(["cache", recipe, "--verify", "--all"]) == 0

    assert main(["cache", recipe, "--all"]) == 2
    assert "--all says how much --verify checks; give both" in capsys.readouterr().err


def cache_examples(recipe: str) -> list[Example]:
    return list(open_examples(load_recipe(recipe).data.manifests))


class SlowEncoder(TinyEncoder):
    """Leaves time to be killed between any two steps."""

    def encode(self, waveform: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        time.sleep(0.005)
        return super().encode(waveform, lengths)


def fill_slowly(root: Path, clips: list[Example]) -> None:
    torch.set_num_threads(1)
    fill_cache(FeatureCache(root, TinyEncoder.identity), SlowEncoder(), clips, 0.4)


def test_killed_at_random_moments_until_it_is_done(cache: FeatureCache, clips: list[Example]) -> None:
    """Two processes fill one cache and are killed again and again; a third finishes."""
    parts = [replace(clips[5], id=str(number), start=number / 100, duration=0.3) for number in range(60)]
    context = multiprocessing.get_context("fork")
    generator = random.Random(0)
    for _ in range(6):
        writers = [context.Process(target=fill_slowly, args=(cache.folder.parent, parts)) for _ in range(2)]
        for writer in writers:
            writer.start()
        time.sleep(generator.uniform(0.02, 0.25))
        for writer in writers:
            writer.kill()
            writer.join()
    assert not list(cache.folder.glob("*.damaged"))
    opened = again(cache)
    there = len(set(opened))
    assert fill(opened, parts) == len(parts) - there
    found = verify(opened, parts)
    assert (found.sound(), found.clips, found.missing) == (True, 60, [])
    for part in parts:
        expected = encode_samples(TinyEncoder(), load_audio(part.audio, RATE, part.start, part.duration))
        assert torch.equal(opened.read(clip_key(part))[0], expected)
