"""The check of a smoke run passes a sound folder and names each fault of a broken one."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

SPEC = importlib.util.spec_from_file_location("smoke_check", Path(__file__).with_name("smoke_check.py"))
assert SPEC is not None
assert SPEC.loader is not None
smoke_check = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(smoke_check)


def row(task: str, method: str, value: float, low: float | None, high: float | None, n: int = 100) -> dict[str, Any]:
    return {
        "task": task,
        "split": "test",
        "metric": "accuracy",
        "method": method,
        "value": value,
        "low": low,
        "high": high,
        "n": n,
    }


@pytest.fixture
def results() -> dict[str, Any]:
    """Content of a sound results.json."""
    rows = [row(task, "stage2", 0.5, 0.4, 0.6) for task in sorted(smoke_check.TASKS)]
    rows.append(row("notes", "chance", 0.09, None, None))
    return {
        "rows": rows,
        "seconds": 9.5,
        "peak_memory_bytes": 2**30,
        "recipe": "quickstart",
        "commit": None,
        "seed": 0,
        "more": [],
    }


@pytest.fixture
def folder(tmp_path: Path, results: dict[str, Any]) -> Path:
    """A sound run."""
    for stage in ("stage1", "stage2"):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "model.safetensors").write_bytes(b"weights")
    page = '<html><a href="https://example.org">paper</a><audio src="data:audio/wav;base64,AAAA"></audio></html>'
    (tmp_path / "report.html").write_text(page)
    (tmp_path / "results.json").write_text(json.dumps(results))
    return tmp_path


def test_a_sound_run_passes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert smoke_check.main([str(folder)]) == 0
    assert capsys.readouterr() == (f"smoke check: {folder} is sound\n", "")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda results: results.pop("seed"), "keys are missing: seed"),
        (lambda results: results["rows"].clear(), "rows is not a list with something in it"),
        (lambda results: results["rows"][0].pop("n"), "row 0: has the keys"),
        (lambda results: results["rows"][1].update(low=0.7), "row 1: low is 0.7 at value 0.5"),
        (lambda results: results["rows"][1].update(high=0.4), "row 1: high is 0.4 at value 0.5"),
        (lambda results: results["rows"][1].update(value=None), "row 1: value is None"),
        (lambda results: results["rows"][1].update(n=0), "row 1: n is 0"),
        (lambda results: results["rows"][1].update(method=""), "row 1: method is ''"),
        (lambda results: results["rows"][1].update(value=float("nan")), "cannot be read: NaN is not JSON"),
        (lambda results: results.update(seconds=0), "seconds is 0"),
        (
            lambda results: results.update(rows=[row for row in results["rows"] if row["task"] != "chords"]),
            "tasks are missing: chords",
        ),
        (
            lambda results: [row.update(split="unseen") for row in results["rows"]],
            "no accuracy of stage2 on the test split of notes",
        ),
        (
            lambda results: [row.update(low=0.08) for row in results["rows"] if row["method"] == "stage2"],
            "stage2 on notes: 0.500 (from 0.080, n 100) is not above chance, 0.090",
        ),
    ],
)
def test_broken_results_are_named(
    change: Callable[[dict[str, Any]], Any],
    fault: str,
    folder: Path,
    results: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(results)
    (folder / "results.json").write_text(json.dumps(results))
    assert smoke_check.main([str(folder)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert fault in line


def test_without_a_row_of_chance_it_is_one_in_eleven(results: dict[str, Any]) -> None:
    results["rows"].pop()
    assert smoke_check.check_results(results) == []
    for entry in results["rows"]:
        entry.update(value=1 / 11, low=None)
    assert len(smoke_check.check_results(results)) == 1


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ("<html>", "is not a whole page"),
        ('<script src="https://example.org/a.js"></script></html>', "loads from elsewhere: src="),
        ("<link rel='stylesheet' href='//example.org/a.css'></html>", "loads from elsewhere: <link"),
        ("<style>a { background: url(https://example.org/a.png) }</style></html>", "loads from elsewhere: url("),
    ],
)
def test_a_broken_report_is_named(page: str, fault: str, folder: Path) -> None:
    (folder / "report.html").write_text(page)
    [line] = smoke_check.check(folder)
    assert fault in line


def test_missing_files_are_named(folder: Path) -> None:
    for name in ("results.json", "report.html", "stage2/model.safetensors"):
        (folder / name).unlink()
    faults = smoke_check.check(folder)
    assert [Path(fault.split(" ")[0]).name for fault in faults] == ["report.html", "stage2", "results.json"]


def test_wrong_usage() -> None:
    assert smoke_check.main([]) == 2
