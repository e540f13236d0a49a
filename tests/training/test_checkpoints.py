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

from mint.training.checkpoints import STATE, SUMS, checkpoints, is_whole, last_checkpoint, ranks_of, seal
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


@pytest.fixture
def unsealed(run: Path) -> Path:
    """Its newest checkpoint is from before there were seals."""
    (run / "checkpoint-3" / SUMS).unlink()
    return run


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
    if (name, harm) == (SUMS, Path.unlink):
        assert last_checkpoint(run) == run / "checkpoint-3"
        return
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


@pytest.mark.parametrize("harm", [cut, empty, Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_one_without_a_seal(unsealed: Path, name: str, harm: Callable[[Path], None]) -> None:
    assert is_whole(unsealed / "checkpoint-3")
    harm(unsealed / "checkpoint-3" / name)
    assert last_checkpoint(unsealed) == unsealed / "checkpoint-2"


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth"])
def test_damage_within_the_archives_of_torch(unsealed: Path, name: str) -> None:
    flip(unsealed / "checkpoint-3" / name)
    assert last_checkpoint(unsealed) == unsealed / "checkpoint-2"


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


@pytest.mark.parametrize("gone", [0, 1, 2])
@pytest.mark.parametrize("sealed", [True, False])
def test_the_random_numbers_of_every_rank_are_needed(run: Path, sealed: bool, gone: int) -> None:
    newest = run / "checkpoint-3"
    of_ranks(newest, 3)
    if sealed:
        seal(newest)
    else:
        (newest / SUMS).unlink()
    assert is_whole(newest)
    assert ranks_of(newest) == 3
    (newest / f"rng_state_{gone}.pth").unlink()
    assert is_whole(newest) == (not sealed and gone == 2)  # without a seal, that could be a checkpoint of two ranks


def test_of_two_ranks_one_is_missing_in_an_old_checkpoint(unsealed: Path) -> None:
    newest = unsealed / "checkpoint-3"
    (newest / "rng_state.pth").rename(newest / "rng_state_0.pth")
    assert not is_whole(newest)


def test_those_of_fsdp_are_whole(unsealed: Path) -> None:
    run, newest = unsealed, unsealed / "checkpoint-3"
    (newest / "optimizer.pt").rename(newest / "optimizer.bin")
    assert not is_whole(newest)
    (newest / "model.safetensors").unlink()
    torch.save({}, newest / "pytorch_model_fsdp.bin")
    assert is_whole(newest)
    cut(newest / "optimizer.bin")
    assert last_checkpoint(run) == run / "checkpoint-2"


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("harm", [cut, empty, Path.unlink, flip])
def test_the_folders_of_deepspeed_are_looked_into(run: Path, sealed: bool, harm: Callable[[Path], None]) -> None:
    """As FSDP does, it keeps weights and optimiser in folders of their own."""
    newest = run / "checkpoint-3"
    folder = newest / "global_step3"
    folder.mkdir()
    for name in ("model.safetensors", "optimizer.pt", SUMS):
        (newest / name).unlink()
    for name in ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"):
        torch.save({"weights": torch.rand(100)}, folder / name)
    if sealed:
        seal(newest)
    assert is_whole(newest)
    if sealed or harm is not Path.unlink:  # what there was is not known without a seal
        harm(folder / "mp_rank_00_model_states.pt")
        assert last_checkpoint(run) == run / "checkpoint-2"


def test_a_state_that_says_no_step(run: Path) -> None:
    (run / "checkpoint-3" / STATE).write_text(json.dumps({"global_step": None}))
    assert last_checkpoint(run) == run / "checkpoint-2"
