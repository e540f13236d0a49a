"""The commands that make an index and search in it, what they refuse, and the features that they find in the cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mint import Mint
from mint.cli import main
from mint.index import Index
from tiny_index import counts
from tiny_runs import recipe, train_recipe


def test_another_run_is_refused(
    mint: Mint, run: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    train_recipe(recipe(1, run.parent / "tones.jsonl", max_steps=1), other / "stage1")
    index = tmp_path / "index"
    mint.index(clips, index)
    assert main(["index", str(other), str(clips), "--output", str(index)]) == 2
    refused = capsys.readouterr().err
    theirs = Index.open(index).contents.origin
    for name in (
        str(index),
        theirs.stage1[:12],
        str(run / "stage1"),
        str(other / "stage1"),
        "use the run that made it",
    ):
        assert name in refused

    # Trained again at the same place: what it says must not be compared with what it said.
    moved = run.rename(run.with_name("first"))
    shutil.copytree(other, run)
    try:
        assert main(["search", str(index), "a tone"]) == 2
        assert theirs.stage1[:12] in capsys.readouterr().err
        shutil.rmtree(run)
        assert main(["search", str(index), "a tone"]) == 2
        assert "if it lies elsewhere now, `mint index RUN --output" in capsys.readouterr().err

        # The run may move: its weights tell it.
        assert main(["index", str(moved), "--output", str(index)]) == 0
        assert main(["search", str(index), "a tone"]) == 0
    finally:
        shutil.rmtree(run, ignore_errors=True)
        moved.rename(run)


def test_the_commands(mint: Mint, run: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = str(tmp_path / "index")
    (clips / "bad.wav").write_bytes(b"no sound")
    assert main(["index", str(run), str(clips), "--output", index]) == 2
    captured = capsys.readouterr()
    assert captured.out == f"{index}: 12 new, 0 changed, 0 removed, 0 unchanged, 1 skipped; 12 clips, 12 windows\n"
    assert "bad.wav: not audio" in captured.err
    assert "12/13" in captured.err or "13/13" in captured.err

    (clips / "bad.wav").unlink()
    assert main(["index", str(run), str(clips), "--output", index, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == {
        "index": index,
        **{"new": 0, "changed": 0, "removed": 0, "unchanged": 12, "skipped": 0},
        **{"clips": 12, "windows": 12, "skipped_files": []},
    }

    expected = Index.open(index).search(mint.embed_text("a low tone"), 3)
    assert main(["search", "--top", "3", index, "a low tone", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["audio"], row["score"], row["start"], row["end"]) for row in rows] == [
        (hit.path, pytest.approx(hit.score, abs=1e-6), hit.start, hit.end) for hit in expected
    ]
    assert main(["search", index, "--top", "1", "a low tone"]) == 0
    assert capsys.readouterr().out == f"{expected[0].score:8.3f}  {expected[0].path}  0.0-0.4 s\n"

    assert main(["search", index, "--like", str(clips / "05.wav"), "--top", "2"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"   1.000  {clips / '05.wav'}  0.0-0.4 s"
    assert second.split()[1] != str(clips / "05.wav")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["INDEX"], "is an index; give a description, or --like FILE"),
        (["INDEX", "a tone", "--like", "a.wav"], "is an index; give a description, or --like FILE"),
        (["INDEX", "a", "tone"], "leave out 'tone', or put the description into quotes"),
        (["INDEX", "a tone", "clips"], "leave out 'clips'"),
        (["INDEX", "--like", "missing.wav"], "missing.wav"),
        (["INDEX", " "], "the text is ' '"),
        (["RUN", "a tone"], "give a description and audio files or folders; or an index"),
        (["RUN"], "give a description and audio files or folders; or an index"),
        (["RUN", "a", "b.wav", "--like", "a.wav"], "--like searches an index; make one with `mint index"),
    ],
)
def test_search_refuses_what_does_not_fit_together(
    mint: Mint,
    run: Path,
    clips: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    index = tmp_path / "index"
    mint.index(clips, index)
    names = {"INDEX": str(index), "RUN": str(run)}
    assert main(["search", *(names.get(argument, argument) for argument in arguments)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing: no such manifest"),
        (["missing.wav"], None),
        ([], "holds no index yet; give a folder, a manifest or audio files"),
    ],
)
def test_sources_that_are_not_there(
    run: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str | None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["index", str(run), *arguments, "--output", "index"]) == 2
    error = capsys.readouterr().err
    assert (message or "missing.wav") in error
    assert (tmp_path / "index").exists() == (message is None)


def test_the_second_search_of_files_encodes_nothing(
    run: Path, clips: Path, encoded: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = []
    for count in (12, 0):
        encoded.clear()
        assert main(["search", str(run), "a low tone", str(clips)]) == 0
        outputs.append(capsys.readouterr().out)
        assert len(encoded) == count
    assert outputs[0] == outputs[1]


def test_an_index_takes_features_that_are_in_the_cache(
    mint: Mint, run: Path, clips: Path, tmp_path: Path, encoded: list[int]
) -> None:
    assert main(["search", str(run), "a low tone", str(clips)]) == 0
    encoded.clear()
    assert counts(mint.index(clips, tmp_path / "index")) == (12, 0, 0, 0, 0)
    assert encoded == []
