"""`mint data`: the table, preparing, and every problem of a manifest at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mint.cli import main
from mint.data import corpora
from mint.data.corpora import CORPORA, Corpus, Request
from mint.data.manifests.manifest import read_manifest
from mint.data.manifests.validate import Problem, find_problems
from mint.types import MintError


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder with two labels of five clips, and one broken clip."""
    for label in ("dog", "cat"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        for index in range(5):
            noise = np.random.default_rng([index, label == "cat"]).uniform(-0.5, 0.5, 1600)
            soundfile.write(tmp_path / "clips" / label / f"{index}.wav", noise, 16000)
    (tmp_path / "clips" / "dog" / "broken.wav").write_text("no audio")
    return tmp_path / "clips"


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in CORPORA)
    assert main(["data", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(CORPORA)
    assert [row["needs_source"] for row in rows if row["name"] == "folder"] == [True]


def test_prepare_and_validate(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "out" / "mine.jsonl"
    assert main(["data", "prepare", "folder", "--source", str(clips), "--output", str(manifest)]) == 0
    text = capsys.readouterr().out
    assert "6 train" in text
    assert "2 validation" in text
    assert "2 test" in text
    assert "1 skipped in all" in text
    assert "broken.wav: not audio" in text
    assert len(list(read_manifest(manifest))) == 10
    assert main(["data", "validate", str(manifest)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["corpus", "task", "split", "clips", "hours", "labels", "captions"]
    assert [line.split()[2:4] for line in lines[1:4]] == [["test", "2"], ["train", "6"], ["validation", "2"]]
    assert lines[4:] == ["10 clips, 10 decoded: no problems"]
    assert main(["data", "validate", str(manifest), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["clips"], report["problems"]) == (10, [])
    assert sum(group["seconds"] for group in report["groups"]) == pytest.approx(10 * 0.1)


def test_the_seed_is_handed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[Any] = []

    def reader(request: Request) -> list[Path]:
        calls.append((request.source, request.output, request.seed))
        return []

    monkeypatch.setattr(corpora, "CORPORA", {"toy": Corpus("toy", reader, needs_source=False)})
    assert main(["data", "prepare", "toy", "--output", str(tmp_path), "--seed", "7"]) == 0
    assert calls == [(None, tmp_path, 7)]


def test_what_is_noted_is_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def reader(request: Request) -> list[Path]:
        request.note("the ids are missing")
        return []

    monkeypatch.setattr(corpora, "CORPORA", {"toy": Corpus("toy", reader, needs_source=False)})
    assert main(["data", "prepare", "toy", "--output", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "note: the ids are missing\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["prepare", "nothing", "--output", "x"],
            "no corpus 'nothing'; choose one of quickstart, folder, csv, audioset",
        ),
        (
            ["prepare", "folder", "--output", "x"],
            "corpus 'folder' is read from files; say where they lie with --source",
        ),
        (
            ["prepare", "quickstart", "--source", "y", "--output", "x"],
            "corpus 'quickstart' takes no source (found 'y')",
        ),
        (["prepare", "folder", "--source", "/no/where", "--output", "x"], "/no/where: no such folder or table"),
        (["validate", "/no/where.jsonl"], "/no/where.jsonl: no such manifest"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_every_problem_is_found(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = {"id": "1", "audio": "clips/dog/0.wav", "task": "labels", "split": "train", "corpus": "c", "answer": "dog"}
    lines: list[Any] = [
        good,
        {**good, "id": "2", "split": "dev"},
        good,
        {**good, "id": "4", "audio": "clips/dog/broken.wav"},
        {**good, "id": "5", "audio": "clips/nothing.wav"},
        {**good, "id": "6", "answer": " "},
        {**good, "id": "7", "labels": ["dog", ""]},
        {key: value for key, value in {**good, "id": "8"}.items() if key != "answer"},
        {**good, "id": "9", "start": 5},
        {**good, "id": "1", "corpus": "another"},
    ]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)) + "\n{broken\n")
    problems = list(find_problems(manifest))
    assert [problem.line for problem in problems] == [2, 3, 4, 5, 6, 7, 8, 9, 11]
    for problem, expected in zip(
        problems,
        [
            "split is 'dev'; it must be one of",
            "id '1' of 'c' is that of line 1 too; make ids unique within their corpus",
            "broken.wav: not audio",
            "nothing.wav: no such audio file",
            "answer holds an empty text; fill it or leave it out",
            "labels holds an empty text",
            "no answer, no labels and no captions",
            "start 5.0 s is past the end",
            "not valid JSON",
        ],
        strict=True,
    ):
        assert expected in problem.message
    assert main(["data", "validate", str(manifest)]) == 1
    text = capsys.readouterr().out.splitlines()
    assert f"{manifest}:2  {problems[0].message}" in text
    assert text[-1] == "9 clips, 6 decoded: 9 problems (2 schema, 1 id, 3 text, 3 audio)"
    assert main(["data", "validate", str(manifest), "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert [Problem(**row) for row in printed["problems"]] == problems
    assert main(["data", "validate", str(manifest), "--output", str(tmp_path / "report.json")]) == 1
    assert capsys.readouterr().out.splitlines() == text
    assert json.loads((tmp_path / "report.json").read_text()) == printed


def test_an_empty_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text("\n\n")
    with pytest.raises(MintError, match=r"m\.jsonl: the manifest is empty"):
        list(find_problems(tmp_path / "m.jsonl"))
