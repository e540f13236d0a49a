"""Every recipe that ships is loaded, resolved and stepped twice, with tiny stand-ins of the same families."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mint.builders.encoder import build_encoder
from mint.config import LanguageConfig, Recipe, load_recipe, recipe_digest, recipe_to_dict, shipped_recipes
from mint.data.features.prepare import read_examples
from mint.training.checks import check
from mint.training.dry_run.plan import plan, plannable
from tiny_encoders import tiny_waveform_model, waveform_extractor
from tiny_languages import tiny_language, tiny_seq2seq
from tiny_runs import train_recipe, write_corpus

RECIPES = sorted(shipped_recipes())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, and tiny models of each family as folders."""
    folder = tmp_path_factory.mktemp("stand-ins")
    write_corpus(folder)
    tiny_waveform_model("data2vec").save_pretrained(folder / "waveform")
    waveform_extractor().save_pretrained(folder / "waveform")
    for family, language in (("seq2seq", tiny_seq2seq("flan")), ("causal", tiny_language("qwen2"))):
        language.model.save_pretrained(folder / family)
        language.tokenizer.save_pretrained(folder / family)
    return folder


def stand_in(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe over tiny models and clips, all else as it is."""
    weights = {"yamnet": ("tiny", "tiny"), "waveform": ("waveform", str(folder / "waveform"))}
    family, source = weights[recipe.encoder.family]
    language: LanguageConfig | None = None
    if recipe.language is not None:
        language = replace(recipe.language, weights=str(folder / recipe.language.family))
        if language.answer_end is not None:  # the stand-in's tokenizer has no new line of one token
            language = replace(language, answer_end="a")
    return replace(
        recipe,
        encoder=replace(recipe.encoder, family=family, weights=source),  # type: ignore[arg-type]
        bridge=replace(recipe.bridge, weights="tiny"),
        data=replace(recipe.data, manifests=(str(folder / "tones.jsonl"),), mixture={}),
        language=language,
        start=None,
        training={
            **recipe.training,
            "max_steps": 2,
            "per_device_train_batch_size": 3,
            "gradient_accumulation_steps": min(2, recipe.training.get("gradient_accumulation_steps", 1)),
            "logging_steps": 1,
            "dataloader_num_workers": 0,
            "report_to": [],
            "use_cpu": True,
        },
    )


@pytest.mark.parametrize("name", RECIPES)
def test_two_steps(name: str, folder: Path, tmp_path: Path) -> None:
    train_recipe(stand_in(load_recipe(name), folder), tmp_path)
    losses = [record["loss"] for record in json.loads((tmp_path / "history.json").read_text()) if "loss" in record]
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="the recipes of the paper are for accelerators")
@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("paper/")])
def test_a_plan_without_an_accelerator_and_before_stage_1(name: str, folder: Path, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    made = stand_in(recipe, folder)
    training = {key: value for key, value in made.training.items() if key != "use_cpu"}
    here, notes = plannable(replace(made, start=recipe.start, training=training), 8)
    assert notes[0] == "there is no accelerator here: planned on the CPU"
    assert notes[1:] == (
        [f"start: {recipe.start} holds no finished run yet; planned without it"] if recipe.start else []
    )
    check(here, tmp_path)
    planned = plan(here, read_examples(here.data.manifests), build_encoder(here.encoder), 1)
    assert planned.steps == 2
    assert planned.costs is not None


def assert_resolved(written: Any, resolved: Any) -> None:
    """Check that what is written is what is resolved, section by section; numbers may be written as texts (1e-4)."""
    if isinstance(written, dict):
        for key, value in written.items():
            assert_resolved(value, resolved[key])
    else:
        assert resolved == (float(written) if isinstance(resolved, float) else written)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_resolves_and_is_complete(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    check(plannable(recipe, 8)[0], tmp_path)
    written = yaml.safe_load(shipped_recipes()[name].read_text(encoding="utf-8"))
    resolved = recipe_to_dict(recipe)
    assert_resolved(written, resolved)
    if name.startswith("paper/"):
        assert recipe.name == name.replace("/", "-")
        sections = [key for key in ("encoder", "bridge", "data", "language", "training") if resolved[key] is not None]
        assert set(written) >= {"name", "stage", "seed", *sections}
        whole = [key for key in ("encoder", "bridge", "objectives", "language") if resolved[key] is not None]
        assert all(set(written[key]) == set(resolved[key]) for key in whole)
        of_stage = {1: {"objectives", "accumulate_negatives"}, 2: {"start", "language", "instruction_aware"}}
        assert set(written) >= of_stage[recipe.stage]
        assert {"eval_strategy", "save_steps", "logging_steps"} <= set(written["training"])


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("paper/")])
def test_each_number_has_its_origin(name: str) -> None:
    """Every line with a number says which section of the paper it is from, or that it is ours and, in words, why."""
    for line in shipped_recipes()[name].read_text(encoding="utf-8").splitlines():
        value, _, origin = line.partition("#")
        if re.search(r":\s*[\d.]", value) and not value.startswith(("stage", "seed")):
            assert re.search(r"paper, (section|Table) [\d.]+|ours: \S+( \S+){2,}", origin), line


def test_the_numbers_of_the_paper() -> None:
    for name in RECIPES:
        if not name.startswith("paper/"):
            continue
        recipe = load_recipe(name)
        assert (recipe.bridge.num_layers, recipe.bridge.num_queries, recipe.bridge.max_text_tokens) == (12, 32, 30)
        training = recipe.training
        assert (training["num_train_epochs"], training["learning_rate"], training["warmup_steps"]) == (10, 1e-4, 2000)
        assert training["lr_scheduler_type"] == "linear"
        in_all = training["per_device_train_batch_size"] * training.get("gradient_accumulation_steps", 1)
        assert in_all == (512 if name.endswith("one-gpu") else 64)


def commands(name: str) -> list[list[str]]:
    """Return the `mint train` commands in the header of a recipe, by words."""
    header = shipped_recipes()[name].read_text(encoding="utf-8").partition("\nname:")[0]
    lines = header.replace(" \\\n# ", " ").splitlines()
    return [line.partition("mint train ")[2].split() for line in lines if "mint train " in line]


def test_every_run_of_the_paper_has_a_name_of_its_own() -> None:
    """`mint train` writes into `runs/NAME`: no run overwrites another one, and each start is another run's folder."""
    runs: dict[str, Recipe] = {}
    for name in RECIPES:
        if name.startswith("paper/"):
            for source, *overrides in commands(name):
                recipe = load_recipe(source, overrides)
                assert runs.setdefault(recipe.name, recipe) == recipe
    assert len(runs) == 12
    starts = {recipe.start for recipe in runs.values() if recipe.stage == 2}
    assert starts == {f"runs/{recipe.name}" for recipe in runs.values() if recipe.stage == 1}


def test_stage_2_of_the_paper_hears_freesound_too() -> None:
    """It lists nine corpora for instruction tuning (section 3.1), and Music4All twice in Table 1."""
    for name in ("stage2", "stage2-one-gpu", "stage2-causal", "ablation-no-instruction"):
        manifests = load_recipe(f"paper/{name}").data.manifests
        assert {"data/wavcaps.jsonl", "data/freesound.jsonl"} < set(manifests)
        assert len(manifests) == 10


def test_the_ablations_differ_from_stage_1_in_their_objectives_alone() -> None:
    base = load_recipe("paper/stage1")
    rows = {"alc": (True, False, False), "alc-atg": (True, False, True), "alc-alm": (True, True, False)}
    for name, switches in rows.items():
        recipe = load_recipe(f"paper/ablation-{name}")
        assert recipe.objectives is not None
        assert (recipe.objectives.alc, recipe.objectives.alm, recipe.objectives.atg) == switches
        assert replace(recipe, name=base.name, objectives=base.objectives) == base


@pytest.mark.parametrize(
    ("text", "value"), [("1e-4", 1e-4), ("3E5", 3e5), (".5e1", 5.0), ("1.0e-3", 1e-3), ("-2e0", -2.0)]
)
def test_numbers_with_an_exponent(text: str, value: float, tmp_path: Path) -> None:
    assert load_recipe("quickstart/stage1", [f"training.learning_rate={text}"]).training["learning_rate"] == value
    (tmp_path / "own.yaml").write_text(f"name: 1e-4x\nstage: 1\ntraining: {{learning_rate: {text}}}\n")
    own = load_recipe(tmp_path / "own.yaml")
    assert (own.name, own.training["learning_rate"]) == ("1e-4x", value)


def test_the_digest_tells_recipes_apart_and_not_seeds_or_folders() -> None:
    first, second = (load_recipe(f"quickstart/stage{stage}") for stage in (1, 2))
    elsewhere = replace(second.data, manifests=("other/a.jsonl",), blacklists=("b.json",))
    same = [replace(first, seed=3), replace(second, seed=3, start="runs/other", data=elsewhere)]
    assert recipe_digest(same) == recipe_digest([first, second])

    others = [
        [first],
        [second, first],
        [replace(first, training={**first.training, "learning_rate": 1.0}), second],
        [replace(first, bridge=replace(first.bridge, num_queries=5)), second],
        [first, replace(second, data=replace(second.data, max_seconds=3.0))],
    ]
    assert len({recipe_digest(recipes) for recipes in [[first, second], *others]}) == 1 + len(others)
