"""Parquet manifests in training: a copy in JSON Lines serves, and follows the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from mint.data.features.prepare import open_examples, read_examples
from mint.data.manifests.index import Lines
from mint.data.manifests.manifest import SPLITS
from mint.data.manifests.parquet import json_lines_of
from mint.types import MintError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))


def write(place: Path, count: int = 8, **facts: Any) -> Path:
    rows = [
        {
            "id": str(number),
            "audio": f"clips/{number} ä.wav" if number % 2 else f"/elsewhere/{number}.wav",
            "task": "t",
            "split": SPLITS[number % 4],
            "corpus": "c",
            "captions": ["rain"] * number,
            "duration": None if number % 2 else 1.5,
            "metadata": {"youtube_id": f"id{number}"},
            **facts,
        }
        for number in range(count)
    ]
    place.parent.mkdir(exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), place)
    return place


def copies(folder: Path) -> list[Path]:
    return list((folder / "cache" / "manifests").glob("*.jsonl"))


def test_its_examples_are_read_where_they_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "data" / "m.parquet")
    monkeypatch.chdir(tmp_path)
    path = "data/m.parquet"
    expected = read_examples([path])
    found = open_examples([path])
    assert isinstance(found, Lines)
    assert [{**vars(example), "audio": example.audio.absolute()} for example in expected] == list(map(vars, found))
    assert [example.id for example in open_examples([path], ("test",))] == ["2", "6"]
    (copy,) = copies(tmp_path)
    before = copy.stat()
    assert list(open_examples([path])) == list(found)
    assert copy.stat() == before


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "m.parquet")
    assert len(open_examples([path])) == 8
    write(path, count=5)
    assert len(open_examples([path])) == 5
    os.utime(path, ns=(1, 1))
    assert len(open_examples([path])) == 5
    assert len(copies(tmp_path)) == 1


def test_a_broken_row_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "m.parquet", split="dev")
    with pytest.raises(MintError, match=r"m\.parquet, line 1: split is 'dev'"):
        open_examples([path])
    assert not list((tmp_path / "cache" / "manifests").iterdir())


def test_without_a_place_for_the_copy_it_is_loaded_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "m.parquet")
    (tmp_path / "cache").write_text("no folder")
    assert json_lines_of(path) == path
    assert list(open_examples([path])) == read_examples([path])
