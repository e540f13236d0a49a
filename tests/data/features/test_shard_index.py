"""The index of a large cache: the same clips as the shards hold, whatever happened to either since."""

from __future__ import annotations

import hashlib
import pickle
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mint.data.features import shard_index as index_module
from mint.data.features.cache import FeatureCache, part_key
from mint.data.features.shard_index import INDEX
from mint.data.id_tables import as_ids
from mint.types import MintError


@pytest.fixture(autouse=True)
def indexed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "MERGED_SHARDS", 2)
    monkeypatch.setattr(index_module, "OPEN_SHARDS", 2)


def key(number: int) -> bytes:
    """The key of a whole file or of a part."""
    whole = hashlib.sha256(str(number).encode()).digest()[:16]
    return (whole, part_key(whole, 1.0, None))[number % 2]


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
    there = cache.have(as_ids(b"".join(key(number) for number in range(-4, 24))))
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
    assert not list(cache.folder.glob(".*.tmp"))
    check(FeatureCache(tmp_path, "tiny"), range(16))


def test_shards_that_came_went_or_were_damaged_since(tmp_path: Path) -> None:
    folder = filled(tmp_path).folder
    shards = {path.name: path for path in folder.glob("*.safetensors")}
    opened = FeatureCache(tmp_path, "tiny")
    owner = {
        number: opened._index._names[location.shard]
        for number in range(16)
        if (location := opened._index.find(key(number))) is not None
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
    """Pruning writes what stays into another shard, and removes the old one."""
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
    with pytest.raises(MintError, match=r"features in .* were removed during the run; run the command again"):
        reader.read(key(6))


def test_where_no_index_can_be_written(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "tiny")
    (cache.folder / INDEX).mkdir()
    filled(tmp_path)
    check(FeatureCache(tmp_path, "tiny"), range(16))
    assert not list(cache.folder.glob(".*.tmp"))


def test_many_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers find their clips while another thread writes shards, each of which is merged into the table."""
    monkeypatch.setattr(index_module, "MERGED_SHARDS", 0)
    cache = filled(tmp_path)
    done = threading.Event()
    errors: list[str] = []

    def read() -> None:
        while not done.is_set():
            for number in range(16):
                try:
                    right = torch.equal(cache.read(key(number))[0], windows(number)[0]) and key(number) in cache
                except (IndexError, KeyError, MintError) as error:
                    errors.append(repr(error))
                    return
                if not right:
                    errors.append(f"clip {number}")
                    return

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    readers = [threading.Thread(target=read) for _ in range(8)]
    try:
        for reader in readers:
            reader.start()
        for number in range(100, 160):
            cache.write({key(number): windows(number)})
    finally:
        done.set()
        for reader in readers:
            reader.join()
        sys.setswitchinterval(interval)
    assert errors == []


def test_another_process_gets_a_copy_that_reads(tmp_path: Path) -> None:
    cache = filled(tmp_path)
    check(pickle.loads(pickle.dumps(cache)), range(16))


def test_shards_with_names_of_another_form_are_passed_over(tmp_path: Path) -> None:
    cache = filled(tmp_path, shards=2)
    save_file({"0123@1.000+/0of1": torch.zeros(2, 3), "x": torch.zeros(1)}, cache.folder / "old.safetensors")
    check(FeatureCache(tmp_path, "tiny"), range(4))
    assert not list(cache.folder.glob("*.damaged"))


def test_keys_while_another_process_removes_shards(tmp_path: Path) -> None:
    cache = filled(tmp_path, shards=4)
    keys = iter(FeatureCache(tmp_path, "tiny"))
    first = next(keys)
    for path in cache.folder.glob("*.safetensors"):
        path.unlink()
    assert {first, *keys} <= {key(number) for number in range(8)}
