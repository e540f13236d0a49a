"""From scores to rows: each function measures one kind of task, with its 95 % bootstrap intervals over clips.

A method that only knows scores (stage 2's vocabulary ranking, stage 1's similarity ranking, the probe, the majority
class) goes through the same function, so that one table compares like with like.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mint.evaluation.metrics import bootstrap, probe
from mint.evaluation.metrics import classification as metrics
from mint.evaluation.results.file import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike
    from torch import Tensor

    from mint.evaluation.metrics.bootstrap import Interval
    from mint.evaluation.metrics.captions import CaptionScores
    from mint.evaluation.metrics.retrieval import Ranks, Retrieval

DEPTHS = (1, 5, 10)
"""The k of R@k."""
MULTILABEL = (
    ("map", metrics.mean_average_precision, False),
    ("roc_auc", metrics.roc_auc, True),
    ("micro_map", metrics.micro_average_precision, False),
    ("micro_roc_auc", metrics.micro_roc_auc, True),
)
"""Metrics of several labels a clip, and whether they need a negative."""


def accuracy_rows(
    scores: ArrayLike, labels: ArrayLike, *, task: str, split: str, method: str, seed: int = 0
) -> list[Row]:
    """`accuracy` of one label for each clip; scores [N, C], labels [N] int. Resampled within each class."""
    found = bootstrap.interval(metrics.mean, metrics.hits(scores, labels), strata=labels, seed=seed)
    return [_row(found, task, split, "accuracy", method, len(np.asarray(labels)))]


def multilabel_rows(
    scores: ArrayLike,
    truth: ArrayLike,
    known: ArrayLike | None = None,
    *,
    task: str,
    split: str,
    method: str,
    seed: int = 0,
) -> list[Row]:
    """`map`, `roc_auc`, and both as `micro_...`; scores [N, C], truth [N, C] bool, known [N, C] bool or None for all.

    A metric that no class allows (for ROC-AUC, one without negatives) has no row.
    """
    rows = []
    for name, metric, negatives in MULTILABEL:
        if metrics.scored_classes(truth, known, negatives=negatives).any():
            found = bootstrap.interval(metric, scores, truth, known, seed=seed)
            rows.append(_row(found, task, split, name, method, len(np.asarray(truth))))
    return rows


def retrieval_rows(retrieval: Retrieval, *, task: str, split: str, method: str, seed: int = 0) -> list[Row]:
    """`recall@k` and `map@10` of text-to-audio (the paper's Table 3), and the same as `audio_to_text_...`."""
    rows = []
    for prefix, ranks in directions(retrieval):
        for name, value in query_values(prefix, ranks).items():
            sums, counts = (part.cpu().numpy() for part in ranks.per_clip(value))
            found = bootstrap.interval(metrics.ratio, sums, counts, seed=seed)
            rows.append(_row(found, task, split, name, method, len(sums)))
    return rows


def query_values(prefix: str, ranks: Ranks) -> dict[str, Tensor]:
    """The metrics of retrieval for each query of one direction."""
    values = {f"recall@{k}": ranks.recall(k) for k in DEPTHS} | {"map@10": ranks.average_precision(10)}
    return {prefix + name: value for name, value in values.items()}


def caption_rows(captions: CaptionScores, *, task: str, split: str, method: str, seed: int = 0) -> list[Row]:
    """One row for each metric that was computed; without interval where it counts over the whole corpus."""
    rows = []
    for name, score in captions.scores.items():
        if score.is_mean:
            found = bootstrap.interval(metrics.mean, score.per_clip, seed=seed)
            rows.append(_row(found, task, split, name, method, len(score.per_clip)))
        else:
            rows.append(Row(task, split, name, method, score.corpus, None, None, len(score.per_clip)))
    return rows


def share_rows(
    values: Sequence[bool] | ArrayLike, *, task: str, split: str, metric: str, method: str, seed: int = 0
) -> list[Row]:
    """The mean of one value for each clip under a name of one's own, such as the captions that name the right label."""
    found = bootstrap.interval(metrics.mean, np.asarray(values, dtype=np.float64), seed=seed)
    return [_row(found, task, split, metric, method, len(np.asarray(values)))]


def chance_accuracy_rows(labels: ArrayLike, classes: int, *, task: str, split: str) -> list[Row]:
    """What guessing gives: 1/C."""
    return [_chance(probe.chance_accuracy(classes), task, split, "accuracy", len(np.asarray(labels)))]


def chance_multilabel_rows(truth: ArrayLike, known: ArrayLike | None = None, *, task: str, split: str) -> list[Row]:
    """What guessing gives: the share of positives for average precision, one half for ROC-AUC."""
    positive = np.asarray(truth, dtype=np.float64)
    pairs = positive.ravel() if known is None else positive[np.asarray(known, dtype=bool)]
    values = {
        "map": probe.chance_average_precision(truth, known),
        "micro_map": probe.chance_average_precision(pairs[:, None]),
    }
    if metrics.scored_classes(truth, known, negatives=True).any():
        values |= {"roc_auc": 0.5, "micro_roc_auc": 0.5}
    return [_chance(values[name], task, split, name, len(positive)) for name, *_ in MULTILABEL if name in values]


def chance_retrieval_rows(retrieval: Retrieval, *, task: str, split: str) -> list[Row]:
    """What a random order gives: k/N for `recall@k` where one item is right."""
    rows = []
    for prefix, ranks in directions(retrieval):
        values = {f"recall@{k}": ranks.chance_recall(k) for k in DEPTHS}
        values["map@10"] = ranks.chance_average_precision(10)
        clips = len(ranks.clip.unique())
        rows += [_chance(value, task, split, prefix + name, clips) for name, value in values.items()]
    return rows


def directions(retrieval: Retrieval) -> tuple[tuple[str, Ranks], tuple[str, Ranks]]:
    """Both, with what their metrics' names begin with."""
    return ("", retrieval.text_to_audio), ("audio_to_text_", retrieval.audio_to_text)


def _chance(value: float, task: str, split: str, metric: str, clips: int) -> Row:
    return Row(task, split, metric, "chance", value, value, value, clips)


def _row(found: Interval, task: str, split: str, metric: str, method: str, clips: int) -> Row:
    return Row(task, split, metric, method, found.value, found.low, found.high, clips)
