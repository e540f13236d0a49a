"""Result files keep their keys, and tables show what the rows say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mint.evaluation.results.file import Row, markdown_table, read_results, readable_title, show_interval, write_results
from mint.types import MintError

ROWS = [
    Row("notes", "test", "accuracy", "stage2", 0.8125, 0.749, 0.8704, 160),
    Row("notes", "test", "accuracy", "chance", 1 / 11, 1 / 11, 1 / 11, 160),
    Row("notes", "test", "accuracy", "probe", 0.8125, 0.75, 0.88, 160),
    Row("captioning", "test", "cider_d", "stage2", 1.23456, 1.1, 1.4, 40),
    Row("captioning", "test", "bleu_4", "stage2", 0.25, None, None, 40),
    Row("notes", "unseen", "accuracy", "mine", 0.3, 0.2, 0.4, 30),
    Row("notes", "unseen", "accuracy", "majority", 0.4, 0.3, 0.5, 30),
]
MADE_BY: Any = {"seconds": 12.5, "peak_memory_bytes": 10, "recipe": "tiny", "commit": None, "seed": 3}


def test_file_has_the_promised_keys(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json"
    write_results(path, ROWS, **MADE_BY, versions={"torch": "2"}, skipped=[{"id": "ü", "reason": "empty"}])
    content = json.loads(path.read_text(encoding="utf-8"))
    assert list(content) == [
        "rows", "seconds", "peak_memory_bytes", "recipe", "commit", "seed", "versions", "skipped",
    ]  # fmt: skip
    assert list(content["rows"][0]) == ["task", "split", "metric", "method", "value", "low", "high", "n"]
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]
    back = read_results(path)
    assert list(back.rows) == ROWS
    assert (back.seconds, back.commit, back.seed, back.recipe) == (12.5, None, 3, "tiny")
    assert back.extra == {"versions": {"torch": "2"}, "skipped": [{"id": "ü", "reason": "empty"}]}


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, ROWS, **MADE_BY)
    before = path.read_bytes()
    with pytest.raises(MintError, match="notes / test / accuracy / stage2 is nan"):
        write_results(path, [Row("notes", "test", "accuracy", "stage2", float("nan"), 0, 0, 1)], **MADE_BY)
    with pytest.raises(MintError, match="two rows for notes / test / accuracy / stage2"):
        write_results(path, [ROWS[0], ROWS[0]], **MADE_BY)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_results(path, ROWS, **MADE_BY, loss=float("inf"))
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"rows": [{"task": "notes"}]}', '{"rows": []}', "\x00"])
def test_what_is_not_a_results_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(MintError, match="is not a results file"):
        read_results(path)
    with pytest.raises(MintError, match="no results file"):
        read_results(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("metric", "title"),
    [
        ("recall@5", "text to audio, R@5 (%)"),
        ("audio_to_text_map@10", "audio to text, mAP@10 (%)"),
        ("map", "PR-AUC, macro (%)"),
        ("cider_d", "CIDEr-D"),
        ("names_label", "captions name the label (%)"),
        ("accuracy", "accuracy (%)"),
        ("of_ones_own", "of ones own (%)"),
    ],
)
def test_titles_that_people_read(metric: str, title: str) -> None:
    assert readable_title(metric) == title


def test_a_value_without_spread_has_no_interval() -> None:
    assert show_interval(Row("notes", "test", "accuracy", "majority", 0.1, 0.1, 0.1, 10)) == ""


def test_table_is_drawn_from_the_rows() -> None:
    lines = markdown_table(ROWS).splitlines()
    assert lines[0] == "| task | split | metric | n | chance | majority | probe | stage2 | mine |"
    assert lines[1] == "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    assert lines[2] == (
        "| notes | test | accuracy (%) | 160 | 9.1 | – | **81.2** [75.0, 88.0] | **81.2** [74.9, 87.0] | – |"
    )
    assert lines[3] == "| captioning | test | cider_d | 40 | – | – | – | **1.235** [1.100, 1.400] | – |"
    assert lines[4] == "| captioning | test | bleu_4 (%) | 40 | – | – | – | **25.0** | – |"
    assert lines[5] == "| notes | unseen | accuracy (%) | 30 | – | 40.0 [30.0, 50.0] | – | – | **30.0** [20.0, 40.0] |"
    assert len(lines) == 6
    assert markdown_table([]) == "No results.\n"
