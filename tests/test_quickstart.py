"""The quickstart on recordings of one's own, with tiny models: its folder, its options, and what interrupts it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from mint import quickstart as module
from mint.cli import main
from mint.cli.quickstart import default_output
from mint.config import Recipe
from mint.evaluation.evaluate import evaluate
from mint.files import owning
from mint.quickstart import OPTIONS, Clock, Quickstart, run
from mint.types import MintError
from tiny_runs import recipe


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two labels in the working directory; the quickstart's recipes are tiny."""
    generator = np.random.default_rng(0)
    for label in ("low", "high"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(4):
            soundfile.write(tmp_path / "data" / label / f"{number}.wav", generator.uniform(-0.5, 0.5, 6000), 16000)
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def tiny(name: str, overrides: object = ()) -> Recipe:
        return recipe(int(name[-1]), Path("unused"), max_steps=1)

    monkeypatch.setattr(module, "load_recipe", tiny)
    monkeypatch.setattr(module, "evaluate", partial(evaluate, tasks=["labels"]))  # without caption metrics
    return tmp_path / "data"


def names(folder: Path) -> list[str]:
    """Return the names of what a folder holds."""
    return sorted(path.name for path in folder.iterdir())


def test_a_source_that_is_not_there_leaves_nothing(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quickstart", "--source", "nope", "--output", "out"]) == 2
    assert "nope: no such folder" in capsys.readouterr().err
    assert not Path("out").exists()
    assert main(["quickstart", "--source", "data", "--output", "out"]) == 0


def test_a_source_that_cannot_be_used_leaves_the_folder_free(source: Path) -> None:
    shutil.copytree(source / "low", Path("bad") / "low")
    with pytest.raises(MintError, match="has one label only, 'low'"):
        run(Quickstart(Path("out"), Path("bad")))
    assert OPTIONS not in names(Path("out"))
    assert run(Quickstart(Path("out"), source)).rows


@pytest.mark.parametrize("again", [lambda path: path, lambda path: path / ".." / path.name, Path])
def test_one_source_in_several_forms(source: Path, again: Callable[[Path], Path]) -> None:
    run(Quickstart(Path("out"), Path("data")))
    weights = Path("out/stage2/model.safetensors").read_bytes()
    Path("link").symlink_to(source)
    assert run(Quickstart(Path("out"), again(source))).rows
    assert run(Quickstart(Path("out").absolute(), Path("link"))).rows
    assert Path("out/stage2/model.safetensors").read_bytes() == weights


def test_the_same_words_from_another_folder_are_another_source(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(Quickstart(Path("out"), Path("data")))
    shutil.copytree(source, Path("other/data"))
    monkeypatch.chdir("other")
    with pytest.raises(MintError, match=r"holds a quickstart of \{.*data', 'seed': 0.*\}, not of \{.*; give another"):
        run(Quickstart(Path("../out"), Path("data")))


BROKEN = ["", "{", "[]", "null", "[" * 100_000]


@pytest.mark.parametrize("content", [*BROKEN, '{"data": "long"}'])
def test_broken_seconds_count_as_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "seconds.json").write_text(content)
    clock = Clock(tmp_path / "seconds.json")
    assert clock.seconds == {}
    with clock.step("data"):
        pass
    assert Clock(tmp_path / "seconds.json").seconds.keys() == {"data"}


def test_broken_options_count_as_absent(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "prepare_features", lambda *_: pytest.fail("enough"))
    Path("out").mkdir()
    for content in BROKEN:
        Path("out", OPTIONS).write_text(content)
        with pytest.raises(pytest.fail.Exception, match="enough"):
            run(Quickstart(Path("out"), source))
        assert json.loads(Path("out", OPTIONS).read_text())["source"] == str(source)


def test_two_quickstarts_in_one_folder(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with owning(Path("out")):
        assert main(["quickstart", "--source", "data", "--output", "out"]) == 2
    assert "out is being written by another process; wait for it to end, or give another" in capsys.readouterr().err


def test_the_clock_adds_up_and_mistakes_cost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 2.0, 10.0, 13.0, 20.0])
    monkeypatch.setattr("mint.quickstart.time", SimpleNamespace(perf_counter=lambda: next(times)))
    clock = Clock(tmp_path / "seconds.json")
    with clock.step("data"):
        pass
    with pytest.raises(KeyboardInterrupt), clock.step("data"):
        raise KeyboardInterrupt
    with pytest.raises(MintError), clock.step("features"):
        raise MintError("a mistake")
    assert Clock(tmp_path / "seconds.json").seconds == {"data": 5.0}
    assert clock.total() == 5.0
    assert names(tmp_path) == ["seconds.json"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (None, "runs/quickstart"),
        ("set.v2", "runs/quickstart-set.v2"),
        ("table.v2.csv", "runs/quickstart-table.v2"),
        ("set.v2/.", "runs/quickstart-set.v2"),
        (".", "runs/quickstart-here"),
    ],
)
def test_the_default_folder_is_named_after_the_source(
    source: str | None,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "here" / "set.v2").mkdir(parents=True)
    (tmp_path / "here" / "table.v2.csv").touch()
    monkeypatch.chdir(tmp_path / "here")
    assert default_output(None if source is None else Path(source)) == Path(expected)
    assert main(["quickstart", "--help"]) == 0
    assert "runs/quickstart-NAME" in " ".join(capsys.readouterr().out.split())


def test_the_name_in_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Quickstart(Path("out")).name == "quickstart"
    assert Quickstart(Path("out"), Path(), smoke=True).name == f"quickstart on {tmp_path.name}, smoke"
