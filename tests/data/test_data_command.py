"""`mint data`: the table, preparing, and every problem of a manifest at once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mint.cli import main
from mint.data import corpora
from mint.data.corpora import CORPORA, Corpus, Request
from mint.data.manifests.manifest import read_manifest
from mint.data.manifests.validate import Problem, validate
from mint.files import writing
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
            "corpus 'folder' is read from files; say where they are with --source",
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
    problems = validate([manifest]).problems
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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_lists_of_labels_in_each_encoding(tmp_path: Path, encoding: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = {"audio": "x.wav", "task": "t", "split": "train", "corpus": "c"}
    rows = [{**line, "id": label, "answer": label, "labels": [label]} for label in ("très fort", "it’s", "cat")]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = ["data", "validate", str(tmp_path / "m.jsonl"), "--audio", "none", "--labels", str(tmp_path / "l.txt")]
    (tmp_path / "l.txt").write_bytes("très fort\r\n\r\n it’s \r\ncat".encode(encoding))
    assert main(command) == 0
    (tmp_path / "l.txt").write_bytes("très fort\ncat".encode(encoding))
    assert main(command) == 1
    assert "label 'it’s' is not in the list of labels" in capsys.readouterr().out
    (tmp_path / "l.txt").write_bytes(b"PAR1")
    assert main(command) == 2
    assert "l.txt is no text but a Parquet file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["validate", "--output", "."], "--output . is a folder; give the name of a file"),
        (["validate", "--workers", "-1"], "argument --workers: '-1' is not a whole number"),
        (["shard", "--megabytes", "nan"], "argument --megabytes: 'nan' is not a number"),
        (["shard", "--megabytes", "inf"], "argument --megabytes: 'inf' is not a number"),
        (["shard", "--megabytes", "-3"], "argument --megabytes: '-3' is not a number above 0"),
        (["shard", "--megabytes", "0"], "argument --megabytes: '0' is not a number above 0"),
        (["shard", "--megabytes", "1e-9"], "shards of 0 bytes; give at least 1"),
    ],
)
def test_numbers_that_cannot_be(
    arguments: list[str], message: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "m.jsonl"
    assert main(["data", "prepare", "folder", "--source", str(clips), "--output", str(manifest)]) == 0
    capsys.readouterr()
    verb, *options = arguments
    output = ["--output", str(tmp_path / "out")] if verb == "shard" else []
    assert main(["data", verb, str(manifest), *output, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


KILLED = """
import os, signal, sys
from contextlib import ExitStack
from pathlib import Path
from mint.files import writing
with ExitStack() as stack:
    for path in sys.argv[1:]:
        stack.enter_context(writing(Path(path))).write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_left_half_written_is_removed(clips: Path, tmp_path: Path) -> None:
    """By the next run of the same command; what another living process writes stays."""
    names = ["prepared/m.jsonl", "prepared/m.skipped.jsonl", "shards/000000.tar", "shards/m.jsonl"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
    killed = subprocess.run([sys.executable, "-c", KILLED, *(str(tmp_path / name) for name in names)], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = [path for folder in ("prepared", "shards") for path in (tmp_path / folder).iterdir()]
    assert len(left) == 4
    manifest = tmp_path / "prepared" / "m.jsonl"
    with writing(tmp_path / "prepared" / "other.jsonl"):
        mine = set((tmp_path / "prepared").iterdir()) - set(left)
        assert main(["data", "prepare", "folder", "--source", str(clips), "--output", str(manifest)]) == 0
        assert main(["data", "shard", str(manifest), "--output", str(tmp_path / "shards")]) == 0
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in mine)
    after = {path.name for folder in ("prepared", "shards") for path in (tmp_path / folder).iterdir()}
    assert after == {"m.jsonl", "m.skipped.jsonl", "other.jsonl", "000000.tar"}


def test_an_empty_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text("\n\n")
    with pytest.raises(MintError, match=r"m\.jsonl: the manifest is empty"):
        validate([tmp_path / "m.jsonl"])
