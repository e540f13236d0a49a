"""What is noted about a recipe that can be trained, but perhaps not as it was meant."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mint.config import ObjectivesConfig, Recipe
from mint.data.batches.items import Item, caption_items
from mint.data.features.prepare import read_examples
from mint.training.arguments import training_arguments
from mint.training.notes import notes_of
from tiny_runs import recipe, train_recipe, write_corpus


def noted(wanted: Recipe, items: list[Item], folder: Path, ranks: int = 1) -> list[str]:
    return notes_of(wanted, training_arguments(wanted, folder), 3, items, ranks)


@pytest.fixture
def items(corpus: Path) -> list[Item]:
    return list(caption_items([example for example in read_examples([corpus]) if example.split == "train"]))


ONE = "a batch of 1 has no negatives: alc and alm learn nothing; raise training.per_device_train_batch_size"


@pytest.mark.parametrize(
    ("training", "changes", "ranks", "expected"),
    [
        ({}, {}, 1, []),
        ({"per_device_train_batch_size": 1}, {}, 1, [ONE]),
        ({"per_device_train_batch_size": 1}, {}, 2, []),
        ({"per_device_train_batch_size": 2}, {}, 1, []),
        ({"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}, {"accumulate_negatives": True}, 1, []),
        ({"per_device_train_batch_size": 1}, {"objectives": ObjectivesConfig(alc=False, alm=False)}, 1, []),
        (
            {"per_device_train_batch_size": 1},
            {"objectives": ObjectivesConfig(alm=False)},
            1,
            [ONE.replace("alc and alm learn", "alc learns")],
        ),
    ],
)
def test_a_batch_without_negatives(
    training: dict[str, Any],
    changes: dict[str, Any],
    ranks: int,
    expected: list[str],
    items: list[Item],
    corpus: Path,
    tmp_path: Path,
) -> None:
    assert noted(replace(recipe(1, corpus, **training), **changes), items, tmp_path, ranks) == expected


def test_micro_batches_of_one(items: list[Item], corpus: Path, tmp_path: Path) -> None:
    wanted = recipe(1, corpus, per_device_train_batch_size=1, gradient_accumulation_steps=4)
    assert [note.split(":")[0] for note in noted(wanted, items, tmp_path)] == [
        "each of the 4 micro-batches of a step is contrasted alone, with fewer negatives than the batch has; "
        "`accumulate_negatives",
        "a batch of 1 has no negatives",
    ]


def test_clips_and_captions_that_are_all_the_same(items: list[Item], corpus: Path, tmp_path: Path) -> None:
    wanted = recipe(1, corpus)
    one_clip = [replace(item, example=items[0].example) for item in items]
    assert noted(wanted, one_clip, tmp_path) == [
        "there is one training clip alone, so that there are no negatives: alc and alm learn nothing"
    ]
    one_caption = [replace(item, answers=("a tone", "a tone")) for item in items]
    assert noted(wanted, one_caption, tmp_path) == [
        "all training captions are the same, so that there are no negatives: alc and alm learn nothing"
    ]
    assert noted(wanted, [*one_caption, items[0]], tmp_path) == []
    parts = [replace(item, example=replace(items[0].example, start=float(n))) for n, item in enumerate(items)]
    assert noted(wanted, parts, tmp_path) == []


def test_stage_2_has_no_negatives(items: list[Item], corpus: Path, tmp_path: Path) -> None:
    assert noted(recipe(2, corpus, per_device_train_batch_size=1), items[:1], tmp_path) == []


def test_a_training_says_so_when_it_begins(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    manifest = write_corpus(tmp_path, clips=1)
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for line in lines:
        line["captions"], line["answer"], line["labels"], line["prompt"] = ["a tone"], None, None, None
        line["task"] = "captioning"
    kept = [{key: value for key, value in line.items() if value is not None} for line in lines]
    manifest.write_text("\n".join(map(json.dumps, kept)))
    train_recipe(recipe(1, manifest, max_steps=1), tmp_path / "run")
    assert "\nnote: all training captions are the same, so that there are no negatives" in capfd.readouterr().err
