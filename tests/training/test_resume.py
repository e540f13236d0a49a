"""A run that is interrupted and gone on with ends with the weights of one that was not, to the bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mint.config import Recipe, save_recipe
from mint.training import train as run
from mint.training.checkpoints import SUMS, checkpoints, is_whole, ranks_of
from mint.training.sigterm import ECHO, StopOnTerm
from mint.training.trainer import StageTrainer
from mint.types import MintError
from tiny_ranks import run_ranks
from tiny_runs import recipe, train_recipe, write_corpus

SLOW_CHILD = """
import os, signal, sys, time
from pathlib import Path
from mint.config import load_recipe
from mint.training.progress import LossProgress
from mint.training.trainer import StageTrainer
sys.path.insert(0, sys.argv[1])
from tiny_runs import train_recipe
advance, write = LossProgress.on_step_end, StageTrainer._save_rng_state
def write_or_die(self, folder):
    if os.environ.get("DIES_AT") == str(self.state.global_step):
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, folder)
StageTrainer._save_rng_state = write_or_die
LossProgress.on_step_end = lambda *args, **kwargs: (time.sleep(0.05), advance(*args, **kwargs))[1]
train_recipe(load_recipe(sys.argv[2]), Path(sys.argv[3]))
"""
"""Trains a recipe with a pause in each step; may die before its part of a checkpoint."""


class InterruptionError(Exception):
    pass


class AtStep(TrainerCallback):
    """Does something at the end of a step, before the Trainer saves."""

    def __init__(self, step: int, do: Callable[[], Any]) -> None:
        self.step = step
        self.do = do

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == self.step:
            self.do()


def fall() -> None:
    raise InterruptionError


def train_with(monkeypatch: pytest.MonkeyPatch, callback: TrainerCallback, wanted: Recipe, output: Path) -> None:
    """Train with one callback more."""
    prepare = run.prepare

    def prepare_more(*arguments: Any) -> run.Prepared:
        prepared = prepare(*arguments)
        prepared.trainer.add_callback(callback)
        return prepared

    with monkeypatch.context() as patch:
        patch.setattr(run, "prepare", prepare_more)
        train_recipe(wanted, output)


def same_weights(one: Path, other: Path) -> bool:
    first, second = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def steps(output: Path) -> list[int]:
    """The steps of the history."""
    return [record["step"] for record in json.loads((output / "history.json").read_text()) if "loss" in record]


def eight_steps(stage: int, corpus: Path, **training: Any) -> Recipe:
    """Nearly three epochs of three steps (stage 1) or two of five (stage 2), with dropout, saved every second step."""
    return recipe(stage, corpus, max_steps=8, save_steps=2, **training)


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Both stages without an interruption."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINT_CACHE", str(corpus.parent / "cache"))
        return {stage: train_recipe(eight_steps(stage, corpus), folder / str(stage)) for stage in (1, 2)}


@pytest.mark.parametrize("step", [1, 3, 4, 7])
@pytest.mark.parametrize("stage", [1, 2])
def test_a_run_that_falls(
    stage: int, step: int, corpus: Path, whole: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = eight_steps(stage, corpus)
    with pytest.raises(InterruptionError):
        train_with(monkeypatch, AtStep(step, fall), wanted, tmp_path)
    assert len(checkpoints(tmp_path)) == min(2, (step - 1) // 2)
    train_recipe(wanted, tmp_path)
    assert same_weights(tmp_path, whole[stage])
    assert steps(tmp_path) == list(range(1, 9))


def test_another_seed_ends_elsewhere(corpus: Path, whole: dict[int, Path], tmp_path: Path) -> None:
    """The equality above is no accident of a model that does not change."""
    train_recipe(replace(eight_steps(1, corpus), seed=1), tmp_path)
    assert not same_weights(tmp_path, whole[1])


def test_accumulated_gradients(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = eight_steps(1, corpus, gradient_accumulation_steps=2)
    train_recipe(wanted, tmp_path / "whole")
    with pytest.raises(InterruptionError):
        train_with(monkeypatch, AtStep(6, fall), wanted, tmp_path / "fallen")
    train_recipe(wanted, tmp_path / "fallen")
    assert same_weights(tmp_path / "fallen", tmp_path / "whole")


def test_a_run_that_falls_after_its_last_step(
    corpus: Path, whole: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last checkpoint is in the middle of an epoch, from which the Trainer by itself would do one step more."""
    with monkeypatch.context() as patch:
        patch.setattr(run, "save_run", lambda *_: fall())
        with pytest.raises(InterruptionError):
            train_recipe(eight_steps(1, corpus), tmp_path)
    assert checkpoints(tmp_path)[0].name == "checkpoint-8"
    train_recipe(eight_steps(1, corpus), tmp_path)
    assert same_weights(tmp_path, whole[1])
    assert steps(tmp_path) == list(range(1, 9))


def test_a_damaged_checkpoint(
    corpus: Path, whole: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InterruptionError):
        train_with(monkeypatch, AtStep(7, fall), eight_steps(1, corpus), tmp_path)
    weights = tmp_path / "checkpoint-6" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    train_recipe(eight_steps(1, corpus), tmp_path)
    assert same_weights(tmp_path, whole[1])
    assert (tmp_path / "damaged-checkpoint-6").is_dir()


@pytest.mark.parametrize("form", ["empty", "cut", "none"])
def test_a_recipe_that_was_lost(
    form: str, corpus: Path, whole: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """As a kill could leave it when it was written in place; the checkpoints are worth more."""
    with pytest.raises(InterruptionError):
        train_with(monkeypatch, AtStep(3, fall), eight_steps(1, corpus), tmp_path)
    kept = tmp_path / "recipe.yaml"
    text = kept.read_text()
    kept.unlink() if form == "none" else kept.write_text({"empty": "", "cut": text[: text.index("stage") + 3]}[form])
    train_recipe(eight_steps(1, corpus), tmp_path)
    assert same_weights(tmp_path, whole[1])
    assert kept.read_text() == text
    assert form == "none" or "its checkpoints are assumed to belong to the given recipe" in capsys.readouterr().err


def test_a_recipe_is_written_whole_or_not_at_all(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, path = eight_steps(1, corpus), tmp_path / "recipe.yaml"
    save_recipe(wanted, path)
    before = path.read_text()
    monkeypatch.setattr(Path, "replace", lambda *_: fall())
    with pytest.raises(InterruptionError):
        save_recipe(replace(wanted, seed=1), path)
    assert path.read_text() == before


def test_another_recipe_is_refused(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InterruptionError):
        train_with(monkeypatch, AtStep(3, fall), eight_steps(1, corpus), tmp_path)
    with pytest.raises(MintError, match=r"holds a run with training.learning_rate 0.003, not 0.1; choose another"):
        train_recipe(eight_steps(1, corpus, learning_rate=0.1), tmp_path)


def test_sigterm_saves_and_stops(
    corpus: Path, whole: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    terminate = AtStep(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as stop:
        train_with(monkeypatch, terminate, eight_steps(1, corpus), tmp_path)
    assert stop.value.code == 143
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-3", "checkpoint-2"]
    assert not (tmp_path / "model.safetensors").exists()
    assert signal.getsignal(signal.SIGTERM) == before
    train_recipe(eight_steps(1, corpus), tmp_path)
    assert same_weights(tmp_path, whole[1])


def test_the_second_sigterm_is_not_held_back() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        stop = StopOnTerm()
        with stop.listening():
            os.kill(os.getpid(), signal.SIGTERM)
            assert (stop.asked, heard) == (True, [])
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard == []  # the launcher passes on what the scheduler sent to all
            stop.heard -= ECHO
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_training_in_a_thread(corpus: Path, tmp_path: Path) -> None:
    """Signals can be heard in the main thread alone."""
    thread = threading.Thread(target=train_recipe, args=(recipe(1, corpus), tmp_path))
    thread.start()
    thread.join()
    assert (tmp_path / "model.safetensors").is_file()


def start(path: Path, output: Path, **environment: str) -> subprocess.Popen[bytes]:
    """Train a recipe in a process of its own."""
    command = [sys.executable, "-c", SLOW_CHILD, str(Path(__file__).parent.parent), str(path), str(output)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, **environment})


def wait_for(reached: int, output: Path, *children: subprocess.Popen[bytes]) -> None:
    """Until a checkpoint of that step is begun."""
    while not (checkpoints(output) and int(checkpoints(output)[0].name.partition("-")[2]) >= reached):
        assert all(child.poll() is None for child in children)
        time.sleep(0.001)


def test_a_run_that_is_killed(corpus: Path, tmp_path: Path) -> None:
    """Killed at any moment, also while it writes a checkpoint, twice over."""
    wanted = recipe(1, corpus, max_steps=16, save_steps=1)
    save_recipe(wanted, tmp_path / "recipe.yaml")
    train_recipe(wanted, tmp_path / "whole")
    output = tmp_path / "killed"
    for reached in (3, 9):
        child = start(tmp_path / "recipe.yaml", output)
        wait_for(reached, output, child)
        child.kill()
        child.wait()
    assert not (output / "model.safetensors").exists()
    train_recipe(wanted, output)
    assert same_weights(output, tmp_path / "whole")


def start_ranks(path: Path, output: Path, dies_at: str = "") -> list[subprocess.Popen[bytes]]:
    """Two ranks; the second may die before its part of a checkpoint."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    here = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo", "WORLD_SIZE": "2"}
    ranks = ({"RANK": "0", "LOCAL_RANK": "0"}, {"RANK": "1", "LOCAL_RANK": "1", "DIES_AT": dies_at})
    return [start(path, output, **here, **rank) for rank in ranks]


def kill(children: list[subprocess.Popen[bytes]]) -> None:
    for child in children:
        child.kill()
    for child in children:
        child.wait()


@pytest.mark.slow
def test_two_ranks_that_are_killed(corpus: Path, tmp_path: Path) -> None:
    """At moments of any kind, most of them in the midst of a checkpoint; once, one rank before its part of it."""
    path, output = tmp_path / "recipe.yaml", tmp_path / "killed"
    save_recipe(recipe(1, corpus, max_steps=20, save_steps=1, per_device_train_batch_size=2), path)
    assert [child.wait(timeout=120) for child in start_ranks(path, tmp_path / "whole")] == [0, 0]
    pause = np.random.default_rng()
    for reached in (2, 6, 11):
        children = start_ranks(path, output)
        wait_for(reached, output, *children)
        time.sleep(pause.uniform(0, 0.3))
        kill(children)
    children = start_ranks(path, output, dies_at="15")
    assert children[1].wait(timeout=120) == -signal.SIGKILL
    kill(children)
    assert not is_whole(output / "checkpoint-15")
    assert not (output / "model.safetensors").exists()
    assert [child.wait(timeout=120) for child in start_ranks(path, output)] == [0, 0]
    assert same_weights(output, tmp_path / "whole")
    assert steps(output) == list(range(1, 21))


def train_with_a_slow_rank(rank: int, folder: Path) -> None:
    """What each of two processes does: the second is late with its part of a checkpoint."""
    write, finish = StageTrainer._save_rng_state, TrainerState.save_to_json

    def write_late(self: StageTrainer, output_dir: str) -> None:
        time.sleep(rank)
        write(self, output_dir)

    def see(self: TrainerState, path: str) -> None:
        there = {file.name for file in Path(path).parent.iterdir()}
        assert {"rng_state_0.pth", "rng_state_1.pth", SUMS} <= there
        assert "rng_state_1.pth" in (Path(path).parent / SUMS).read_text()
        (folder / "seen").touch()
        finish(self, path)

    StageTrainer._save_rng_state = write_late  # type: ignore[method-assign]
    TrainerState.save_to_json = see  # type: ignore[method-assign, assignment]
    train_recipe(recipe(1, folder / "corpus.jsonl"), folder / "run")


def test_a_checkpoint_is_finished_by_its_slowest_rank_and_gone_on_with_by_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    write_corpus(tmp_path).rename(tmp_path / "corpus.jsonl")
    run_ranks(train_with_a_slow_rank, tmp_path, 2)
    assert (tmp_path / "seen").exists()
    run = tmp_path / "run"
    (run / "model.safetensors").unlink()
    shutil.rmtree(run / "checkpoint-3")
    train_recipe(recipe(1, tmp_path / "corpus.jsonl"), run)
    assert "checkpoint-2 was written by 2 rank(s), and 1 continue: weights and optimiser" in capsys.readouterr().err
    assert steps(run) == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("to", ["torchrun", "one rank", "all"])
def test_sigterm_under_torchrun(to: str, corpus: Path, tmp_path: Path) -> None:
    """Its exit code is 1, whatever that of its ranks; a checkpoint is there."""
    save_recipe(recipe(1, corpus, max_steps=100000), tmp_path / "recipe.yaml")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "mint"]
    output = tmp_path / "out"
    command = [*launch, "train", str(tmp_path / "recipe.yaml"), "--output", str(output)]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not checkpoints(output):
        assert child.poll() is None
        time.sleep(0.01)
    pgrep = subprocess.run(["pgrep", "--parent", str(child.pid)], capture_output=True, text=True, check=True)
    ranks = [int(line) for line in pgrep.stdout.split()]
    assert len(ranks) == 2
    for process in {"torchrun": [child.pid], "one rank": ranks[1:], "all": [child.pid, *ranks]}[to]:
        os.kill(process, signal.SIGTERM)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 1
    newest = checkpoints(output)[0]
    assert f"SIGTERM: stopped at step {newest.name.partition('-')[2]} with a checkpoint in {output}" in err
    assert is_whole(newest)
    assert ranks_of(newest) == 2


@pytest.mark.slow
def test_two_ranks_in_the_middle_of_the_second_epoch(corpus: Path, tmp_path: Path) -> None:
    """Where the Trainer by itself does not tell the sampler its epoch."""
    training = {"max_steps": 8, "save_steps": 3, "save_total_limit": 9, "ddp_backend": "gloo"}
    wanted = recipe(1, corpus, **training)
    save_recipe(replace(wanted, data=replace(wanted.data, examples_per_epoch=32)), tmp_path / "recipe.yaml")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "mint"]
    command = [*launch, "train", str(tmp_path / "recipe.yaml"), "--output"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, timeout=300)
    for name in ("recipe.yaml", "checkpoint-6"):
        (tmp_path / "resumed").mkdir(exist_ok=True)
        (tmp_path / "whole" / name).rename(tmp_path / "resumed" / name)
    subprocess.run([*command, str(tmp_path / "resumed"), "--resume"], check=True, timeout=300)
    assert same_weights(tmp_path / "resumed", tmp_path / "whole")


def test_what_a_resumed_history_has_otherwise(corpus: Path, tmp_path: Path) -> None:
    """As docs/training.md says: speeds, the mean loss of the end, and a record that spans the start."""
    wanted = recipe(1, corpus, max_steps=12, save_steps=5, logging_steps=4)
    histories = []
    for name in ("whole", "resumed"):
        run_folder = train_recipe(wanted, tmp_path / name)
        if name == "resumed":
            shutil.rmtree(run_folder / "checkpoint-12")
            (run_folder / "model.safetensors").unlink()
            train_recipe(wanted, run_folder)
        histories.append(json.loads((run_folder / "history.json").read_text()))
    others = []
    for before, after in zip(*histories, strict=True):
        assert before.keys() == after.keys()
        others.append({key for key in before if before[key] != after[key]})
    assert others[:2] == [set(), set()]
    assert others[2] == {"loss", "alc", "alm", "atg", "padding_audio", "padding_text"}  # of the steps 11 and 12 alone
    assert others[3] <= {"train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss"}
