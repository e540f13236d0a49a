"""A run's stages are found from any of its folders and from anywhere, and what is no run is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mint.config import EncoderConfig, load_recipe, save_recipe
from mint.run_folder import find_stages, load_record, locate
from mint.types import MintError
from tiny_runs import recipe, train_both, train_recipe, write_corpus


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINT_CACHE", str(folder / "cache"))
        yield train_both(folder)


@pytest.mark.parametrize("given", [".", "stage1", "stage2"])
def test_both_stages_are_found_from_either(run: Path, given: str) -> None:
    assert find_stages(run / given) == {1: run / "stage1", 2: run / "stage2"}


def test_stage_1_is_found_where_stage_2_started(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "stage2", tmp_path / "mine")
    assert find_stages(tmp_path / "mine") == {1: run / "stage1", 2: tmp_path / "mine"}


def test_a_neighbour_with_another_encoder_is_not_taken(run: Path, tmp_path: Path) -> None:
    for stage in (1, 2):
        shutil.copytree(run / f"stage{stage}", tmp_path / f"stage{stage}")
    path = tmp_path / "stage1" / "recipe.yaml"
    save_recipe(replace(load_recipe(path), encoder=EncoderConfig(family="tiny", weights="other")), path)
    assert find_stages(tmp_path / "stage1") == {1: tmp_path / "stage1"}
    assert find_stages(tmp_path / "stage2") == {1: run / "stage1", 2: tmp_path / "stage2"}


def test_an_unfinished_stage_is_no_stage(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "stage1", tmp_path / "stage1")
    shutil.copytree(run / "stage2", tmp_path / "stage2", ignore=shutil.ignore_patterns("model.safetensors"))
    assert find_stages(tmp_path) == {1: tmp_path / "stage1"}
    with pytest.raises(MintError, match=r"stage2 is not finished \(no model.safetensors\); go on with .*--resume"):
        find_stages(tmp_path / "stage2")
    with pytest.raises(MintError, match="no such folder"):
        find_stages(tmp_path / "stage3")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MintError, match="empty holds no finished run"):
        find_stages(tmp_path / "empty")
    (tmp_path / "file").write_text("x")
    with pytest.raises(MintError, match=r"file' is a file; give the folder of a finished run, such as"):
        find_stages(tmp_path / "file")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory in which both stages were trained by relative paths, as the recipes of the paper have them.

    Both are at `runs/first` and `runs/second`: nothing but `start` says that they belong together.
    """
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(folder)
    write_corpus(folder, clips=1)
    train_recipe(recipe(1, Path("tones.jsonl"), max_steps=1), Path("runs/first"))
    stage2 = replace(recipe(2, Path("tones.jsonl"), max_steps=1), start="runs/first")
    train_recipe(stage2, Path("runs/second"))
    return folder


def test_paths_of_a_recipe_hold_from_any_folder(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = {1: project / "runs" / "first", 2: project / "runs" / "second"}
    assert find_stages(Path("runs/second")).keys() == {1, 2}
    (tmp_path / "tones.jsonl").write_text("another file of the same name")
    monkeypatch.chdir(tmp_path)
    assert find_stages(project / "runs" / "second") == stages
    assert find_stages(Path("project/runs/second"))[1].resolve() == stages[1]
    assert locate(Path("project/runs/second"), "tones.jsonl") == project / "tones.jsonl"
    assert locate(stages[2], tmp_path / "x.jsonl") == tmp_path / "x.jsonl"

    # A link to the run, and the whole project under another name.
    (tmp_path / "link").symlink_to(stages[2])
    assert find_stages(tmp_path / "link") == {1: stages[1], 2: tmp_path / "link"}
    project.rename(tmp_path / "renamed")
    assert find_stages(tmp_path / "renamed" / "runs" / "second")[1] == tmp_path / "renamed" / "runs" / "first"


def test_a_run_that_was_copied_alone_is_complete_without_the_rest(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "runs" / "second", tmp_path / "a" / "copy")
    assert find_stages(tmp_path / "a" / "copy") == {2: tmp_path / "a" / "copy"}
    (tmp_path / "b").mkdir()
    shutil.copytree(project / "runs" / "second", tmp_path / "b" / "stage2")
    shutil.copytree(project / "runs" / "first", tmp_path / "b" / "stage1")
    for given in ("", "stage1", "stage2"):
        assert find_stages(tmp_path / "b" / given) == {1: tmp_path / "b" / "stage1", 2: tmp_path / "b" / "stage2"}


def test_stage_1_is_the_one_that_stage_2_started_from(run: Path, tmp_path: Path) -> None:
    """A neighbour of that name may be another training."""
    shutil.copytree(run / "stage1", tmp_path / "other" / "stage1")
    shutil.copytree(run / "stage2", tmp_path / "other" / "stage2")
    assert find_stages(tmp_path / "other" / "stage2") == {1: run / "stage1", 2: tmp_path / "other" / "stage2"}


def test_a_folder_with_stage_2_alone_has_the_stage_1_that_it_started_from(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "stage2", tmp_path / "cell" / "stage2")
    assert find_stages(tmp_path / "cell") == {1: run / "stage1", 2: tmp_path / "cell" / "stage2"}


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000])
def test_a_broken_record_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(MintError, match=r"cannot read .*run.json \(.*; copy the whole folder of the run again"):
        load_record(tmp_path)


def test_a_run_says_where_it_was_started(project: Path) -> None:
    record = json.loads((project / "runs" / "first" / "run.json").read_text())
    assert record["started_in"] == "../.."
