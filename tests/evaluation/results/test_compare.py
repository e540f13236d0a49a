"""Paired differences: on the same clips, with the interval of the bootstrap, and only what both runs measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from mint.cli import main
from mint.evaluation.metrics.bootstrap import difference
from mint.evaluation.metrics.classification import accuracy
from mint.evaluation.metrics.retrieval import retrieve
from mint.evaluation.results import measures
from mint.evaluation.results.compare import compare, comparison_table
from mint.evaluation.results.file import Results, write_results
from mint.evaluation.results.measures import (
    MULTILABEL,
    ClipSet,
    Measure,
    accuracy_measure,
    label_measures,
    query_values,
    record_measures,
    retrieval_measures,
)
from mint.types import Example, MintError

LABELS = ("a", "b", "c")
GENERATOR = np.random.default_rng(0)
TRUTH = GENERATOR.integers(3, size=120)


def kept(*found: Measure) -> Results:
    """A results file with some measures, as JSON gives them back."""
    return with_records(record_measures(found))


def with_records(records: Any) -> Results:
    return Results((), 1.0, None, "r", None, 0, {"per_clip": json.loads(json.dumps(records))})


def results(scores: Any, clips: range = range(120), task: str = "notes") -> Results:
    """As a results file holds them, through the records that a run leaves."""
    rows = list(clips)
    clip_set = ClipSet(task, "test", [f"corpus/{row}" for row in rows], [LABELS[TRUTH[row]] for row in rows])
    return kept(accuracy_measure(clip_set, "stage2", scores[rows], TRUTH[rows]))


GOOD = GENERATOR.normal(size=(120, 3)) + 2 * np.eye(3)[TRUTH]
BAD = GENERATOR.normal(size=(120, 3)) + 0.5 * np.eye(3)[TRUTH]


def test_it_is_the_paired_difference_of_accuracies() -> None:
    (found,) = compare(results(BAD), results(GOOD), seed=3)
    assert (found.task, found.split, found.metric, found.method) == ("notes", "test", "accuracy", "stage2")
    assert (found.n, found.dropped) == (120, 0)
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
        (
            Results((), 1.0, None, "r", None, 0, {}),
            results(GOOD),
            "the first results file keeps nothing of single clips",
        ),
        (results(GOOD, range(10)), results(GOOD, range(10, 20)), "no clip in common"),
        (results(GOOD), results(GOOD, task="chords"), "no clip in common"),
    ],
)
def test_mistakes_are_named(first: Results, second: Results, words: str) -> None:
    with pytest.raises(MintError, match=words):
        compare(first, second)


IDS = [f"corpus/{clip}" for clip in range(120)]
ONE_LABEL = ClipSet("notes", "test", IDS, [LABELS[label] for label in TRUTH])
MANY_LABELS = ClipSet("notes", "test", IDS)


def test_every_method_of_a_task_with_one_label() -> None:
    ours, theirs = (
        kept(
            accuracy_measure(ONE_LABEL, "stage2", scores, TRUTH),
            accuracy_measure(ONE_LABEL, "stage1", scores[::-1], TRUTH),
            accuracy_measure(ONE_LABEL, "probe", GOOD, TRUTH),
        )
        for scores in (BAD, GOOD)
    )
    stage2, stage1 = sorted(compare(ours, theirs), key=lambda one: one.method, reverse=True)
    (alone,) = compare(results(BAD), results(GOOD))
    assert stage2 == alone  # as from what was predicted
    assert stage1.second == pytest.approx(float(accuracy(GOOD[::-1], TRUTH)))


def test_several_labels_a_clip_with_some_unknown() -> None:
    truth = GENERATOR.random((120, 3)) < 0.4
    known = GENERATOR.random((120, 3)) < 0.7
    ours, theirs = (kept(*label_measures(MANY_LABELS, "stage2", one, truth, known)) for one in (BAD, GOOD))
    found = {one.metric: one for one in compare(ours, theirs, seed=1)}
    order = np.argsort([f"corpus/{clip}" for clip in range(120)])
    arrays = [(scores[order], truth[order], known[order]) for scores in (GOOD, BAD)]
    for name, metric in MULTILABEL.items():
        assert found[name].gap == pytest.approx(difference(metric, *arrays, seed=1), abs=1e-5)
    assert len(found) == 4


def test_scores_of_very_many_clips_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    found = label_measures(MANY_LABELS, "stage2", BAD, GENERATOR.random((120, 3)) < 0.5)
    assert len(record_measures(found)[0]["scores"]["stage2"]) == 120
    monkeypatch.setattr(measures, "MOST_SCORES", 359)
    assert record_measures(found) == []


def test_captions_of_a_clip_weigh_alike_in_retrieval() -> None:
    owner = torch.arange(12).repeat_interleave(torch.arange(12) % 3 + 1)
    generator = torch.Generator().manual_seed(0)
    texts = normalize(torch.randn(len(owner), 8, generator=generator), dim=-1)
    runs = []
    for noise in (0.5, 2.0):
        clips = normalize(texts[:12, None] + noise * torch.randn(12, 2, 8, generator=generator), dim=-1)
        retrieval = retrieve(clips, texts, owner)
        examples = [Example(str(clip), Path("a.wav"), "notes", "test", "corpus") for clip in range(12)]
        runs.append((kept(*retrieval_measures(examples, retrieval, "stage1")), query_values(retrieval.text_to_audio)))
    found = {one.metric: one for one in compare(runs[0][0], runs[1][0])}
    assert len(found) == 8
    for metric in ("recall@1", "recall@5", "recall@10", "map@10"):
        expected = tuple(float(values[metric].mean()) for _, values in runs)
        assert (found[metric].first, found[metric].second) == pytest.approx(expected, abs=1e-6)


def test_a_record_of_another_form_is_refused() -> None:
    broken = with_records([{"task": "notes", "split": "test", "ids": ["a"], "values": {"stage2": {"accuracy": ["x"]}}}])
    with pytest.raises(MintError, match=r"values of single clips cannot be read .*; evaluate the run again"):
        compare(broken, results(GOOD))


def test_labels_that_differ_between_the_files_are_refused() -> None:
    table = np.eye(3, dtype=bool)[TRUTH]
    ours, theirs = (kept(*label_measures(MANY_LABELS, "stage2", BAD, truth)) for truth in (table, ~table))
    with pytest.raises(MintError, match="the labels of notes differ between the files"):
        compare(ours, theirs)


def test_a_clip_with_two_truths_is_refused() -> None:
    other = results(GOOD)
    other.extra["per_clip"][0]["labels"][5] = "z"
    with pytest.raises(MintError, match=r"clip corpus/5 is '.' in the first file and 'z' in the second"):
        compare(results(GOOD), other)


def test_two_clips_of_one_name_are_refused() -> None:
    """One of them would be compared with the other."""
    other = results(GOOD)
    other.extra["per_clip"][0]["ids"][5] = "corpus/7"
    for pair, name in (((other, results(GOOD)), "first"), ((results(GOOD), other), "second")):
        with pytest.raises(MintError, match=f"two clips of notes are called corpus/7 in the {name} file; make ids"):
            compare(*pair)


@pytest.mark.parametrize(
    "change",
    [
        {"ids": 3},
        {"ids": [["a"]] * 120},
        {"ids": ["a"]},
        {"labels": ["a"]},
        {"labels": [1] * 120},
        {"values": {"stage2": {"accuracy": [1.0]}}},
        {"values": {"stage2": {"accuracy": [[1.0]] * 120}}},
        {"values": {"stage2": {"accuracy": [float("nan")] * 120}}},
        {"values": {"stage2": 3}},
        {"values": [3]},
        {"weights": [1.0]},
        {"weights": "a"},
        {"scores": {"stage2": [1.0]}, "truth": [[0]], "unknown": [[]]},
        {"task": ["a"]},
        {"split": None, "ids": None},
    ],
)
def test_damaged_values_of_clips_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any
) -> None:
    paths = [tmp_path / "good.json", tmp_path / "bad.json"]
    for path, records in zip(paths, (GOOD, BAD), strict=True):
        extra = results(records).extra
        if path.stem == "bad":
            extra["per_clip"][0].update(change)
        content = {"rows": [], "seconds": 1.0, "peak_memory_bytes": None, "recipe": "r", "commit": None, "seed": 0}
        path.write_text(json.dumps({**content, **extra}), encoding="utf-8")
    for pair in (paths, paths[::-1]):
        assert main(["compare", *map(str, pair)]) == 2
        message = capsys.readouterr().err
        assert "unexpected" not in message
        assert message.count("\n") == 1


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, one in zip(paths, (results(BAD), results(GOOD)), strict=True):
        write_results(path, [], seconds=1.0, peak_memory_bytes=None, recipe="r", commit=None, seed=0, **one.extra)
    assert main(["compare", *map(str, paths)]) == 0
    (found,) = compare(results(BAD), results(GOOD))
    text = capsys.readouterr().out
    assert (
        f"| notes | test | accuracy (%) | stage2 | 120 | {100 * found.first:.1f} | {100 * found.second:.1f} | +" in text
    )
    assert "| yes |" in text
