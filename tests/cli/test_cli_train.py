"""`mint train` and `mint cache` on tiny models."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from mint.cli import main
from mint.training.checkpoints import checkpoints, is_whole
from tiny_runs import write_corpus, write_recipe


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus in the working directory."""
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return write_corpus(tmp_path, clips=2)


@pytest.fixture
def recipe(manifest: Path) -> str:
    return write_recipe(manifest.parent / "tiny.yaml", 1, manifest).name


def error(capsys: pytest.CaptureFixture[str]) -> str:
    """The last line on standard error."""
    return capsys.readouterr().err.splitlines()[-1]


def test_a_run_into_its_default_folder(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", recipe]) == 0
    assert re.fullmatch(r"runs/tiny-stage1: finished; padding: \d+% of audio, \d+% of text\n", capsys.readouterr().out)
    assert Path("runs/tiny-stage1/model.safetensors").is_file()


def test_both_stages_and_their_use(recipe: str, manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = write_recipe(Path("second.yaml"), 2, manifest).name
    assert main(["train", recipe, "--output", "run/stage1"]) == 0
    assert main(["train", second, "--output", "run/stage2", "start=run/stage1"]) == 0
    capsys.readouterr()
    assert main(["caption", "run", "low0.wav", "high0.wav"]) == 0
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == ["low0.wav", "high0.wav"]
    assert main(["classify", "run", "low0.wav", "--labels", "low,high", "--method", "similarity"]) == 0
    assert main(["ask", "run/stage2", "low0.wav", "--prompt", "The pitch is"]) == 0
    assert main(["search", "run/stage1", "a low tone", "."]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3 + 1 + 9


@pytest.mark.parametrize(
    "arguments",
    [
        ["training.max_steps=2", "seed=5", "--output", "out"],
        ["--output", "out", "training.max_steps=2", "seed=5"],
        ["training.max_steps=2", "--output", "out", "seed=5"],
    ],
)
def test_overrides_before_and_after_options(recipe: str, arguments: list[str]) -> None:
    assert main(["train", recipe, *arguments]) == 0
    saved = yaml.safe_load(Path("out/recipe.yaml").read_text())
    assert (saved["training"]["max_steps"], saved["seed"]) == (2, 5)
    assert [path.name for path in checkpoints(Path("out"))] == ["checkpoint-2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nonsense=1"], "unrecognized arguments: --nonsense=1"),
        (["--resume", "nonsense"], "override 'nonsense' has no value; write key=value"),
        (["nonsense"], "override 'nonsense' has no value; write key=value"),
        (["trainin.max_steps=2"], "unknown key 'trainin'; did you mean 'training'?"),
        (["training.max_step=2"], "unknown key 'training.max_step'; did you mean 'max_steps'?"),
        (["data.manifests=[nowhere.jsonl]"], "nowhere.jsonl: no such manifest"),
        (["stage=2", "objectives=null", "start=nowhere"], "start: nowhere holds no finished run"),
        (["data.mixture={noise: 1}"], "data.mixture names 'noise'; the manifests have pitch"),
        (["data.manifests=tones.jsonl"], "data.manifests: it is a list; write data.manifests=[tones.jsonl]"),
        (["training.max_steps="], "training.max_steps is None, but it must be a whole number"),
        (["data.examples_per_epoch=0"], "data.examples_per_epoch is 0; it must be at least 1"),
    ],
)
def test_mistakes(recipe: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", recipe, *arguments]) == 2
    assert message in error(capsys)
    assert not Path("runs/tiny-stage1/model.safetensors").exists()


def test_a_folder_that_holds_a_run(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", recipe, "--output", "out", "--resume"]) == 0  # nothing there: from the beginning
    before = Path("out/model.safetensors").read_bytes()
    assert main(["train", recipe, "--output", "out"]) == 2
    assert error(capsys).endswith("out holds a run; continue it with --resume, or choose another folder with --output")
    assert main(["train", recipe, "--output", "out", "--resume"]) == 0
    assert capsys.readouterr().out == "out: finished already\n"
    Path("out/model.safetensors").unlink()
    assert main(["train", recipe, "--output", "out"]) == 2
    assert main(["train", recipe, "--output", "out", "--resume", "seed=1"]) == 2
    assert "out holds a run with seed 0, not 1" in error(capsys)
    assert main(["train", recipe, "--output", "out", "--resume"]) == 0
    assert Path("out/model.safetensors").read_bytes() == before


def test_a_finished_run_of_another_recipe(recipe: str, manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", recipe, "--output", "out"]) == 0
    before = Path("out/model.safetensors").read_bytes()
    assert main(["train", recipe, "--output", "out", "--resume", "training.max_steps=2000"]) == 2
    assert "out holds a run with training.max_steps 3, not 2000; choose another folder, or give the" in error(capsys)
    second = write_recipe(Path("second.yaml"), 2, manifest).name
    assert main(["train", second, "--output", "out", "--resume"]) == 2
    assert "out holds a run with stage 1, not 2; choose another folder" in error(capsys)
    assert main(["train", recipe, "--output", "out", "--resume", "name=other"]) == 2
    assert "out holds a run with name 'tiny-stage1', not 'other'; choose" in error(capsys)
    absolute = f"data.manifests=[{manifest.resolve().parent / '.' / manifest.name}]"
    assert main(["train", recipe, "--output", "out", "--resume", absolute]) == 0
    assert capsys.readouterr().out == "out: finished already\n"
    assert Path("out/model.safetensors").read_bytes() == before


def test_two_trainings_in_one_folder(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As a job that was queued twice: the second is refused while the first trains, and may go on when it is killed."""
    command = [sys.executable, "-m", "mint", "train", recipe, "--output", "out", "training.max_steps=100000"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not checkpoints(Path("out")):
            assert child.poll() is None
            time.sleep(0.01)
        for options in ([], ["--resume"]):
            assert main(["train", recipe, "--output", "out", "training.max_steps=100000", *options]) == 2
            assert "out is being written by another process; wait for it to end, or give another" in error(capsys)
    finally:
        child.kill()
        child.wait()
    assert main(["train", recipe, "--output", "out", "--resume", "training.max_steps=2"]) == 2
    assert "out holds a run with training.max_steps 100000, not 2" in error(capsys)


def test_a_training_that_is_refused_leaves_no_folder(recipe: str) -> None:
    assert main(["train", recipe, "--output", "out", "training.max_steps=0"]) == 2
    assert main(["train", recipe, "--output", "out", "data.manifests=[nowhere.jsonl]"]) == 2
    assert not Path("out").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_record_that_was_cut_off_does_not_stop_a_resumed_run(recipe: str, content: str) -> None:
    assert main(["train", recipe, "--output", "out"]) == 0
    before, record = Path("out/model.safetensors").read_bytes(), Path("out/run.json").read_text()
    Path("out/model.safetensors").unlink()
    Path("out/run.json").write_text(content)
    assert main(["train", recipe, "--output", "out", "--resume"]) == 0
    assert Path("out/run.json").read_text() == record
    assert Path("out/model.safetensors").read_bytes() == before


def test_a_dry_run(recipe: str, manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", recipe, "--dry-run", "training.max_steps=7"]) == 0
    text, table, costs = capsys.readouterr().out.split("\n\n", maxsplit=2)
    assert yaml.safe_load(text)["training"]["max_steps"] == 7
    length, computed = costs.split("\n\n")
    assert length.splitlines()[0] == "6 draws an epoch, 2 steps an epoch, 7 steps in all"
    assert re.fullmatch(
        r"Bridge-Net starts from tiny: 0 tensors .*, \d+ new \(.*\), none .* left", length.splitlines()[1]
    )
    assert "a step of one rank, computed, not measured: 4 clips of 500 frames, texts of 40 tokens" in computed
    assert "s at 35% of its bf16 peak (assumed)" in computed
    assert "note:" not in computed
    rows = {line[:20].strip(): line[20:].split() for line in table.splitlines()[1:]}
    assert [int(number.replace(",", "")) for number in rows["temperature"]] == [1, 0]
    totals = [sum(int(row[place].replace(",", "")) for name, row in rows.items() if name != "all") for place in (0, 1)]
    assert [int(number.replace(",", "")) for number in rows["all"]] == totals
    assert [path.name for path in manifest.parent.iterdir() if path.is_dir()] == ["cache"]
    assert [path.name for path in (manifest.parent / "cache").iterdir()] == ["manifests"]  # where each line begins


def test_a_dry_run_says_what_may_not_be_meant(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", recipe, "--dry-run", "training.per_device_train_batch_size=1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("note: a batch of 1 has no negatives: alc and alm learn")
    odd = ["training.warmup_steps=9", "training.per_device_train_batch_size=7"]
    assert main(["train", recipe, "--dry-run", *odd]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "note: the warm-up of 9 steps is as long as the run of 3",
        "note: the 6 training examples do not fill one batch",
    ]


def test_a_dry_run_names_micro_batches_and_is_printed_once(
    recipe: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", recipe, "--dry-run", "training.gradient_accumulation_steps=2"]) == 0
    assert "measured: 2 micro-batches of 4 clips of 500 frames" in capsys.readouterr().out
    monkeypatch.setenv("RANK", "1")
    assert main(["train", recipe, "--dry-run"]) == 0
    assert capsys.readouterr().out == ""


def test_what_bridge_net_starts_from_is_told_once(
    recipe: str, bert: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = [f"bridge.weights={bert}", "training.max_steps=2"]
    told = f"Bridge-Net starts from {bert}: 48 tensors copied, 13 new (queries, audio_norm, cross_attention), 2 of the"
    assert main(["train", recipe, "--dry-run", *start]) == 0
    assert capsys.readouterr().out.count(told) == 1
    assert main(["train", recipe, "--output", "run/stage1", *start]) == 0
    assert capsys.readouterr().err.count(told) == 1
    report = json.loads(Path("run/stage1/run.json").read_text())["bridge_start"]
    assert (len(report["copied"]), len(report["new"])) == (48, 13)
    assert report["left"] == ["pooler.dense.bias", "pooler.dense.weight"]
    second = write_recipe(Path("second.yaml"), 2, manifest).name
    assert main(["train", second, "--output", "run/stage2", "start=run/stage1", *start]) == 0
    assert "Bridge-Net starts from the stage 1 in run/stage1\n" in capsys.readouterr().err
    assert json.loads(Path("run/stage2/run.json").read_text())["bridge_start"] is None


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is one")
def test_a_dry_run_for_ranks_and_accelerators_that_are_not_here(
    recipe: str, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = write_recipe(Path("second.yaml"), 2, manifest).name
    far = ["start=nowhere", "training.use_cpu=false", "training.bf16=true", "training.fsdp=true"]
    assert main(["train", second, "--dry-run", "--ranks", "2", *far]) == 0
    out = capsys.readouterr().out
    assert yaml.safe_load(out.split("\n\n")[0])["start"] == "nowhere"
    assert "12 draws an epoch, 2 steps an epoch, 3 steps in all, on 2 ranks" in out
    assert [line for line in out.splitlines() if line.startswith("note:")] == [
        "note: there is no accelerator here: planned on the CPU",
        "note: the memory is that of whole weights on each rank, without training.fsdp",
        "note: start: nowhere holds no finished run yet; planned without it",
        "note: the 6 training examples do not fill one batch",
    ]
    for mistake, message in (
        (["--ranks", "2"], "--ranks 2 plans a training; add --dry-run"),
        (["--ranks", "0", "--dry-run"], "argument --ranks: '0' is not a whole number of at least 1"),
    ):
        assert main(["train", recipe, *mistake]) == 2
        assert message in error(capsys)


def test_sigterm(recipe: str) -> None:
    command = [sys.executable, "-m", "mint", "train", recipe, "--output", "out", "training.max_steps=100000"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not checkpoints(Path("out")):
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate()
    assert child.returncode == 143
    newest = checkpoints(Path("out"))[0]
    assert f"SIGTERM: stopped at step {newest.name.partition('-')[2]} with a checkpoint in out" in err
    assert "Traceback" not in err
    assert is_whole(newest)


def test_cache(recipe: str, manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("low1.wav").write_text("not audio")
    assert main(["cache", recipe]) == 0
    first, skipped, listed = capsys.readouterr().out.splitlines()
    assert first.startswith(f"8 encoded, 0 already there, 1 skipped: {manifest.parent / 'cache' / 'features'}")
    assert skipped.startswith("  skipped low1: ")
    assert listed.startswith("  all that were skipped are listed in ")
    assert main(["cache", recipe]) == 0
    assert capsys.readouterr().out.startswith("0 encoded, 8 already there, 1 skipped: ")
    assert main(["cache", recipe, "data.max_seconds=0.2"]) == 0
    assert capsys.readouterr().out.startswith("8 encoded, 0 already there, 1 skipped: ")


def test_what_cache_skips_is_listed(
    recipe: str, manifest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of it, in the form of a run's list, by each rank; files whose name is not valid Unicode too."""
    good = {path: path.read_bytes() for path in Path().glob("*.wav")}
    odd = os.fsdecode(b"\xff.wav")
    manifest.write_text(manifest.read_text().replace("low0.wav", json.dumps(odd)[1:-1]))
    for path in good:
        path.write_text("not audio")
    assert main(["cache", recipe]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = next((manifest.parent / "cache" / "features").glob("*/skipped.jsonl"))
    assert lines[-1] == f"  all that were skipped are listed in {place}"
    listed = [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines()]
    assert [f"  skipped {one['id']}: {one['reason']}" for one in listed[1:]] == lines[2:-1]
    assert [one["audio"] for one in listed][:2] == [str(manifest.parent / odd), str(manifest.parent / "low1.wav")]
    assert listed[0].keys() == {"id", "audio", "reason"}

    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, count in (("0", 4), ("1", 5)):
        monkeypatch.setenv("RANK", rank)
        assert main(["cache", recipe]) == 0
        own = place.with_name(f"skipped-{rank}-of-2.jsonl")
        assert capsys.readouterr().out.splitlines()[-1].endswith(str(own))
        assert len(own.read_text().splitlines()) == count
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")

    for path, content in good.items():
        path.write_bytes(content)
    Path(odd).write_bytes(good[Path("low0.wav")])
    assert main(["cache", recipe]) == 0
    assert "listed" not in capsys.readouterr().out
    assert not place.exists()
