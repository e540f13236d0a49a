"""`mint assets`: what it prints and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mint.assets import ASSETS, fetched_folder
from mint.cli import main


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINT_CACHE", str(tmp_path))


def test_list_shows_size_licence_origin_and_state(capsys: pytest.CaptureFixture[str]) -> None:
    fetched_folder("minilm").mkdir(parents=True)
    assert main(["assets", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(ASSETS)
    assert [row["fetched"] for row in rows] == [row["name"] == "minilm" for row in rows]
    assert main(["assets", "list"]) == 0
    text = capsys.readouterr().out
    for name, asset in ASSETS.items():
        assert name in text
        assert asset.origin in text
        assert asset.licence in text
    assert text.count("not fetched") == len(ASSETS) - 1


def test_verify_fails_on_a_missing_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["assets", "verify"]) == 0
    assert "nothing is fetched" in capsys.readouterr().out
    fetched_folder("soundfont").mkdir(parents=True)
    assert main(["assets", "verify", "--json"]) == 1
    problems = json.loads(capsys.readouterr().out)
    assert list(problems) == ["soundfont"]
    assert problems["soundfont"][0].startswith("TimGM6mb.sf2 is missing")


def test_an_unknown_name_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["assets", "fetch", "nothing"]) == 2
    assert capsys.readouterr().err == (
        "mint: error: no asset 'nothing'; the assets are yamnet, minilm, smollm2, soundfont\n"
    )
