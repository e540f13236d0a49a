"""Which checkpoints can be gone on from."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mint.training.checkpoints import (
    STATE,
    SUMS,
    checkpoints,
    is_whole,
    last_checkpoint,
    ranks_of,
    refuse_foreign_files,
    seal,
)
from mint.types import MintError
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


FILES = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", STATE]


@pytest.mark.parametrize("harm", [cut, empty, Path.unlink, flip])
@pytest.mark.parametrize("name", [*FILES, SUMS])
def test_a_damaged_one_is_set_aside(run: Path, name: str, harm: Callable[[Path], None]) -> None:
    harm(run / "checkpoint-3" / name)
    assert last_checkpoint(run) == run / "checkpoint-2"
    assert sorted(path.name for path in run.glob("*checkpoint-*")) == ["checkpoint-2", "damaged-checkpoint-3"]


def test_every_byte_of_the_weights_counts(run: Path) -> None:
    weights = run / "checkpoint-3" / "model.safetensors"
    whole = weights.read_bytes()
    for place in np.random.default_rng(0).integers(len(whole), size=50).tolist():
        changed = bytearray(whole)
        changed[place] ^= 1 << (place % 8)
        weights.write_bytes(bytes(changed))
        assert not is_whole(run / "checkpoint-3")
    weights.write_bytes(whole)
    assert is_whole(run / "checkpoint-3")


def test_the_seal_is_that_of_sha256sum(run: Path) -> None:
    newest = run / "checkpoint-3"
    done = subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=newest, check=True, capture_output=True)
    assert {line.split(":")[0] for line in done.stdout.decode().splitlines()} >= set(FILES) - {STATE}
    assert not list(newest.glob("*.tmp"))


def test_the_state_of_another_step(run: Path) -> None:
    shutil.copy(run / "checkpoint-2" / STATE, run / "checkpoint-3" / STATE)
    assert last_checkpoint(run) == run / "checkpoint-2"


def test_all_damaged(run: Path) -> None:
    (run / "damaged-checkpoint-3").mkdir()
    (run / "damaged-checkpoint-3" / "old").touch()
    for path in checkpoints(run):
        cut(path / "model.safetensors")
    assert last_checkpoint(run) is None
    assert checkpoints(run) == []
    assert not (run / "damaged-checkpoint-3" / "old").exists()


def of_ranks(checkpoint: Path, ranks: int) -> None:
    """As so many ranks leave it."""
    state = checkpoint / "rng_state.pth"
    for rank in range(ranks):
        shutil.copy(state, checkpoint / f"rng_state_{rank}.pth")
    state.unlink()


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_the_random_numbers_of_every_rank_are_needed(run: Path, rank: int) -> None:
    newest = run / "checkpoint-3"
    of_ranks(newest, 3)
    seal(newest)
    assert is_whole(newest)
    assert ranks_of(newest) == 3
    (newest / f"rng_state_{rank}.pth").unlink()
    assert not is_whole(newest)


@pytest.mark.parametrize("harm", [cut, empty, Path.unlink, flip])
def test_the_folders_of_deepspeed_are_looked_into(run: Path, harm: Callable[[Path], None]) -> None:
    """As FSDP does, it keeps weights and optimiser in folders of their own."""
    newest = run / "checkpoint-3"
    folder = newest / "global_step3"
    folder.mkdir()
    for name in ("model.safetensors", "optimizer.pt", SUMS):
        (newest / name).unlink()
    for name in ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"):
        torch.save({"weights": torch.rand(100)}, folder / name)
    seal(newest)
    assert is_whole(newest)
    refuse_foreign_files(newest)
    harm(folder / "mp_rank_00_model_states.pt")
    assert last_checkpoint(run) == run / "checkpoint-2"


def test_a_state_that_says_no_step(run: Path) -> None:
    (run / "checkpoint-3" / STATE).write_text(json.dumps({"global_step": None}))
    assert last_checkpoint(run) == run / "checkpoint-2"


@pytest.mark.parametrize("name", ["scaler.pt", "global_step3/states.pt"])
def test_a_foreign_file_is_named(run: Path, corpus: Path, name: str) -> None:
    """The Trainer would load some by their names: a scaler of float16, for one, that this run does not have."""
    refuse_foreign_files(run / "checkpoint-3")
    (run / "checkpoint-3" / ".hidden").touch()
    refuse_foreign_files(run / "checkpoint-3")
    foreign = run / "checkpoint-3" / name
    foreign.parent.mkdir(exist_ok=True)
    foreign.touch()
    assert last_checkpoint(run) == run / "checkpoint-3"
    (run / "model.safetensors").unlink()
    with pytest.raises(MintError, match=f"checkpoint-3/{name} was not written by the training; move it out of the"):
        train_recipe(recipe(1, corpus, save_steps=2), run)
    foreign.unlink()
    train_recipe(recipe(1, corpus, save_steps=2), run)
    assert (run / "model.safetensors").is_file()


def test_a_hidden_file_that_vanishes_does_not_damage_a_checkpoint(run: Path) -> None:
    """Network file systems keep a file that was removed while it was open under such a name."""
    (run / "checkpoint-3" / ".nfs0001").touch()
    seal(run / "checkpoint-3")
    (run / "checkpoint-3" / ".nfs0001").unlink()
    assert is_whole(run / "checkpoint-3")
