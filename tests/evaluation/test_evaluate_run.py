"""A run is evaluated as it was trained, from any folder, and what goes wrong is said before hours are spent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mint import Mint
from mint.cli import main
from mint.config import Recipe, load_recipe, save_recipe
from mint.data.features.prepare import read_examples
from mint.evaluation import evaluate_run as module
from mint.evaluation.evaluate_run import evaluate_run
from mint.evaluation.results.measures import read_measures
from mint.evaluation.settings import Settings
from mint.inference import Method
from mint.types import MintError
from tiny_runs import recipe, train_both, train_recipe, write_corpus


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Both stages, trained in the working directory `project` by relative paths, as the shipped recipes are."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINT_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        write_corpus(folder)
        train_recipe(short(recipe(1, Path("tones.jsonl")), max_tokens=40, max_seconds=30.0), Path("runs/first"))
        stage2 = short(recipe(2, Path("tones.jsonl")), max_tokens=5, max_seconds=0.25)
        train_recipe(replace(stage2, start="runs/first"), Path("runs/second"))
        yield folder / "runs" / "second"


def short(recipe: Recipe, max_tokens: int, max_seconds: float) -> Recipe:
    """A recipe whose stage reads less than the other one."""
    bridge = replace(recipe.bridge, max_text_tokens=max_tokens)
    return replace(recipe, bridge=bridge, data=replace(recipe.data, max_seconds=max_seconds))


@pytest.fixture(autouse=True)
def _elsewhere(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test stands in a folder of its own, where the run's relative paths lead nowhere."""
    monkeypatch.setenv("MINT_CACHE", str(run.parent.parent / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def several(run: Path, tmp_path: Path) -> Path:
    """A manifest of a task with several labels a clip, whose scores a results file keeps."""
    lines = []
    for line in (run.parent.parent / "tones.jsonl").read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        values |= {"audio": str(run.parent.parent / values["audio"]), "prompt": "The pitch that is heard in this is"}
        lines.append(json.dumps({**values, "unknown": ["high"] if values["labels"] == ["low"] else []}))
    path = tmp_path / "several.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_each_stage_reads_what_it_was_trained_to_read(run: Path, several: Path) -> None:
    """Tokens and windows are each stage's own, so that evaluation and use agree on a file."""
    results, _ = evaluate_run(run, ["pitch"], [str(several)])
    measures = read_measures(results.extra["per_clip"])
    mint = Mint.from_pretrained(run)
    examples = {f"{example.corpus}/{example.id}": example for example in read_examples([several])}
    methods: tuple[Method, ...] = ("similarity", "vocabulary")
    for stage, method in enumerate(methods, start=1):
        measure = measures["pitch", "test", "map", f"stage{stage}"]
        clips = [examples[clip].audio for clip in measure.clips.ids]
        prompt = "The pitch that is heard in this is"
        used = mint.classify(clips, ["high", "low", "middle"], prompt=prompt, method=method)
        expected = np.array([list(scores.values()) for scores in used])
        if stage == 1:
            assert mint._stage1 is not None
            expected *= mint._stage1.model.temperature.item()
        found = measure.arrays[0]
        # What is added to all scores of a clip ranks nothing.
        gap = (found - found.mean(axis=1, keepdims=True)) - (expected - expected.mean(axis=1, keepdims=True))
        assert np.abs(gap).max() < 1e-5


def test_both_stages_are_measured_where_only_the_recipe_names_the_first(run: Path) -> None:
    results, path = evaluate_run(run, ["pitch"])
    assert path == run / "results-pitch.json"
    assert {row.method for row in results.rows} >= {"stage1", "stage2", "probe"}
    assert results.extra["objectives"] == "ALC+ALM+ATG"
    assert results.extra["manifests"] == ["tones.jsonl"]
    assert results.extra["corpora"] == {"pitch": ["tones"]}


def test_manifests_of_the_recipe_are_found_from_any_folder(run: Path, tmp_path: Path) -> None:
    """A file of that name in the working directory is not the one."""
    (tmp_path / "tones.jsonl").write_text("this is not the manifest of the run")
    results, _ = evaluate_run(run, ["pitch"], output=tmp_path / "r.json")
    assert {row.n for row in results.rows} == {3}
    (split,) = results.extra["leakage"]["splits"]
    assert split["clips"] == 3


def test_a_manifest_that_is_gone_is_named_with_the_cure(run: Path, several: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "copy")
    with pytest.raises(MintError, match=r"no such manifest; the recipe of .*copy names tones.jsonl, .*--manifest FILE"):
        evaluate_run(tmp_path / "copy", ["pitch"])
    results, _ = evaluate_run(tmp_path / "copy", ["pitch"], [str(several)])
    assert {row.method for row in results.rows} >= {"stage2"}
    assert "no such manifest" in results.extra["leakage"]["not_computed"]


@pytest.mark.parametrize("option", ["--output", "--report"])
@pytest.mark.parametrize("blocked", ["folder", "below a file"])
def test_what_cannot_be_written_is_refused_before_anything_is_measured(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    blocked: str,
) -> None:
    monkeypatch.setattr(module, "read_examples", lambda _: pytest.fail("the manifests are read"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    path, words = {"folder": ("folder", "is a folder"), "below a file": ("file/r.json", "cannot be written")}[blocked]
    assert main(["evaluate", str(run), option, path]) == 2
    assert f"{path} {words}" in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder"]


def test_a_leakage_report_that_fails_takes_nothing_with_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise OSError("the disk is gone")

    monkeypatch.setattr(module, "leakage_record", fail)
    results, _ = evaluate_run(run, ["pitch"], output=tmp_path / "r.json")
    assert results.extra["leakage"] == {"not_computed": "OSError: the disk is gone"}
    assert {row.method for row in results.rows} >= {"stage1", "stage2"}


def test_what_is_no_run_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run / "recipe.yaml")]) == 2
    assert "recipe.yaml' is a file; give the folder of a finished run" in capsys.readouterr().err
    assert main(["evaluate", "nothing"]) == 2
    assert "no such folder: 'nothing'" in capsys.readouterr().err
    assert main(["evaluate", str(run.parent)]) == 2
    assert "holds no finished run" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["tables", "FOLDER", "--output", "out"], ["compare", "FOLDER", "FOLDER"]])
def test_a_folder_is_no_results_file(run: Path, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert main([word.replace("FOLDER", str(run)) for word in command]) == 2
    assert "is a folder; give a results file" in capsys.readouterr().err


def test_where_nothing_can_be_scored_the_file_says_why(
    run: Path, several: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mint.evaluation.metrics.captions.missing", lambda names: dict.fromkeys(names, "no package"))
    monkeypatch.setattr("mint.evaluation.metrics.sentences.missing", lambda: "no encoder")
    monkeypatch.setattr("mint.predict.generate", lambda *_, **__: pytest.fail("captions are made"))
    assert main(["evaluate", str(run), "--task", "captioning", "--manifest", unlabelled(several)]) == 2
    results = json.loads((run / "results-captioning.json").read_text(encoding="utf-8"))
    assert results["rows"] == []
    assert results["not_computed"]["cider_d"] == "no package"
    assert "not computed: cider_d, rouge_l, " in capsys.readouterr().err


def unlabelled(manifest: Path) -> str:
    lines = []
    for line in manifest.read_text(encoding="utf-8").splitlines():
        lines.append(json.dumps({**json.loads(line), "labels": [], "unknown": [], "answer": None}))
    path = manifest.with_name("unlabelled.jsonl")
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def leaky(folder: Path, run: Path, task: str, split: str = "test", **values: Any) -> str:
    """A manifest with one held-out clip that the run has trained on."""
    line = {"id": f"{task}-0", "audio": str(folder / "low0.wav"), "task": task, "corpus": "other", "split": split}
    path = folder / f"{task}.jsonl"
    path.write_text(json.dumps({**line, **values}), encoding="utf-8")
    return str(path)


def test_leakage_counts_only_what_was_measured(run: Path, tmp_path: Path) -> None:
    """A captioned clip of another task is trained on, but only `pitch` is measured; and of the captions, one clip."""
    folder = run.parent.parent
    other = leaky(folder, run, "loudness", prompt="It is", labels=["soft"], captions=["a soft tone"])
    both = [str(folder / "tones.jsonl"), other]
    results, _ = evaluate_run(run, ["pitch"], both, output=tmp_path / "r.json")
    (split,) = results.extra["leakage"]["splits"]
    assert (split["task"], split["clips"], split["by_file"]) == ("pitch", 3, 0)
    assert results.extra["corpora"] == {"pitch": ["tones"]}

    few = Settings(retrieved_clips=2)
    results, _ = evaluate_run(run, ["retrieval"], both, few, output=tmp_path / "r.json")
    assert sum(split["clips"] for split in results.extra["leakage"]["splits"]) == 2
    everything, _ = evaluate_run(run, ["retrieval"], both, output=tmp_path / "r.json")
    assert {split["task"]: split["by_file"] for split in everything.extra["leakage"]["splits"]} == {
        "loudness": 1,
        "pitch": 0,
    }
    assert everything.extra["corpora"] == {"retrieval": ["other", "tones"]}


def test_the_leakage_report_stands_in_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    run = train_both(tmp_path)
    shutil.copy(tmp_path / "low0.wav", tmp_path / "low3.wav")  # a training clip in place of a test clip
    results, _ = evaluate_run(run, ["pitch"])
    assert results.extra["leakage"]["blacklists"] == {}
    (split,) = results.extra["leakage"]["splits"]
    assert (split["corpus"], split["task"], split["split"], split["clips"]) == ("tones", "pitch", "test", 3)
    assert (split["by_id"], split["by_file"], split["by_caption"]) == (0, 1, 3)
    assert ["file", "tones/low0", "tones/low3"] in split["pairs"]


def test_the_blacklists_of_the_recipe_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    run = train_both(tmp_path)
    listed = tmp_path / "blacklist.json"
    listed.write_text('{"AudioSet": [], "FreeSound": [64760]}')
    saved = run / "stage1" / "recipe.yaml"
    recipe = load_recipe(saved, [f"data.blacklists=[{listed}]"])
    save_recipe(recipe, saved)
    results, _ = evaluate_run(run, ["pitch"])
    assert results.extra["leakage"]["blacklists"] == {str(listed): {"ids": 1, "clips": 0, "unread": 0}}
