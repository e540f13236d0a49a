"""The index of a large cache: the same clips as the shards hold, whatever happened to either since."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mint.data.features import shard_index as places_module
from mint.data.features.cache import FeatureCache
from mint.data.features.shard_index import INDEX, clip_id
from mint.data.id_tables import as_ids
from mint.types import MintError


@pytest.fixture(autouse=True)
def indexed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places_module, "FOLDED", 2)
    monkeypatch.setattr(places_module, "OPEN", 2)


def key(number: int) -> str:
    """A whole file's, a part's, or any other."""
    whole = hashlib.sha256(str(number).encode()).hexdigest()[:32]
    return (whole, f"{whole}@1.000+", f"clip {number}")[number % 3]


def windows(number: int) -> list[Tensor]:
    return [torch.full((2, 3), float(number + index)) for index in range(1 + number % 2)]


def filled(root: Path, shards: int = 8) -> FeatureCache:
    cache = FeatureCache(root, "tiny")
    for number in range(shards):
        cache.write({key(clip): windows(clip) for clip in (2 * number, 2 * number + 1)})
    return cache


def check(cache: FeatureCache, clips: range | list[int]) -> None:
    """These are there and no others."""
    for number in range(-4, 24):
        assert (key(number) in cache) == (number in clips)
    assert set(cache) == {key(number) for number in clips}
    there = cache.have(as_ids(b"".join(clip_id(key(number)) for number in range(-4, 24))))
    assert there.tolist() == [number in clips for number in range(-4, 24)]
    for number in clips:
        read = cache.read(key(number))
        assert len(read) == len(windows(number))
        assert all(torch.equal(*pair) for pair in zip(read, windows(number), strict=True))
        assert torch.equal(cache.read_window(key(number), 5), windows(number)[5 % len(read)])


def test_an_index_says_what_the_shards_hold(tmp_path: Path) -> None:
    cache = filled(tmp_path)
    check(cache, range(16))
    assert (cache.folder / INDEX).exists()
    assert not list(cache.folder.glob("*.tmp"))
    check(FeatureCache(tmp_path, "tiny"), range(16))


def test_shards_that_came_went_or_were_damaged_since(tmp_path: Path) -> None:
    folder = filled(tmp_path).folder
    shards = {path.name: path for path in folder.glob("*.safetensors")}
    opened = FeatureCache(tmp_path, "tiny")
    owner = {
        number: opened._places._names[place[0]] for number in range(16) if (place := opened._places.find(key(number)))
    }
    opened.write({key(20): windows(20)})
    shards[owner[4]].unlink()
    damaged = shards[owner[8]].read_bytes()[:-1]
    shards[owner[8]].unlink()
    shards[owner[8]].write_bytes(damaged)
    again = FeatureCache(tmp_path, "tiny")
    check(again, [*(number for number in range(16) if number not in (4, 5, 8, 9)), 20])
    assert [path.stem for path in folder.glob("*.damaged")] == [shards[owner[8]].stem]


def test_damaged_indices_are_passed_over(tmp_path: Path) -> None:
    index = filled(tmp_path).folder / INDEX
    whole = index.read_bytes()
    for content in (b"", b"PK", whole[: len(whole) // 2], whole[:-1]):
        index.write_bytes(content)
        check(FeatureCache(tmp_path, "tiny"), range(16))


def test_a_reader_follows_clips_that_are_moved(tmp_path: Path) -> None:
    """As pruning does: into another shard, and the old one is gone."""
    filled(tmp_path)
    reader, writer = FeatureCache(tmp_path, "tiny"), FeatureCache(tmp_path, "tiny")
    old = list(writer.folder.glob("*.safetensors"))
    for number in range(16):
        if number != 6:
            writer.write({key(number): windows(number)})
    for path in old:
        path.unlink()
    for number in range(16):
        if number != 6:
            assert torch.equal(reader.read_window(key(number), 0), windows(number)[0])
    with pytest.raises(MintError, match=r"features that were in .* are gone; start again, they are made anew"):
        reader.read(key(6))


def test_where_no_index_can_be_written(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "tiny")
    (cache.folder / INDEX).mkdir()
    filled(tmp_path)
    check(FeatureCache(tmp_path, "tiny"), range(16))
    assert not list(cache.folder.glob("*.tmp"))
