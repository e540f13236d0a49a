"""The export to LanceDB, with the real thing: the same ten best."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from mint.index import Entry, Index, Origin
from mint.types import MintError
from tiny_index import E, filled, text, vectors

lancedb = pytest.importorskip("lancedb")


def test_lance_ranks_as_the_exact_search(tmp_path: Path) -> None:
    clips = vectors(600)
    index = filled(tmp_path / "index", clips, at_once=250)
    with index.writing() as writer:
        rows = writer.rows()
        writer.remove(rows["/clip00003.wav", 0.0, None])
        times = [(30.0 * number, 30.0 * number + 30.0) for number in range(3)]
        writer.add(Entry("/long.wav"), times, vectors(3, seed=9))
    assert index.to_lance(tmp_path / "lance") == 602

    table = lancedb.connect(tmp_path / "lance").open_table("windows")
    for seed in range(5):
        query = table.search(text(seed).numpy(), vector_column_name="vectors").distance_type("cosine")
        # Their rows are windows: of a long recording the best one counts.
        by_path: dict[str, Any] = {}
        for row in query.limit(30).to_list():
            by_path.setdefault(row["path"], row)
        theirs = list(by_path.values())[:10]
        ours = index.search(text(seed), 10)
        assert [(row["path"], row["start"], row["end"]) for row in theirs] == [
            (hit.path, hit.start, hit.end) for hit in ours
        ]
        assert [1 - row["_distance"] for row in theirs] == pytest.approx([hit.score for hit in ours], abs=1e-5)
    assert table.schema.field("vectors").type.value_type.list_size == E

    # A second export replaces the first.
    assert index.to_lance(tmp_path / "lance") == 602


def test_exports_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index.create(tmp_path / "index", Origin("5" * 64, "tiny"), "run", 30.0)
    with pytest.raises(MintError, match="holds no clips"):
        index.to_lance(tmp_path / "lance")

    filled(tmp_path / "other", vectors(3))
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(MintError, match=r"cannot write a LanceDB table to .*file"):
        Index.open(tmp_path / "other").to_lance(tmp_path / "file")

    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(MintError, match=r"pip install 'mint-audio\[lance\]'"):
        index.to_lance(tmp_path / "lance")
