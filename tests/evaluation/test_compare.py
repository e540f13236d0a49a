"""Paired differences: on the same clips, with the interval of the bootstrap, and only what both runs measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mint.cli import main
from mint.evaluation.bootstrap import difference
from mint.evaluation.compare import compare, comparison_table, record_predictions
from mint.evaluation.metrics import accuracy
from mint.evaluation.results import Results, write_results
from mint.evaluation.runner import Prediction
from mint.types import Example, MintError

LABELS = ("a", "b", "c")
GENERATOR = np.random.default_rng(0)
TRUTH = GENERATOR.integers(3, size=120)


def results(scores: Any, clips: range = range(120), task: str = "notes") -> Results:
    """As a results file holds them, through the records that a run leaves."""
    predictions = [
        Prediction(
            Example(str(clip), Path("a.wav"), task, "test", "corpus", labels=(LABELS[TRUTH[clip]],)),
            LABELS[int(scores[clip].argmax())],
            0.0,
        )
        for clip in clips
    ]
    return Results((), 1.0, None, "r", None, 0, {"predictions": record_predictions(predictions)})


GOOD = GENERATOR.normal(size=(120, 3)) + 2 * np.eye(3)[TRUTH]
BAD = GENERATOR.normal(size=(120, 3)) + 0.5 * np.eye(3)[TRUTH]


def test_it_is_the_paired_difference_of_accuracies() -> None:
    (found,) = compare(results(BAD), results(GOOD), seed=3)
    assert (found.task, found.split, found.n, found.dropped) == ("notes", "test", 120, 0)
    assert found.first == pytest.approx(float(accuracy(BAD, TRUTH)))
    assert found.second == pytest.approx(float(accuracy(GOOD, TRUTH)))
    order = np.argsort([f"corpus/{clip}" for clip in range(120)])
    expected = difference(
        accuracy, (GOOD[order], TRUTH[order]), (BAD[order], TRUTH[order]), strata=TRUTH[order], seed=3
    )
    assert found.gap == pytest.approx(expected)
    assert found.differs
    assert found.gap.low > 0


def test_the_other_way_round_is_the_opposite_and_a_run_equals_itself() -> None:
    (forward,), (backward,) = compare(results(BAD), results(GOOD)), compare(results(GOOD), results(BAD))
    assert backward.gap == pytest.approx((-forward.gap.value, -forward.gap.high, -forward.gap.low))
    (same,) = compare(results(GOOD), results(GOOD))
    assert tuple(same.gap) == (0.0, 0.0, 0.0)
    assert not same.differs


def test_only_common_clips_count_and_others_are_told() -> None:
    (found,) = compare(results(BAD, range(100)), results(GOOD, range(40, 120)))
    assert (found.n, found.dropped) == (60, 60)
    assert "60 clips that only one of the two measured are left out" in comparison_table([found], ("A", "B"))


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (Results((), 1.0, None, "r", None, 0, {}), results(GOOD), "the first results file keeps no predictions"),
        (results(GOOD, range(10)), results(GOOD, range(10, 20)), "no clip in common"),
        (results(GOOD), results(GOOD, task="chords"), "no clip in common"),
    ],
)
def test_mistakes_are_named(first: Results, second: Results, words: str) -> None:
    with pytest.raises(MintError, match=words):
        compare(first, second)


def test_a_clip_with_two_truths_is_refused() -> None:
    other = results(GOOD)
    other.extra["predictions"][5]["truth"] = "z"
    with pytest.raises(MintError, match=r"clip corpus/5 is '.' in the first file and 'z' in the second"):
        compare(results(GOOD), other)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, one in zip(paths, (results(BAD), results(GOOD)), strict=True):
        write_results(path, [], seconds=1.0, peak_memory_bytes=None, recipe="r", commit=None, seed=0, **one.extra)
    assert main(["compare", *map(str, paths)]) == 0
    (found,) = compare(results(BAD), results(GOOD))
    text = capsys.readouterr().out
    assert f"| notes | test | 120 | {100 * found.first:.1f} | {100 * found.second:.1f} | +" in text
    assert "| yes |" in text
