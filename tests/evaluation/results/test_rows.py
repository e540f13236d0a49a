"""Rows carry the figure, its interval and the number of clips."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from mint.evaluation.metrics.captions import CaptionScore, CaptionScores
from mint.evaluation.metrics.classification import (
    accuracy,
    mean_average_precision,
    micro_average_precision,
    micro_roc_auc,
    roc_auc,
)
from mint.evaluation.metrics.retrieval import retrieve
from mint.evaluation.results.file import Row
from mint.evaluation.results.rows import (
    accuracy_rows,
    caption_rows,
    chance_accuracy_rows,
    chance_multilabel_rows,
    chance_retrieval_rows,
    multilabel_rows,
    retrieval_rows,
    share_rows,
)

GENERATOR = np.random.default_rng(0)
SCORES, LABELS = GENERATOR.normal(size=(40, 3)), GENERATOR.integers(3, size=40)
TRUTH = GENERATOR.random((40, 3)) < 0.4


def test_accuracy() -> None:
    (row,) = accuracy_rows(SCORES, LABELS, task="notes", split="test", method="stage2")
    assert (row.task, row.split, row.metric, row.method, row.n) == ("notes", "test", "accuracy", "stage2", 40)
    assert row.value == float(accuracy(SCORES, LABELS))
    assert row.low is not None and row.high is not None and row.low < row.value < row.high  # noqa: PT018
    (chance,) = chance_accuracy_rows(LABELS, 3, task="notes", split="test")
    assert chance == Row("notes", "test", "accuracy", "chance", 1 / 3, 1 / 3, 1 / 3, 40)


def test_multilabel() -> None:
    rows = multilabel_rows(SCORES, TRUTH, task="ensembles", split="test", method="stage1")
    assert {row.metric: row.value for row in rows} == {
        "map": float(mean_average_precision(SCORES, TRUTH)),
        "roc_auc": float(roc_auc(SCORES, TRUTH)),
        "micro_map": float(micro_average_precision(SCORES, TRUTH)),
        "micro_roc_auc": float(micro_roc_auc(SCORES, TRUTH)),
    }
    known = np.arange(120).reshape(40, 3) % 4 < 3
    for given in (TRUTH, known), (np.where(known, TRUTH.astype(float), np.nan), None):
        chance = chance_multilabel_rows(*given, task="ensembles", split="test")
        assert [row.metric for row in chance] == [row.metric for row in rows]
        shares = [TRUTH[known[:, one], one].mean() for one in range(3)]
        assert [row.value for row in chance] == pytest.approx([np.mean(shares), 0.5, TRUTH[known].mean(), 0.5])


def test_a_metric_that_no_class_allows_has_no_row() -> None:
    always = np.ones((40, 3), dtype=bool)
    assert [row.metric for row in multilabel_rows(SCORES, always, task="t", split="s", method="m")] == [
        "map",
        "micro_map",
    ]
    assert [row.metric for row in chance_multilabel_rows(always, task="t", split="s")] == ["map", "micro_map"]


def test_retrieval() -> None:
    queries = normalize(torch.randn(20, 2, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    owner = torch.cat([torch.arange(20), torch.tensor([3, 3])])
    found = retrieve(queries, queries[owner, 0], owner)
    rows = retrieval_rows(found, task="retrieval", split="test", method="stage1")
    names = ["recall@1", "recall@5", "recall@10", "map@10"]
    assert [row.metric for row in rows] == names + [f"audio_to_text_{name}" for name in names]
    assert rows[0].value == pytest.approx(float(found.text_to_audio.recall(1).mean()))
    assert {row.n for row in rows} == {20}
    chance = chance_retrieval_rows(found, task="retrieval", split="test")
    assert [row.metric for row in chance] == [row.metric for row in rows]
    assert [row.value for row in chance[:3]] == pytest.approx([1 / 20, 5 / 20, 10 / 20])


def test_captions() -> None:
    scores = CaptionScores(
        {"rouge_l": CaptionScore(0.5, np.array([0.25, 0.75]), True), "bleu_4": CaptionScore(0.3, np.zeros(2), False)},
        {"spice": "no jar"},
    )
    mean, corpus = caption_rows(scores, task="captioning", split="test", method="stage2")
    assert (mean.value, mean.low, mean.high, mean.n) == (0.5, 0.25, 0.75, 2)
    assert (corpus.value, corpus.low, corpus.high, corpus.n) == (0.3, None, None, 2)


def test_share() -> None:
    (row,) = share_rows([True, False, True, True], task="notes", split="test", metric="names_label", method="stage2")
    assert (row.metric, row.value, row.n) == ("names_label", 0.75, 4)
