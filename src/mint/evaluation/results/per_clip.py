"""What a run is worth on each single clip, as a results file keeps it: two runs can then be compared clip by clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mint.evaluation.metrics import classification as metrics
from mint.types import Example, MintError

if TYPE_CHECKING:
    from mint.evaluation.metrics.classification import Metric
    from mint.evaluation.metrics.retrieval import Ranks

METHODS = ("stage1", "stage1+alm", "stage2")
"""What is kept: baselines are the same for two runs with one encoder."""
MOST_SCORES = 200_000
"""Scores of a task with several labels a clip are kept up to so many: some megabytes."""
DIGITS = 7
"""Significant ones, of what is kept."""
MULTILABEL: dict[str, Metric] = {
    "map": metrics.mean_average_precision,
    "roc_auc": metrics.roc_auc,
    "micro_map": metrics.micro_average_precision,
    "micro_roc_auc": metrics.micro_roc_auc,
}


@dataclass(frozen=True)
class Series:
    """One metric of one method, in a form that can be computed again for some of the clips."""

    metric: Metric
    arrays: tuple[Any, ...]
    """Its arguments, each indexed by clip."""
    ids: Sequence[str]
    strata: Sequence[str] | None
    """True label of each clip, within which clips are exchanged."""


@dataclass
class PerClip:
    """Values and scores of the clips of one task and split."""

    task: str
    split: str
    ids: Sequence[str]
    labels: Sequence[str] | None = None
    """The true one of each clip, where there is one."""
    weights: Any = None
    """[N]: how many queries a clip's values are the mean of; None: one."""
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Method -> metric -> [N]."""
    truth: Any = None
    """[N, C] bool, with `known` [N, C] bool and `scores`, of a task with several labels a clip."""
    known: Any = None
    scores: dict[str, Any] = field(default_factory=dict)
    """Method -> [N, C]."""

    def record(self) -> dict[str, Any]:
        """For a results file."""
        record: dict[str, Any] = {"task": self.task, "split": self.split, "ids": list(self.ids)}
        if self.labels is not None:
            record["labels"] = list(self.labels)
        if self.weights is not None:
            record["weights"] = _plain(self.weights)
        if self.values:
            record["values"] = {
                method: {metric: _plain(values) for metric, values in found.items()}
                for method, found in self.values.items()
            }
        if self.scores:
            record["truth"] = [np.flatnonzero(row).tolist() for row in self.truth]
            record["unknown"] = [np.flatnonzero(~row).tolist() for row in self.known]
            record["scores"] = {method: _plain(scores) for method, scores in self.scores.items()}
        return record


def clip_ids(examples: Sequence[Example]) -> list[str]:
    """Names of clips that hold for all runs."""
    return [f"{example.corpus}/{example.id}" for example in examples]


def of_accuracy(examples: Sequence[Example], scores: Mapping[str, Any], wanted: Any) -> PerClip:
    """Which clips each method names rightly; scores [N, C] by method, wanted [N] int."""
    right = {method: {"accuracy": metrics.hits(scores[method], wanted)} for method in METHODS if method in scores}
    labels = [example.labels[0] for example in examples]
    return PerClip(examples[0].task, examples[0].split, clip_ids(examples), labels, values=right)


def of_labels(examples: Sequence[Example], scores: Mapping[str, Any], truth: Any, known: Any) -> PerClip:
    """The scores [N, C] of each method, unless there are very many; truth and known [N, C] bool."""
    kept = {method: scores[method] for method in METHODS if method in scores and truth.size <= MOST_SCORES}
    return PerClip(examples[0].task, examples[0].split, clip_ids(examples), truth=truth, known=known, scores=kept)


def of_retrieval(examples: Sequence[Example], ranks: Ranks, values: Mapping[str, Any], method: str) -> PerClip:
    """Mean of each metric's values, one a query, over the queries of a clip."""
    found, weights = {}, None
    for metric, one in values.items():
        sums, counts = (part.cpu().numpy() for part in ranks.per_clip(one))
        found[metric], weights = sums / counts, counts
    clips = [examples[clip] for clip in ranks.clip.unique().tolist()]
    return PerClip("retrieval", "test", clip_ids(clips), weights=weights, values={method: found})


def read_series(records: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str, str], Series]:
    """What results files hold, by task, split, metric and method.

    Raises:
        MintError: a record of another form.
    """
    found: dict[tuple[str, str, str, str], Series] = {}
    try:
        for record in records:
            place, ids, labels = (record["task"], record["split"]), record["ids"], record.get("labels")
            weights = np.asarray(record.get("weights", np.ones(len(ids))), dtype=np.float64)
            for method, by_metric in record.get("values", {}).items():
                for metric, values in by_metric.items():
                    sums = weights * np.asarray(values, dtype=np.float64)
                    found[(*place, metric, method)] = Series(metrics.ratio, (sums, weights), ids, labels)
            for method, rows in record.get("scores", {}).items():
                scores = np.asarray(rows, dtype=np.float64)
                truth, unknown = (_table(record[key], scores.shape) for key in ("truth", "unknown"))
                for metric, function in MULTILABEL.items():
                    found[(*place, metric, method)] = Series(function, (scores, truth, ~unknown), ids, None)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise MintError(
            f"the values of single clips cannot be read ({type(error).__name__}: {error}); evaluate the run again"
        ) from None
    return found


def _table(places: Sequence[Sequence[int]], shape: tuple[int, ...]) -> Any:
    table = np.zeros(shape, dtype=bool)
    for row, columns in zip(table, places, strict=True):
        row[columns] = True
    return table


def _plain(values: Any) -> Any:
    """Numbers as JSON has them, rounded."""
    array = np.asarray(values, dtype=np.float64)
    return [_plain(row) for row in array] if array.ndim > 1 else [float(f"{one:.{DIGITS}g}") for one in array]
