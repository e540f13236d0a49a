"""The page on use: its commands on many files do what it says, over tiny models."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mint.cli import main
from tiny_runs import train_both

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parent.parent.parent / "docs" / "use.md"


def commands(heading: str) -> list[list[str]]:
    """The `mint` commands in the shell blocks of a section."""
    _, _, section = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    section = section.partition("\n## ")[0]
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", section, flags=re.DOTALL)).splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("mint ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run in `RUN`, recordings in `sounds`, a list and a manifest of them."""
    folder = tmp_path_factory.mktemp("use")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINT_CACHE", str(folder / "cache"))
        train_both(folder, max_steps=2).rename(folder / "RUN")
        (folder / "sounds").mkdir()
        for path in folder.glob("*.wav"):
            shutil.copy(path, folder / "sounds")
        (folder / "list.txt").write_text("\n".join(f"sounds/{path.name}" for path in folder.glob("*.wav")))
        (folder / "tones.jsonl").rename(folder / "clips.jsonl")
        patch.chdir(folder)
        yield folder


@pytest.mark.parametrize("command", commands("Many files"), ids=" ".join)
def test_many_files(command: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 0
    output = command[command.index("--output") + 1]
    assert capsys.readouterr().out == f"Written to {output}: 12 of 12 clips\n"
    assert Path(output).stat().st_size > 0
    if output.endswith(".safetensors"):
        assert Path("embeddings.rows.jsonl").exists()


@pytest.mark.parametrize("command", commands("Timeline of a recording"), ids=" ".join)
def test_timelines(command: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 0
    out = capsys.readouterr().out
    if "--output" not in command:
        assert out.startswith("0:00:00.00  0:00:00.40  ")
        return

    output = Path(command[command.index("--output") + 1])
    assert out.startswith(f"Written to {output}: ")
    head, *rows = output.read_text(encoding="utf-8").splitlines()
    if output.name == "labels.txt":
        assert head.split("\t")[0] == "0.000000"
        assert [head, *rows][-1].split("\t")[1] == "0.400000"
    elif output.suffix == ".txt":
        assert head.startswith("Selection\tView\t")
        assert len({row.split("\t")[7] for row in rows}) == 12
    else:
        assert head == "audio,start,end,answer,score"
        scores = [float(row.rpartition(",")[2]) for row in rows]
        assert scores == sorted(scores, reverse=True)


def test_the_page_has_commands() -> None:
    assert len(commands("Many files")) == 5
    assert len(commands("Timeline of a recording")) == 4
