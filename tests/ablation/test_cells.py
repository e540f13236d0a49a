"""Ablations on tiny models: the right cells, shared work, nothing done twice, and what is missing is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mint.ablation import cells as module
from mint.ablation.cells import AXIS_NAMES, Ablation, cells, missing, run
from mint.cli import main
from mint.cli.ablate import parse_seeds
from mint.config import Recipe, load_recipe
from mint.evaluation.results.file import read_results
from mint.training.train import train
from mint.types import MintError
from tiny_runs import write_corpus

TINY = (
    "encoder.family=tiny",
    "bridge.weights=tiny",
    "bridge.num_layers=2",
    "bridge.max_text_tokens=40",
    "stage2.language.family=tiny",
    "data.mixture={}",
    "training.max_steps=2",
    "training.warmup_steps=0",
    "training.per_device_train_batch_size=4",
    "training.report_to=[]",
    "training.use_cpu=true",
    "stage1.training.learning_rate=1.0e-3",
)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ablation:
    """An ablation over tiny models and a corpus that is `rendered` into its folder."""

    def prepare(folder: Path, *_: Any, **options: Any) -> list[Path]:
        prepared.append(options)
        folder.mkdir(exist_ok=True)
        return [write_corpus(folder, clips=2)]

    prepared: list[Any] = []
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "prepare_quickstart", prepare)
    monkeypatch.setattr(module, "fetch", lambda name: tmp_path)
    monkeypatch.setattr(module, "QUERIES", (4, 8))
    return Ablation(tmp_path / "out", seeds=(0,), overrides=TINY, tasks=("pitch", "retrieval"))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Recipe]]:
    """Folder and recipe of each training that is done."""
    seen: list[tuple[str, Recipe]] = []

    def spy(recipe: Recipe, output: Path, *rest: Any) -> Path:
        seen.append((f"{output.parent.name}/{output.name}", recipe))
        return train(recipe, output, *rest)

    monkeypatch.setattr(module, "train", spy)
    return seen


def test_cells_are_the_papers_and_three_axes_more() -> None:
    every = {cell.name: cell for cell in cells(Ablation(Path("out")))}
    assert list(every) == [
        "base", "objectives=ALC", "objectives=ALC+ATG", "objectives=ALC+ALM", "instruction=off",
        "queries=4", "queries=16", "cross_attention=2", "cross_attention=3",
    ]  # fmt: skip
    assert every["base"].axes == {
        "objectives": "ALC+ALM+ATG", "instruction": "on", "queries": "8", "cross_attention": "1",
    }  # fmt: skip
    assert [name for name, cell in every.items() if cell.shares_stage1] == ["instruction=off"]


@pytest.mark.parametrize(
    ("name", "switched_on"),
    [
        ("base", "alc alm atg"),
        ("objectives=ALC", "alc"),
        ("objectives=ALC+ATG", "alc atg"),
        ("objectives=ALC+ALM", "alc alm"),
    ],
)
def test_each_sum_of_losses_is_what_its_name_says(name: str, switched_on: str) -> None:
    ablation = Ablation(Path("out"))
    cell = next(cell for cell in cells(ablation) if cell.name == name)
    objectives = module._recipe(ablation, 1, 5, cell, [Path("m")], Path("first")).objectives
    assert objectives is not None
    assert " ".join(part for part in ("alc", "alm", "atg") if getattr(objectives, part)) == switched_on


def test_every_cell_changes_one_thing_alone() -> None:
    ablation = Ablation(Path("out"))
    base, *others = cells(ablation)
    for cell in others:
        for stage in (1, 2):
            plain, changed = (module._recipe(ablation, stage, 0, one, [], Path("first")) for one in (base, cell))
            parts = [name for name in ("objectives", "bridge", "instruction_aware") if
                     getattr(plain, name) != getattr(changed, name)]  # fmt: skip
            expected = {
                "objectives": ["objectives"] * (stage == 1),
                "instruction": ["instruction_aware"] * (stage == 2),
            }
            axis = next(iter(cell.axes))
            assert parts == expected.get(axis, ["bridge"])
            assert replace(changed, **{name: getattr(plain, name) for name in parts}) == plain


def test_only_some_axes_and_a_base_of_another_size() -> None:
    assert [cell.name for cell in cells(Ablation(Path("out"), only=("stages",)))] == ["base"]
    other = Ablation(Path("out"), only=("queries",), overrides=("bridge.num_queries=4",))
    assert [cell.name for cell in cells(other)] == ["base", "queries=8", "queries=16"]
    assert cells(other)[0].axes["queries"] == "4"


def test_overrides_go_to_their_stage() -> None:
    ablation = Ablation(Path("out"), overrides=("stage1.training.max_steps=7", "stage2.training.max_steps=9", "name=x"))
    recipes = [module._recipe(ablation, stage, 3, cells(ablation)[0], [], Path("first")) for stage in (1, 2)]
    assert [recipe.training["max_steps"] for recipe in recipes] == [7, 9]
    assert [(recipe.name, recipe.seed, recipe.start) for recipe in recipes] == [("x", 3, None), ("x", 3, "first")]


def test_a_whole_ablation(tiny: Ablation, trained: list[tuple[str, Recipe]]) -> None:
    tiny = replace(tiny, seeds=(0, 1), only=("stages", "instruction"))
    runs = run(tiny)
    assert missing(tiny) == []
    assert [run.axes["instruction"] for run in runs] == ["on", "off"]
    assert {run.seeds for run in runs} == {(0, 1)}
    assert [folder for folder, _ in trained] == 2 * ["base/stage1", "base/stage2", "instruction=off/stage2"]
    off = next(recipe for folder, recipe in trained if folder == "instruction=off/stage2")
    assert off.start == str(tiny.output / "seed0" / "base" / "stage1")
    text = (tiny.output / "ablation.md").read_text(encoding="utf-8")
    assert "missing" not in text
    assert "| ALC+ALM+ATG | *quoted* | 68.26 | 49.66 |" in text
    for row in ("Stage1", "Stage1+2", "on", "off"):
        assert f"| {row} | [1] | " in text
    assert (tiny.output / "ablation.png").read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in (tiny.output / "ablation.svg").read_text(encoding="utf-8")
    results = read_results(tiny.output / "seed1" / "base" / "results.json")
    assert results.seed == 1
    assert results.extra["ablation"]["cell"] == "base"
    assert results.extra["ablation"]["axes"]["objectives"] == "ALC+ALM+ATG"
    assert [split["by_file"] for split in results.extra["leakage"]["splits"]] == [0]
    assert {row.method for row in results.rows} >= {"stage1", "stage2", "chance"}
    before = len(trained)
    run(tiny)
    assert len(trained) == before


def test_an_interruption_leaves_tables_and_says_what_is_missing(
    tiny: Ablation,
    trained: list[tuple[str, Recipe]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny = replace(tiny, only=("queries", "objectives"))
    original = module._run_cell

    def interrupted(ablation: Ablation, seed: int, cell: module.Cell, *rest: Any) -> None:
        if cell.name == "queries=4":
            raise KeyboardInterrupt
        original(ablation, seed, cell, *rest)

    monkeypatch.setattr(module, "_run_cell", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tiny)
    assert capsys.readouterr().err.splitlines()[-1] == (
        "missing: seed 0: queries=4; run the same command again to continue"
    )
    text = (tiny.output / "ablation.md").read_text(encoding="utf-8")
    assert "missing: seed 0: queries=4\n" in text
    for row in ("ALC", "ALC+ATG", "ALC+ALM", "ALC+ALM+ATG"):
        assert f"| {row} | [1] | " in text
    monkeypatch.setattr(module, "_run_cell", original)
    before = len(trained)
    run(tiny)
    assert [folder for folder, _ in trained[before:]] == ["queries=4/stage1", "queries=4/stage2"]
    assert "missing" not in (tiny.output / "ablation.md").read_text(encoding="utf-8")


def test_seeds_and_axes_may_be_added_but_settings_may_not_change(tiny: Ablation) -> None:
    tiny = replace(tiny, only=("stages",))
    run(tiny)
    assert [(seed, cell.name) for seed, cell in missing(replace(tiny, seeds=(0, 1), only=AXIS_NAMES))][:2] == [
        (0, "objectives=ALC"),
        (0, "objectives=ALC+ATG"),
    ]
    for change in ({"overrides": (*TINY, "training.max_steps=3")}, {"tasks": ("pitch",)}, {"scale": 0.5}):
        with pytest.raises(MintError, match="holds an ablation with"):
            run(replace(tiny, **change))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"only": ("loss",)}, "no ablation 'loss'; choose from objectives, stages"),
        ({"seeds": ()}, "no seeds are given"),
        ({"overrides": ("objectives.alm=false",)}, "belongs to stage 1"),
        ({"overrides": ("stage1.objectives.alm=false",)}, "switch off an objective"),
        ({"overrides": ("instruction_aware=false",)}, "belongs to stage 2"),
        ({"overrides": ("stage2.instruction_aware=false",)}, "switch off an objective or the instruction"),
        ({"overrides": ("bridge.num_querys=3",)}, "did you mean 'num_queries'"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(tmp_path: Path, options: Any, words: str) -> None:
    with pytest.raises(MintError, match=words):
        run(Ablation(tmp_path / "out", **options))
    assert not (tmp_path / "out" / "ablation.json").exists()


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out"
    command = ["ablate", "quickstart", "--seeds", "3,4", "--only", "instruction", "--output", str(output)]
    assert main([*command, "training.max_steps=5", "--dry-run"]) == 0
    assert capsys.readouterr().out == "missing: seed 3: base, instruction=off; seed 4: base, instruction=off\n"
    assert not output.exists()
    seen: list[Ablation] = []

    def fake(ablation: Ablation) -> None:
        seen.append(ablation)
        ablation.output.mkdir()
        (ablation.output / "ablation.md").write_text("the tables")

    monkeypatch.setattr(module, "run", fake)
    assert main([*command, "training.max_steps=5", "--task", "notes", "--scale", "0.25"]) == 0
    assert seen == [Ablation(output, (3, 4), ("instruction",), ("training.max_steps=5",), ("notes",), 0.25)]
    assert "the tables" in capsys.readouterr().out


def test_seeds_are_whole_numbers() -> None:
    assert parse_seeds("0,1,2") == (0, 1, 2)
    with pytest.raises(MintError, match="--seeds is '0,x'"):
        parse_seeds("0,x")


def test_settings_are_written_down(tiny: Ablation) -> None:
    run(replace(tiny, only=("stages",)))
    settings = json.loads((tiny.output / "ablation.json").read_text(encoding="utf-8"))
    assert settings == {"overrides": list(TINY), "tasks": ["pitch", "retrieval"], "scale": 1.0}
    assert load_recipe(tiny.output / "seed0" / "base" / "stage1" / "recipe.yaml").training["max_steps"] == 2
