"""`mint train RECIPE --help-keys`: every key of a recipe, from the fields of `mint.config`."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml

from mint.cli import main
from mint.cli._keys import describe_keys, describe_type, recipe_keys
from mint.config import Recipe, load_recipe, recipe_to_dict


def keys_of(config: Any, prefix: str = "") -> list[str]:
    """Return the dotted names of all fields, by the dataclasses themselves."""
    names = []
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        names.append(f"{prefix}{field.name}")
        for alternative in typing.get_args(hints[field.name]) or [hints[field.name]]:
            if dataclasses.is_dataclass(alternative):
                names += keys_of(alternative, f"{prefix}{field.name}.")
    return names


def test_every_key_is_there_once_with_a_text() -> None:
    keys = list(recipe_keys())
    assert [key.name for key in keys] == keys_of(Recipe)
    for key in keys:
        assert key.text.endswith("."), key.name
        assert key.kind != "any value" or key.name == "training", key.name


def test_defaults_are_those_that_a_recipe_gets(tmp_path: Path) -> None:
    """Whatever a recipe leaves out is resolved to the default that is printed; null sections are those of a stage."""
    resolved: dict[str, Any] = {}
    for stage in (1, 2):
        (tmp_path / "own.yaml").write_text(f"name: own\nstage: {stage}\n{'language: {lora: {}}' if stage == 2 else ''}")
        values = recipe_to_dict(load_recipe(tmp_path / "own.yaml"))
        resolved |= {key: value for key, value in flat(values).items() if value is not None or key not in resolved}
    for key in recipe_keys():
        if key.default is not None:
            assert yaml.safe_load(key.default) == resolved[key.name], key.name


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values, sections too, by their dotted names."""
    names: dict[str, Any] = {}
    for key, value in values.items():
        names[f"{prefix}{key}"] = value
        if isinstance(value, dict):
            names |= flat(value, f"{prefix}{key}.")
    return names


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (int, "whole number"),
        (str | None, "text or null"),
        (tuple[str, ...], "list of text"),
        (dict[str, float], "mapping to number"),
        (typing.Literal["a", 1], "a | 1"),
    ],
)
def test_types_in_words(kind: Any, expected: str) -> None:
    assert describe_type(kind) == expected


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "quickstart/stage2", "bridge.num_queries=5", "--help-keys"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index("bridge.num_queries: whole number, default 32; here 5") + 1] == (
        "    Learnable queries (paper, section 3.2: 32)."
    )
    assert "stage: 1 | 2, required; here 2" in lines
    assert "objectives: section" in lines
    assert "objectives.alc: true or false, default true" in lines  # the other stage's, of which this recipe has none
    assert 'language.answer_end: text or null, default null; here "\\n"' in lines
    assert max(map(len, lines)) <= 100
    assert not Path("runs").exists()


def test_a_recipe_that_is_wrong_is_refused_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "quickstart/stage2", "bridge.num_querys=5", "--help-keys"]) == 2
    assert "unknown key 'bridge.num_querys'; did you mean 'num_queries'?" in capsys.readouterr().err
    assert describe_keys(load_recipe("paper/stage1")).count("\ntraining: ") == 1
