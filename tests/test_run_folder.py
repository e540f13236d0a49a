"""A run's stages are found from any of its folders and from anywhere, and what is no run is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from mint import Mint
from mint.config import EncoderConfig, load_recipe, recipe_from_dict, save_recipe
from mint.run_folder import find_stages, load_record, load_run_recipe, locate, relative_paths, with_paths
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
    with pytest.raises(
        MintError, match=r"stage2 is not finished \(no model.safetensors\); continue it with .*--resume"
    ):
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


@pytest.mark.parametrize("content", ["", "[]", "{", "{}", "[" * 100_000])
def test_a_broken_record_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(MintError, match=r"cannot read .*run.json \(.*; copy the whole folder of the run again"):
        load_record(tmp_path)


def test_a_run_says_where_its_paths_lead(project: Path) -> None:
    record = json.loads((project / "runs" / "second" / "run.json").read_text())
    assert record["paths"] == {"tones.jsonl": "../../tones.jsonl", "runs/first": "../first"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with `data` and, trained from its root, `runs/first` and `runs/second`, a stage 2 that starts from it."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINT_CACHE", str(root / "cache"))
        patch.chdir(root)
        Path("data").mkdir()
        manifest = write_corpus(Path("data"))
        train_recipe(recipe(1, manifest, max_steps=1), Path("runs/first"))
        train_recipe(replace(recipe(2, manifest, max_steps=1), start="runs/first"), Path("runs/second"))
    return root


@pytest.fixture
def tree(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tree, beside an empty working directory."""
    monkeypatch.setenv("MINT_CACHE", str(trained / "cache"))
    shutil.copytree(trained, tmp_path / "tree")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "tree"


def test_a_stage_2_is_used_from_any_folder(tree: Path) -> None:
    """The tree was moved too: a path that the run's recipe gives is not there, neither from here nor from the root."""
    second = tree / "runs" / "second"
    assert find_stages(second) == {1: tree / "runs" / "first", 2: second}
    assert Mint.from_pretrained(second).embed_text("a tone").shape == (256,)


def test_the_recipe_of_a_run_stays_as_it_was_given(tree: Path) -> None:
    second = tree / "runs" / "second"
    assert yaml.safe_load((second / "recipe.yaml").read_text())["start"] == "runs/first"
    assert json.loads((second / "run.json").read_text())["paths"] == {
        "data/tones.jsonl": "../../data/tones.jsonl",
        "runs/first": "../first",
    }
    located = load_run_recipe(second)
    assert located.data.manifests == (str(tree / "data" / "tones.jsonl"),)
    assert located.start == str(tree / "runs" / "first")
    assert replace(located, data=load_recipe(second / "recipe.yaml").data, start="runs/first") == load_recipe(
        second / "recipe.yaml"
    )


def test_from_where_it_was_trained_paths_stay_short(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert load_run_recipe(Path("runs/second")) == load_recipe("runs/second/recipe.yaml")


def test_another_file_of_the_same_name_is_not_taken(tree: Path) -> None:
    """The working directory happens to have what the recipe's relative path names."""
    Path("data").mkdir()
    Path("data/tones.jsonl").write_text("another corpus")
    assert load_run_recipe(tree / "runs" / "second").data.manifests == (str(tree / "data" / "tones.jsonl"),)


def test_absolute_paths_are_found_too_once_all_is_moved(tree: Path, tmp_path: Path) -> None:
    wanted = replace(recipe(2, tree / "data" / "tones.jsonl", max_steps=1), start=str(tree / "runs" / "first"))
    train_recipe(wanted, tree / "runs" / "third")
    shutil.copytree(tree, tmp_path / "copy")
    assert load_run_recipe(tmp_path / "copy" / "runs" / "third") == load_run_recipe(tree / "runs" / "third")
    tree.rename(tmp_path / "moved")
    located = load_run_recipe(tmp_path / "moved" / "runs" / "third")
    assert located.data.manifests == (str(tmp_path / "moved" / "data" / "tones.jsonl"),)
    assert located.start == str(tmp_path / "moved" / "runs" / "first")


def test_a_run_behind_a_link(tree: Path) -> None:
    """The paths are relative to where the run is, not to the link."""
    (tree / "runs").rename(tree / "disk")
    Path("here").symlink_to(tree / "disk")
    assert load_run_recipe(Path("here/second")).start == str(tree / "disk" / "first")


def test_a_run_is_gone_on_with_from_another_folder(tree: Path) -> None:
    """It is the same recipe, though its paths are written in another way."""
    second = tree / "runs" / "second"
    wanted = replace(recipe(2, tree / "data" / "tones.jsonl", max_steps=1), start=str(tree / "runs" / "first"))
    before = (second / "model.safetensors").read_bytes()
    (second / "model.safetensors").unlink()
    train_recipe(wanted, second)
    assert (second / "model.safetensors").read_bytes() == before
    assert load_recipe(second / "recipe.yaml").start == str(tree / "runs" / "first")

    shutil.copytree(tree / "runs" / "first", tree / "runs" / "third")
    with pytest.raises(MintError, match=r"holds a run with start '.*first', not '.*third'; choose another folder"):
        train_recipe(replace(wanted, start=str(tree / "runs" / "third")), second)


def test_every_path_of_a_recipe_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("encoder", "bridge", "vocabulary", "language", "first"):
        Path(name).mkdir()
    for name in ("one.jsonl", "two.jsonl", "blacklist.json"):
        Path(name).touch()
    values = {
        "name": "all",
        "stage": 2,
        "encoder": {"family": "waveform", "weights": "encoder"},
        "bridge": {"weights": "bridge", "tokenizer": str(tmp_path / "vocabulary")},
        "language": {"weights": "./language"},
        "data": {"manifests": ["one.jsonl", "two.jsonl", "missing.jsonl"], "blacklists": ["blacklist.json"]},
        "start": "first",
    }
    wanted = recipe_from_dict(values)
    assert relative_paths(wanted, tmp_path / "runs" / "all") == {
        "encoder": "../../encoder",
        "bridge": "../../bridge",
        str(tmp_path / "vocabulary"): "../../vocabulary",
        "./language": "../../language",
        "one.jsonl": "../../one.jsonl",
        "two.jsonl": "../../two.jsonl",
        "blacklist.json": "../../blacklist.json",
        "first": "../../first",
    }
    seen: list[str] = []
    assert with_paths(wanted, lambda path: seen.append(path) or path) == wanted  # type: ignore[func-returns-value]
    assert len(seen) == 9


def test_names_of_the_hub_and_of_assets_are_no_paths(tmp_path: Path) -> None:
    assert relative_paths(load_recipe("paper/stage2"), tmp_path) == {}
    assert relative_paths(load_recipe("quickstart/stage2"), tmp_path) == {}


def test_what_is_shared_holds_no_paths(tree: Path) -> None:
    shared = Mint.from_pretrained(tree / "runs" / "second").save_pretrained(tree.parent / "shared")
    assert "paths" not in json.loads((shared / "stage2" / "run.json").read_text())
    assert find_stages(shared) == {1: shared / "stage1", 2: shared / "stage2"}
