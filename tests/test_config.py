"""Recipes as people write them: what is refused, in one line that names the value and the cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from mint.config import load_recipe
from mint.types import MintError


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "own.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("data: {manifests: a.jsonl}", [], "data.manifests: it is a list; write data.manifests=[a.jsonl]"),
        ("", ["data.manifests=a.jsonl"], "data.manifests: it is a list; write data.manifests=[a.jsonl]"),
        ("", ["data.blacklists=b.json"], "data.blacklists: it is a list; write data.blacklists=[b.json]"),
        ("", ["data.mixture={notes: 1"], "override 'data.mixture={notes: 1' is not valid YAML: while parsing a flow"),
        ("", ["seed=@"], "override 'seed=@' is not valid YAML: while scanning for the next token"),
        ("", ["data.mixture=" + "{a: " * 5000], "is nested too deeply; a recipe has sections, keys and values"),
        ("data: " + "[" * 5000, [], "own.yaml is nested too deeply; a recipe has sections, keys and values"),
        ("data: " + "{a: " * 100_000, [], "own.yaml is nested too deeply; a recipe has sections, keys and values"),
        ("a: [1\n b: 2", [], "own.yaml is not valid YAML: while parsing a flow sequence"),
        ("\n\tseed: 1", [], "own.yaml is not valid YAML: while scanning for the next token found character"),
        ("x: !!python/object/apply:os.system [ls]", [], "is not valid YAML: could not determine a constructor"),
    ],
)
def test_refused_in_one_line(text: str, overrides: list[str], message: str, tmp_path: Path) -> None:
    path = write(tmp_path, f"name: own\nstage: 1\n{text}\n")
    with pytest.raises(MintError) as caught:
        load_recipe(path, overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PAR1\x00\x00", "is no text but a Parquet file"),
        (b"name: \x00", "it holds null bytes"),
        (b"", "holds NoneType, not a mapping of recipe keys"),
        (b"- a\n- b\n", "holds list, not a mapping of recipe keys"),
    ],
)
def test_what_is_no_recipe(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(MintError, match=message):
        load_recipe(write(tmp_path, content))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_text_as_people_save_it(encoding: str, tmp_path: Path) -> None:
    text = "name: \u00e9tude\r\nstage: 1\r\nseed: 3\r\n"
    recipe = load_recipe(write(tmp_path, text.encode(encoding)))
    assert (recipe.name, recipe.seed) == ("\u00e9tude", 3)
