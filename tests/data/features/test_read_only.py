"""A cache on a disk that cannot be written to: used as it is while nothing is missing, and else refused in one line."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from mint.assets import store
from mint.cli import main
from mint.data.features import file_digests as digests_module
from mint.data.features import shard_index as index_module
from mint.data.features.cache import CHECKSUM, checksum
from tiny_runs import write_corpus, write_recipe


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests_module, "UNSURE", -(10**12))  # every file is old
    return tmp_path / "cache"


@pytest.fixture
def recipe(cache: Path) -> str:
    return str(write_recipe(cache.parent / "tiny.yaml", 1, write_corpus(cache.parent, clips=2)))


@pytest.fixture
def read_only(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Make the cache read-only once it is called: permissions do not bind the superuser, and a mount needs one."""

    def refuse(path: Any) -> None:
        if not isinstance(path, int) and Path(os.fsdecode(path)).is_relative_to(cache):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def refusing(call: Callable[..., Any]) -> Callable[..., Any]:
        def refused(path: Any, *arguments: Any, **options: Any) -> Any:
            refuse(path)
            return call(path, *arguments, **options)

        return refused

    def refusing_to_write(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if "r" not in mode:
            refuse(path)
        return plain_open(path, mode, *arguments, **options)

    plain_open = io.open

    with monkeypatch.context() as patch:

        def protect() -> None:
            patch.setattr(io, "open", refusing_to_write)
            for name in ("mkdir", "rename", "replace", "unlink"):
                patch.setattr(os, name, refusing(getattr(os, name)))

        yield protect


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def test_a_complete_cache_is_used(
    recipe: str, cache: Path, read_only: Callable[[], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "low0.wav").write_text("not audio")
    assert main(["cache", recipe]) == 0
    before = state(cache)
    read_only()
    assert main(["cache", recipe]) == 0
    assert "0 encoded, 8 already there, 1 skipped" in capsys.readouterr().out
    (tmp_path / "low1.wav").write_text("not audio")
    assert main(["cache", recipe]) == 0
    assert "no list of them could be written: [Errno 30] Read-only file system" in capsys.readouterr().out
    assert main(["cache", recipe, "--verify"]) == 0
    assert main(["train", recipe, "--output", str(tmp_path / "run")]) == 0
    assert main(["evaluate", str(tmp_path / "run"), "--task", "pitch"]) == 0
    assert state(cache) == before


def test_tables_that_it_lacks_are_done_without(
    recipe: str, cache: Path, read_only: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Digests, the manifest's index and that of the shards save time alone."""
    monkeypatch.setattr(index_module, "MERGED_SHARDS", 0)
    assert main(["cache", recipe]) == 0
    tables = list(cache.rglob("*.npz"))
    assert len(tables) >= 3
    for path in tables:
        path.unlink()
    for path in (cache / "features" / "digests", cache / "manifests"):
        path.rmdir()
    read_only()
    assert main(["train", recipe, "--output", str(tmp_path / "run")]) == 0
    assert main(["cache", recipe, "--verify"]) == 0
    assert not list(cache.rglob("*.npz"))


def test_a_clip_that_is_missing_is_refused(
    recipe: str, cache: Path, read_only: Callable[[], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", recipe]) == 0
    for path in cache.rglob("*.safetensors"):
        path.unlink()
    read_only()
    assert main(["train", recipe, "--output", str(tmp_path / "run")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "cannot write features to" in line
    assert "or set MINT_CACHE to another folder" in line


@pytest.mark.parametrize("content", [b"", None])
def test_a_damaged_shard_stays_where_it_is(
    recipe: str,
    cache: Path,
    read_only: Callable[[], None],
    content: bytes | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Cut off, or with one bit of another value."""
    assert main(["cache", recipe]) == 0
    (shard,) = cache.rglob("*.safetensors")
    damaged = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(damaged[:-1] + bytes([damaged[-1] ^ 1]) if content is None else content)
    read_only()
    assert main(["cache", recipe, "--verify"]) == 1
    assert "it cannot be set aside here" in capsys.readouterr().out
    assert shard.exists()


def test_wrong_features_stay_where_they_are(
    recipe: str, cache: Path, read_only: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", recipe]) == 0
    (shard,) = cache.rglob("*.safetensors")
    tensors = {name: tensor + 1 for name, tensor in load_file(shard).items()}
    shard.unlink()
    save_file(tensors, shard, metadata={CHECKSUM: checksum(tensors)})
    read_only()
    assert main(["cache", recipe, "--verify", "--all"]) == 1
    out = capsys.readouterr().out
    assert "  wrong features could not be removed: [Errno 30] Read-only file system" in out
    assert "0 missing; 9 encoded again, 9 wrong; " in out
    assert shard.exists()


def test_an_asset_that_is_there(cache: Path, read_only: Callable[[], None]) -> None:
    folder = store.fetched_folder("yamnet")
    folder.mkdir(parents=True)
    (cache / "wheels").mkdir()
    read_only()
    assert store.fetch("yamnet") == folder
