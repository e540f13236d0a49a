"""Which checkpoints can be gone on from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mint.training.checkpoints import STATE, checkpoints, is_whole, last_checkpoint
from tiny_runs import recipe, train_recipe


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the checkpoints 2 and 3."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINT_CACHE", str(corpus.parent / "cache"))
        return train_recipe(recipe(1, corpus, save_steps=2), folder)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    """Damage in the middle, the length unchanged."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def test_the_newest_comes_first(run: Path) -> None:
    (run / "checkpoint-10").mkdir()
    (run / "damaged-checkpoint-9").mkdir()
    (run / "checkpoint-x").mkdir()
    assert [path.name for path in checkpoints(run)] == ["checkpoint-10", "checkpoint-3", "checkpoint-2"]
    assert checkpoints(run / "nowhere") == []


def test_whole_ones_are_left_alone(run: Path) -> None:
    assert all(is_whole(path) for path in checkpoints(run))
    assert last_checkpoint(run) == run / "checkpoint-3"
    assert len(checkpoints(run)) == 2


@pytest.mark.parametrize("harm", [cut, empty, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", STATE])
def test_a_damaged_one_is_set_aside(run: Path, name: str, harm: Callable[[Path], None]) -> None:
    harm(run / "checkpoint-3" / name)
    assert last_checkpoint(run) == run / "checkpoint-2"
    assert sorted(path.name for path in run.glob("*checkpoint-*")) == ["checkpoint-2", "damaged-checkpoint-3"]


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth"])
def test_damage_within_the_archives_of_torch(run: Path, name: str) -> None:
    flip(run / "checkpoint-3" / name)
    assert last_checkpoint(run) == run / "checkpoint-2"


def test_all_damaged(run: Path) -> None:
    (run / "damaged-checkpoint-3").mkdir()
    (run / "damaged-checkpoint-3" / "old").touch()
    for path in checkpoints(run):
        cut(path / "model.safetensors")
    assert last_checkpoint(run) is None
    assert checkpoints(run) == []
    assert not (run / "damaged-checkpoint-3" / "old").exists()


def test_those_of_fsdp_are_whole(run: Path) -> None:
    newest = run / "checkpoint-3"
    (newest / "optimizer.pt").rename(newest / "optimizer.bin")
    assert not is_whole(newest)
    (newest / "model.safetensors").unlink()
    torch.save({}, newest / "pytorch_model_fsdp.bin")
    assert is_whole(newest)
    cut(newest / "optimizer.bin")
    assert last_checkpoint(run) == run / "checkpoint-2"


def test_sharded_weights_are_accepted_by_their_state(run: Path) -> None:
    """FSDP and DeepSpeed keep weights and optimiser in folders of their own."""
    for name in ("model.safetensors", "optimizer.pt"):
        (run / "checkpoint-3" / name).unlink()
    (run / "checkpoint-3" / "pytorch_model_fsdp_0").mkdir()
    assert last_checkpoint(run) == run / "checkpoint-3"
    state = run / "checkpoint-3" / "trainer_state.json"
    state.write_text(json.dumps({"global_step": None}))
    assert last_checkpoint(run) == run / "checkpoint-2"
