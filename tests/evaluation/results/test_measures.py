"""Measures give their figure with its interval, and come back from a results file as they were."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from mint.evaluation.metrics import bootstrap
from mint.evaluation.metrics.captions import CaptionScore
from mint.evaluation.metrics.classification import (
    accuracy,
    mean_average_precision,
    micro_average_precision,
    micro_roc_auc,
    roc_auc,
)
from mint.evaluation.metrics.retrieval import retrieve
from mint.evaluation.results.file import Row
from mint.evaluation.results.measures import (
    ClipSet,
    accuracy_measure,
    caption_row,
    chance_accuracy_row,
    chance_label_rows,
    chance_retrieval_rows,
    label_measures,
    mean_measure,
    read_measures,
    record_measures,
    retrieval_measures,
)
from mint.types import Example, MintError

GENERATOR = np.random.default_rng(0)
SCORES, WANTED = GENERATOR.normal(size=(40, 3)), GENERATOR.integers(3, size=40)
TRUTH = GENERATOR.random((40, 3)) < 0.4
KNOWN = np.arange(120).reshape(40, 3) % 4 < 3
IDS = [f"corpus/{clip}" for clip in range(40)]
NOTES = ClipSet("notes", "test", IDS, [f"label {label}" for label in WANTED])
ENSEMBLES = ClipSet("ensembles", "test", IDS)


def examples(count: int) -> list[Example]:
    return [Example(str(clip), Path("a.wav"), "t", "test", "corpus") for clip in range(count)]


def test_accuracy_is_resampled_within_its_classes() -> None:
    row = accuracy_measure(NOTES, "stage2", SCORES, WANTED).row(seed=5)
    expected = bootstrap.interval(accuracy, SCORES, WANTED, strata=WANTED, seed=5)
    assert row == Row("notes", "test", "accuracy", "stage2", *expected, 40)
    assert expected.low < expected.value < expected.high
    assert chance_accuracy_row(NOTES, 3) == Row("notes", "test", "accuracy", "chance", 1 / 3, 1 / 3, 1 / 3, 40)


def test_several_labels_a_clip() -> None:
    rows = [measure.row() for measure in label_measures(ENSEMBLES, "stage1", SCORES, TRUTH, KNOWN)]
    functions = {
        "map": mean_average_precision,
        "roc_auc": roc_auc,
        "micro_map": micro_average_precision,
        "micro_roc_auc": micro_roc_auc,
    }
    assert [row.metric for row in rows] == list(functions)
    for row in rows:
        assert row.value == float(functions[row.metric](SCORES, TRUTH, KNOWN))

    chance = chance_label_rows(ENSEMBLES, TRUTH, KNOWN)
    assert [row.metric for row in chance] == [row.metric for row in rows]
    generator = np.random.default_rng(0)
    for row in chance:
        guesses = [functions[row.metric](generator.normal(size=(40, 3)), TRUTH, KNOWN) for _ in range(300)]
        assert row.value == pytest.approx(float(np.mean(guesses)), abs=0.015)


def test_a_metric_that_no_class_allows_is_left_out() -> None:
    always = np.ones((40, 3), dtype=bool)
    assert [measure.metric for measure in label_measures(ENSEMBLES, "m", SCORES, always)] == ["map", "micro_map"]
    assert [row.metric for row in chance_label_rows(ENSEMBLES, always)] == ["map", "micro_map"]


def test_retrieval() -> None:
    queries = normalize(torch.randn(20, 2, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    owner = torch.cat([torch.arange(20), torch.tensor([3, 3])])
    found = retrieve(queries, queries[owner, 0], owner)
    rows = [measure.row() for measure in retrieval_measures(examples(20), found, "stage1")]
    names = ["recall@1", "recall@5", "recall@10", "map@10"]
    assert [row.metric for row in rows] == names + [f"audio_to_text_{name}" for name in names]
    assert rows[0].value == pytest.approx(float(found.text_to_audio.recall(1).mean()))
    assert {row.n for row in rows} == {20}
    chance = chance_retrieval_rows(found)
    assert [row.metric for row in chance] == [row.metric for row in rows]
    assert [row.value for row in chance[:3]] == pytest.approx([1 / 20, 5 / 20, 10 / 20])


def test_what_is_not_re_ranked_is_no_figure_of_re_ranking() -> None:
    queries = normalize(torch.randn(20, 2, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    for top, names in ((10, ["recall@1", "recall@5", "map@10"]), (11, ["recall@1", "recall@5", "recall@10", "map@10"])):
        found = retrieve(
            queries,
            queries[:, 0],
            torch.arange(20),
            reranker=lambda clips, texts: torch.zeros(len(clips)),
            temperature=0.1,
            top=top,
        )
        measures = retrieval_measures(examples(20), found, "stage1+alm")
        assert [measure.metric for measure in measures[: len(names)]] == names


def test_a_mean_and_a_figure_of_the_whole_corpus() -> None:
    clips = ClipSet("captioning", "test", ["a", "b"])
    mean = mean_measure(clips, "rouge_l", "stage2", [0.25, 0.75]).row()
    assert (mean.value, mean.low, mean.high, mean.n) == (0.5, 0.25, 0.75, 2)
    corpus = caption_row(clips, "bleu_4", "stage2", CaptionScore(0.3, np.zeros(2), False))
    assert corpus == Row("captioning", "test", "bleu_4", "stage2", 0.3, None, None, 2)
    row = mean_measure(ClipSet("t", "s", list("abcd")), "m", "stage2", [True, False, True, True]).row()
    assert (row.value, row.n) == (0.75, 4)


def test_measures_come_back_from_a_results_file() -> None:
    queries = normalize(torch.randn(20, 2, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    owner = torch.cat([torch.arange(20), torch.tensor([3, 3])])
    found = [
        accuracy_measure(NOTES, "stage2", SCORES, WANTED),
        accuracy_measure(NOTES, "stage1", -SCORES, WANTED),
        accuracy_measure(NOTES, "probe", SCORES, WANTED),
        mean_measure(ClipSet("notes", "test", IDS[:7]), "caption_names_label", "stage2", np.arange(7) % 2),
        *label_measures(ENSEMBLES, "stage2", SCORES, TRUTH, KNOWN),
        *retrieval_measures(examples(20), retrieve(queries, queries[owner, 0], owner), "stage1"),
    ]
    records = json.loads(json.dumps(record_measures(found)))
    # One for the two methods of `notes`, the captions, `ensembles` with its scores once, and each way of retrieval.
    assert [record["task"] for record in records] == ["notes", "notes", "ensembles", "retrieval", "retrieval"]
    back = read_measures(records)
    assert back.keys() == {measure.key for measure in found if measure.method != "probe"}
    for measure in found:
        if measure.method != "probe":
            again, before = back[measure.key].row(seed=1), measure.row(seed=1)
            assert (again.n, again.key) == (before.n, before.key)
            assert (again.value, again.low, again.high) == pytest.approx(
                (before.value, before.low, before.high), abs=1e-5
            )
            assert list(back[measure.key].clips.ids) == list(measure.clips.ids)


def test_what_json_does_not_have_is_left_out() -> None:
    scores = np.where(np.arange(120).reshape(40, 3) == 7, -np.inf, SCORES)
    assert record_measures(label_measures(ENSEMBLES, "stage2", scores, TRUTH)) == []


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"task": "t", "split": "s", "ids": ["a"], "values": {"stage2": {"accuracy": ["x"]}}},
        {"task": "t", "split": "s", "ids": ["a"], "values": {"stage2": [1]}},
        {"task": "t", "split": "s", "ids": ["a"], "truth": [[9]], "unknown": [[]], "scores": {"stage2": [[1, 2]]}},
    ],
)
def test_a_record_of_another_form_is_refused(record: dict[str, object]) -> None:
    with pytest.raises(MintError, match=r"values of single clips cannot be read .*; evaluate the run again"):
        read_measures([record])
