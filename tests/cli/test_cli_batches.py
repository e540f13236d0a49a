"""The verbs that answer clip by clip, over tiny models: what they write is what `Mint` says of each clip."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from mint import Mint
from mint.cli import main
from tiny_runs import shared_run

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from shared_run(tmp_path_factory, max_steps=20)


@pytest.fixture(scope="module")
def paths(run: Path) -> list[str]:
    return [str(path) for path in sorted(run.parent.glob("*.wav"))]


@pytest.fixture(scope="module")
def captions(run: Path, paths: list[str]) -> list[dict[str, Any]]:
    """One call for each clip."""
    mint = Mint.from_pretrained(run)
    return [{"audio": path, "caption": mint.caption(path, max_new_tokens=6)} for path in paths]


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("given", ["folder", "list", "manifest"])
def test_captions_of_a_folder_a_list_and_a_manifest(
    run: Path, paths: list[str], captions: list[dict[str, Any]], given: str, tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text("\n".join(paths))
    argument = {"folder": run.parent, "list": tmp_path / "list.txt", "manifest": run.parent / "tones.jsonl"}[given]
    output = tmp_path / "out.jsonl"
    assert main(["caption", str(run), str(argument), "--output", str(output), "--max-tokens", "6"]) == 0
    rows = read(output)
    if given == "manifest":
        assert {row["id"] for row in rows} == {Path(path).stem for path in paths}
        rows = sorted(
            ({"audio": row["audio"], "caption": row["caption"]} for row in rows), key=lambda row: row["audio"]
        )
    assert rows == captions


def test_a_bad_file_is_listed_and_the_exit_code_tells(
    run: Path, paths: list[str], captions: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("no sound")
    output = tmp_path / "out.csv"
    command = ["caption", str(run), paths[0], str(bad), *paths[1:], "--output", str(output), "--max-tokens", "6"]
    for _ in range(2):
        assert main(command) == 2
        out, err = capsys.readouterr()
        assert out == f"Written to {output}: 12 of 13 clips\n"
        assert f"mint: 1 of 13 clips could not be used; {output}.errors.jsonl says why" in err
    with output.open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == captions
    [row] = read(tmp_path / "out.csv.errors.jsonl")
    assert row["audio"] == str(bad)
    assert "not audio" in row["error"]


def test_labels_and_answers_in_files(run: Path, paths: list[str], tmp_path: Path) -> None:
    mint = Mint.from_pretrained(run)
    labels = ["--labels", "low,high", "--top", "1"]
    assert main(["classify", str(run), *paths[:3], *labels, "--output", str(tmp_path / "labels.jsonl")]) == 0
    for row, path in zip(read(tmp_path / "labels.jsonl"), paths, strict=False):
        scores = mint.classify(path, ["low", "high"])
        assert row["label"] == max(scores, key=lambda label: scores[label])
        [best] = row["labels"]
        assert best["probability"] == pytest.approx(
            torch.tensor(list(scores.values())).softmax(0).max().item(), abs=1e-4
        )

    asked = ["--prompt", "The pitch is", "--max-tokens", "5", "--output", str(tmp_path / "answers.jsonl")]
    assert main(["ask", str(run), *paths[:2], *asked]) == 0
    assert [row["answer"] for row in read(tmp_path / "answers.jsonl")] == [
        mint.ask(path, "The pitch is", max_new_tokens=5) for path in paths[:2]
    ]


def test_embeddings(run: Path, paths: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mint = Mint.from_pretrained(run)
    expected = mint.embed_audio(list(paths))  # [N, Q, E]
    assert main(["embed", str(run), *paths, "--output", str(tmp_path / "all.safetensors")]) == 0
    np.testing.assert_allclose(load_file(tmp_path / "all.safetensors")["embeddings"], expected.numpy(), atol=1e-6)
    assert [row["audio"] for row in read(tmp_path / "all.rows.jsonl")] == paths

    means = torch.nn.functional.normalize(expected.mean(dim=1), dim=-1)
    assert main(["embed", str(run), *paths, "--mean", "--output", str(tmp_path / "means.jsonl")]) == 0
    found = np.array([row["embedding"] for row in read(tmp_path / "means.jsonl")])
    np.testing.assert_allclose(found, means.numpy(), atol=1e-6)

    capsys.readouterr()
    assert main(["embed", str(run), paths[0]]) == 0
    printed = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(printed["embedding"], expected[0].numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "out.txt"], "--output 'out.txt': give a name that ends with .jsonl, .csv, .parquet"),
        (["--output", "out"], "--output 'out': give a name that ends with"),
        (["--output", "out.safetensors"], "--output 'out.safetensors': give a name"),
        (["--output", "folder.jsonl"], "folder.jsonl is a folder; give the path of a file"),
        (["--output", "out.jsonl", "--json"], "--json belongs to results that are printed"),
        (["--output", "mine.jsonl"], "mine.jsonl is there already, and no job has written it"),
    ],
)
def test_mistakes(
    run: Path,
    paths: list[str],
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.jsonl").mkdir()
    Path("mine.jsonl").touch()
    assert main(["caption", str(run), paths[0], *options]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mint: error: {message}")


@pytest.mark.slow
def test_two_processes_of_torchrun(run: Path, paths: list[str], captions: list[dict[str, Any]], tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "mint"]
    command += ["caption", str(run), *paths, "--output", str(output), "--max-tokens", "6"]
    finished = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"}, timeout=300
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines() == [f"Written to {output}: 12 of 12 clips"]
    assert read(output) == captions
