"""A results file of a run says what its training shares with what it was tested on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mint.config import load_recipe, save_recipe
from mint.evaluation.evaluate_run import evaluate_run
from tiny_runs import train_both


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
