"""Any command line: it is done, or it is refused in one line; "unexpected error" is for faults of MINT alone."""

from __future__ import annotations

import contextlib
import importlib
import io
import shutil
from argparse import _SubParsersAction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mint.cli import VERBS, main
from mint.cli._parser import Parser
from mint.types import MintError
from tiny_runs import train_both, write_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = (
    *("run", "run/stage1", "run/stage2", "low0.wav", "high1.wav", "tones.jsonl", "stage1.yaml", "stage2.yaml"),
    *("results.json", "labels.txt", "empty", "text.txt", "table.csv", "folder", "bytes.bin"),
)
"""What lies in the working directory; the last five are of little use to any verb."""

WORDS = (
    *("", " ", ",", "@", "@labels.txt", "@nowhere", "@folder", '"', '"rain, heavy",dog', "dog,rain", "nowhere", "."),
    *("-", "..", "~", "~nobody/x", "x" * 300, "user/model", "low", "pitch", "tones", "sum", "{label}", "esc50", "csv"),
    *("greedy", "beam", "nucleus", "all", "headers", "none", "quickstart", "objectives,stages", "a=b", "audio=label"),
    *("training.max_steps=1", "training.max_steps=", "data.max_seconds=nan", "stage=3", "=", "a.b.c=[", "seed=-1"),
    *("data.mixture={pitch: 1}", "encoder.family=tiny", "bridge.num_queries=0", "data.manifests=tones.jsonl"),
    *("caf\udce9", "\ud83d", "\x00", "\x1b[31m", "naïve", "日本"),
)
NUMBERS = ("0", "1", "2", "-1", "3.5", "1e400", "nan", "inf", "-0", "٣", "1_0", "0x1", "9" * 30, "9" * 5000, "1e-9")

CHECKS = ("assets", "cache", "data")
"""Verbs with an action that exits with 1 where something is wrong with what it checked."""


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with everything that a verb reads; nothing is trained, rendered or fetched from here on."""
    folder = tmp_path_factory.mktemp("origin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINT_CACHE", str(folder / "cache"))
        train_both(folder, max_steps=2)
        for stage in (1, 2):
            write_recipe(folder / f"stage{stage}.yaml", stage, Path("tones.jsonl"), max_steps=2)
        (folder / "labels.txt").write_text("low\nmiddle\n", encoding="utf-8")
        (folder / "empty").touch()
        (folder / "text.txt").write_text("some text\n", encoding="utf-8")
        (folder / "table.csv").write_text("audio,label\nlow0.wav,low\nhigh0.wav,high\n", encoding="utf-8")
        (folder / "folder").mkdir()
        (folder / "bytes.bin").write_bytes(bytes(range(256)))

        for heavy in ("training.train.train", "quickstart.run", "ablation.cells.run", "assets.fetch"):
            patch.setattr(f"mint.{heavy}", refuse)
        patch.setattr("mint.assets.store.fetch", refuse)
        patch.setattr("mint.hub.snapshot_download", refuse)
        patch.chdir(folder)
        assert run(["evaluate", "run", "--task", "pitch", "--output", "results.json"])[0] == 0
        yield folder


@pytest.fixture(scope="module")
def folder(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory, which `restore` makes anew."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("work") / "here"
        folder.mkdir()
        patch.chdir(folder)
        patch.setenv("MINT_CACHE", str(folder / "cache"))
        yield folder


def refuse(*_: Any, **__: Any) -> None:
    """Stand for work that takes too long here."""
    raise MintError("not in this test")


def restore(origin: Path, folder: Path) -> None:
    """Make the working directory as it was, in place: it stays the working directory."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.copytree(origin, folder, dirs_exist_ok=True)


def parsers(verb: str) -> Iterator[tuple[list[str], Parser]]:
    """The parsers of a verb, each with the words that lead to it."""
    parser = Parser(prog="mint")
    importlib.import_module(VERBS[verb].module).add_parser(parser.add_subparsers())
    waiting: list[tuple[list[str], Parser]] = [([], parser)]
    while waiting:
        words, parser = waiting.pop()
        below = [action for action in parser._actions if isinstance(action, _SubParsersAction)]
        for action in below:
            waiting += [([*words, name], choice) for name, choice in action.choices.items()]
        if not below:
            yield words, parser


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A verb with its positional arguments, mostly as many as it needs, and options among them."""
    verb = draw(st.sampled_from(sorted(VERBS)))
    words, parser = draw(st.sampled_from(list(parsers(verb))))
    value = st.sampled_from(FILES) | st.sampled_from(WORDS + NUMBERS) | st.text(max_size=5)
    needed = [action for action in parser._get_positional_actions() if action.nargs not in ("*", "?")]
    sensible = {
        "RUN": "run",
        "AUDIO": "low0.wav",
        "RECIPE": "stage2.yaml",
        "FILE": "tones.jsonl",
        "TRAIN": "tones.jsonl",
    }
    arguments: list[str] = []
    for action in needed:
        usual = st.just(sensible.get(str(action.metavar), "results.json"))
        arguments.append(draw(usual | usual | value))
    arguments += draw(st.lists(value, max_size=2))

    optional = parser._get_optional_actions()
    required = [action for action in optional if action.required and draw(st.integers(0, 9))]
    for action in required + draw(st.lists(st.sampled_from(optional), max_size=3)):
        place = draw(st.integers(0, len(arguments)))
        option = [draw(st.sampled_from(action.option_strings))]
        if action.nargs != 0:
            usual = st.sampled_from(list(action.choices)) if action.choices else value
            option.append(draw(usual | usual | value))
        arguments[place:place] = option
    if draw(st.integers(0, 9)) == 0:
        arguments.insert(draw(st.integers(0, len(arguments))), draw(st.sampled_from(["--", "--nonsense", "-x"])))
    return [*words, *arguments]


def run(arguments: list[str]) -> tuple[int, str]:
    """Run a command line; returns the exit code and what was said on standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    return code, err.getvalue()


def check(arguments: list[str]) -> None:
    """Run a command line and hold it to its promise."""
    code, said = run(arguments)
    assert "unexpected error" not in said, said
    assert code in ((0, 1, 2) if set(arguments) & set(CHECKS) else (0, 2))
    if code == 2:
        last = said.rstrip("\n").rpartition("\n")[2]
        assert last.startswith("mint: "), said


COMMON: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation ends where it would begin to measure, which takes seconds."""
    monkeypatch.setattr("mint.evaluation.evaluate_run.evaluate", refuse)


@pytest.mark.usefixtures("unmeasured")
@settings(max_examples=20, derandomize=True, **COMMON)
@given(arguments=command_lines())
def test_any_command_line(arguments: list[str], origin: Path, folder: Path) -> None:
    restore(origin, folder)
    check(arguments)


@pytest.mark.slow
@settings(max_examples=2000, **COMMON)
@given(arguments=command_lines())
def test_two_thousand_command_lines(arguments: list[str], origin: Path, folder: Path) -> None:
    restore(origin, folder)
    check(arguments)
