"""Files of features: what is written is read, of the right encoder, and every tool knows that they are no audio."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mint.data.features.encode import fill_cache
from mint.data.features.prepare import open_cache
from mint.data.features.stored import is_stored, read_stored, write_stored
from mint.data.features.upkeep import verify_cache
from mint.data.manifests.manifest import write_manifest
from mint.data.manifests.validate import validate
from mint.encoders.tiny import TinyEncoder
from mint.types import Example, MintError

FEATURES = torch.randn(5, 16, generator=torch.Generator().manual_seed(0)).half().float()


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Example:
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "clip.npz"
    write_stored(path, FEATURES, TinyEncoder.identity)
    return Example(id="clip", audio=path, task="sounds", split="train", corpus="sounds", captions=("A dog barks.",))


def test_features_come_back_and_equal_ones_have_equal_bytes(example: Example, tmp_path: Path) -> None:
    assert is_stored(example.audio)
    assert not is_stored(Path("clip.wav"))
    assert torch.equal(read_stored(example, TinyEncoder.identity), FEATURES)
    write_stored(tmp_path / "again.npz", FEATURES, TinyEncoder.identity)
    assert (tmp_path / "again.npz").read_bytes() == example.audio.read_bytes()


def test_they_are_refused_where_they_cannot_be_used(example: Example, tmp_path: Path) -> None:
    with pytest.raises(MintError, match="features of another encoder"):
        read_stored(example, "another")
    with pytest.raises(MintError, match="leave out start and duration"):
        read_stored(replace(example, start=1.0), TinyEncoder.identity)
    for content in (b"", b"RIFF", example.audio.read_bytes()[:-40]):
        broken = tmp_path / "broken.npz"
        broken.write_bytes(content)
        with pytest.raises(MintError, match="not a file of features"):
            read_stored(replace(example, audio=broken), TinyEncoder.identity)


@pytest.mark.parametrize("features", [np.zeros(3), np.array([[np.nan]]), np.array([["a"]]), np.array([[1 + 1j]])])
def test_features_that_cannot_be_are_refused(example: Example, features: np.ndarray) -> None:
    np.savez(example.audio, features=features, encoder=np.array(TinyEncoder.identity))
    with pytest.raises(MintError, match=r"not features \[T, D\] of finite numbers; make its corpus again"):
        read_stored(example, TinyEncoder.identity)


def test_the_cache_holds_them_without_the_encoder(example: Example, tmp_path: Path) -> None:
    encoder = TinyEncoder()
    cache = open_cache(encoder, 30.0)
    broken = replace(example, id="broken", audio=tmp_path / "broken.npz")
    broken.audio.write_bytes(b"nothing")
    filled = fill_cache(cache, encoder, [example, broken, example], 30.0)
    assert filled.encoded == 1
    assert [one.id for one in filled.skipped] == ["broken"]
    (key,) = cache
    assert torch.equal(cache.read(key)[0], FEATURES)
    assert fill_cache(cache, encoder, [example], 30.0).encoded == 0


def test_they_are_verified_and_validated(example: Example, tmp_path: Path) -> None:
    encoder = TinyEncoder()
    cache = open_cache(encoder, 30.0)
    fill_cache(cache, encoder, [example], 30.0)
    result = verify_cache(cache, encoder, [example], 30.0, check_all=True)
    assert (result.checked, result.wrong, result.missing) == (1, [], [])

    (key,) = cache
    cache.write({key: [FEATURES + 1]})
    for shard in sorted(cache.folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)[:-1]:
        shard.unlink()
    cache = open_cache(encoder, 30.0)
    assert verify_cache(cache, encoder, [example], 30.0, check_all=True).wrong == ["clip"]

    write_manifest(tmp_path / "clips.jsonl", [example])
    assert not validate([tmp_path / "clips.jsonl"], audio="all").problems
    example.audio.write_bytes(b"nothing")
    assert validate([tmp_path / "clips.jsonl"], audio="all").problems
