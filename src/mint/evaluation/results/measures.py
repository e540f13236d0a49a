"""Measures: one metric of one method over the clips of one task and split, measured once and kept clip by clip.

A `Measure` gives its row in the tables, with a 95 % bootstrap interval over clips, and goes into the results file in a
form in which it can be computed again for any of the clips: so two runs can be compared clip by clip. A method that
only knows scores (stage 2's vocabulary ranking, stage 1's similarity ranking, the probe, the majority class) goes
through the same functions, so that one table compares like with like.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mint.evaluation.metrics import bootstrap, probe
from mint.evaluation.metrics import classification as metrics
from mint.evaluation.results.file import Row
from mint.types import Example, MintError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

    from mint.evaluation.metrics.captions import CaptionScore
    from mint.evaluation.metrics.classification import Metric
    from mint.evaluation.metrics.retrieval import Ranks, Retrieval

TRAINED = ("stage1", "stage1+alm", "stage2")
"""Methods that results files keep clip by clip: baselines are the same for two runs with one encoder."""
DEPTHS = (1, 5, 10)
"""The k of R@k."""
MULTILABEL: dict[str, Metric] = {
    "map": metrics.mean_average_precision,
    "roc_auc": metrics.roc_auc,
    "micro_map": metrics.micro_average_precision,
    "micro_roc_auc": metrics.micro_roc_auc,
}
"""Metrics of tasks with several labels a clip."""
NEED_NEGATIVES = ("roc_auc", "micro_roc_auc")
"""Those of them that exist only where some clip does not have a label."""
MOST_SCORES = 200_000
"""Results files keep the scores of a task with several labels a clip up to this many: some megabytes."""
DIGITS = 7
"""Significant digits of what results files keep."""

Key = tuple[str, str, str, str]
"""Task, split, metric and method."""


@dataclass(frozen=True)
class ClipSet:
    """The held-out clips of one task and split."""

    task: str
    split: str
    ids: Sequence[str]
    """Names of the clips, which hold for all runs."""
    labels: Sequence[str] | None = None
    """The true label of each clip, in a task with one label a clip: clips are resampled within their label."""

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.ids)


@dataclass(frozen=True)
class Measure:
    """One metric of one method over a set of clips."""

    clips: ClipSet
    metric: str
    method: str
    function: Metric
    """Computes the metric from the arrays."""
    arrays: tuple[Any, ...]
    """Sums and counts [N], or scores, truth and known [N, C]; each is indexed by clip."""

    @property
    def key(self) -> Key:
        """Task, split, metric and method: what the measure is known by."""
        return self.clips.task, self.clips.split, self.metric, self.method

    def row(self, seed: int = 0) -> Row:
        """Return the measure as a row of a table, its interval drawn by the seed."""
        found = bootstrap.interval(self.function, *self.arrays, strata=self.clips.labels, seed=seed)
        return Row(*self.key, found.value, found.low, found.high, len(self.clips))


def clip_ids(examples: Sequence[Example]) -> list[str]:
    """Return names of clips that hold for all runs."""
    return [f"{example.corpus}/{example.id}" for example in examples]


def mean_measure(clips: ClipSet, metric: str, method: str, sums: ArrayLike, counts: ArrayLike | None = None) -> Measure:
    """Return the mean of some values of each clip.

    Args:
        clips: N clips.
        metric: the name of what is measured.
        method: the name of what gave the values.
        sums: the sum of the values of each clip [N].
        counts: the number of values of each clip [N]; None: one each.
    """
    totals = np.asarray(sums, dtype=np.float64)
    numbers = np.ones(len(totals)) if counts is None else np.asarray(counts, dtype=np.float64)
    return Measure(clips, metric, method, metrics.ratio, (totals, numbers))


def accuracy_measure(clips: ClipSet, method: str, scores: ArrayLike, wanted: ArrayLike) -> Measure:
    """Return the `accuracy` of a task with one label a clip; scores [N, C], wanted [N] int."""
    return mean_measure(clips, "accuracy", method, metrics.hits(scores, wanted))


def label_measures(
    clips: ClipSet, method: str, scores: ArrayLike, truth: ArrayLike, known: ArrayLike | None = None
) -> list[Measure]:
    """Return `map`, `roc_auc` and both as `micro_...` of a task with several labels a clip.

    A metric that no class allows (ROC-AUC without negatives) is left out.

    Args:
        clips: N clips.
        method: the name of what gave the scores.
        scores: [N, C].
        truth: [N, C] bool.
        known: [N, C] bool, whether somebody listened for the label; None: everywhere.
    """
    listened = np.ones(np.shape(truth), dtype=bool) if known is None else np.asarray(known, dtype=bool)

    # All metrics share the arrays, which are large: a Measure holds references and copies nothing.
    arrays = (np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=bool), listened)
    return [Measure(clips, name, method, MULTILABEL[name], arrays) for name in _possible(truth, listened)]


def retrieval_measures(examples: Sequence[Example], retrieval: Retrieval, method: str) -> list[Measure]:
    """Return `recall@k` and `map@10` of text-to-audio (the paper's Table 3), and the same as `audio_to_text_...`.

    The value of a clip is the mean over its queries.
    """
    measures = []
    for prefix, ranks in directions(retrieval):
        # `Ranks.per_clip` gives the clips in ascending order, as `unique` does. A clip without a query has no value.
        with_query = [examples[clip] for clip in ranks.clip.unique().tolist()]
        clips = ClipSet("retrieval", "test", clip_ids(with_query))
        for name, value in query_values(ranks).items():
            sums, counts = ranks.per_clip(value)
            measures.append(mean_measure(clips, prefix + name, method, sums.cpu().numpy(), counts.cpu().numpy()))
    return measures


def directions(retrieval: Retrieval) -> tuple[tuple[str, Ranks], tuple[str, Ranks]]:
    """Return both directions, each with the beginning of its metrics' names."""
    return ("", retrieval.text_to_audio), ("audio_to_text_", retrieval.audio_to_text)


def query_values(ranks: Ranks) -> dict[str, Tensor]:
    """Return the metrics of one direction of retrieval for each of R queries: [R] each.

    Of ten items that were re-ranked, `recall@10` is that of the ranking before, and so not a figure of re-ranking.
    """
    values = {}
    for depth in DEPTHS:
        # Re-ranking the first ten only reorders them: which ten they are is the work of the ranking before.
        if ranks.reranked is None or depth < ranks.reranked:
            values[f"recall@{depth}"] = ranks.recall(depth)
    return {**values, "map@10": ranks.average_precision(10)}


def caption_row(clips: ClipSet, metric: str, method: str, score: CaptionScore) -> Row:
    """Return the row of a caption metric that counts over the whole corpus and has no interval: BLEU and METEOR."""
    return Row(clips.task, clips.split, metric, method, score.corpus, None, None, len(clips))


def chance_accuracy_row(clips: ClipSet, classes: int) -> Row:
    """Return what guessing gives: 1/C."""
    return chance_row(clips, "accuracy", probe.chance_accuracy(classes))


def chance_label_rows(clips: ClipSet, truth: ArrayLike, known: ArrayLike | None = None) -> list[Row]:
    """Return what guessing gives: the share of positives for average precision, one half for ROC-AUC."""
    positive = np.asarray(truth, dtype=np.float64)
    # The micro averages take all pairs of clip and label as one class, [N * C] or fewer.
    pairs = positive.ravel() if known is None else positive[np.asarray(known, dtype=bool)]
    values = {
        "map": probe.chance_average_precision(truth, known),
        "roc_auc": 0.5,
        "micro_map": probe.chance_average_precision(pairs[:, None]),
        "micro_roc_auc": 0.5,
    }
    return [chance_row(clips, name, values[name]) for name in _possible(truth, known)]


def chance_retrieval_rows(retrieval: Retrieval) -> list[Row]:
    """Return what a random order gives: k/N for `recall@k` where one item is right."""
    rows = []
    for prefix, ranks in directions(retrieval):
        values = {f"recall@{depth}": ranks.chance_recall(depth) for depth in DEPTHS}
        values["map@10"] = ranks.chance_average_precision(10)
        count = len(ranks.clip.unique())
        for name, value in values.items():
            rows.append(Row("retrieval", "test", prefix + name, "chance", value, value, value, count))
    return rows


def record_measures(measures: Iterable[Measure]) -> list[dict[str, Any]]:
    """Return what a results file keeps of the trained methods, clip by clip, as JSON values.

    Measures of the same clips share a record: their values, each the mean of `weights` queries where it is not one, or
    for a task with several labels a clip the scores of all its metrics. What is not finite, which JSON does not have,
    is left out.
    """
    records: dict[Any, dict[str, Any]] = {}
    for measure in measures:
        if measure.method not in TRAINED or not np.isfinite(measure.arrays[0]).all():
            continue
        clips = measure.clips
        key: Any = (clips.task, clips.split, tuple(clips.ids))
        head: dict[str, Any] = {"task": clips.task, "split": clips.split, "ids": list(clips.ids)}

        # One value for each clip: measures whose clips are means of equally many values stand together.
        if measure.function is metrics.ratio:
            sums, counts = measure.arrays
            if clips.labels is not None:
                head["labels"] = list(clips.labels)
            if (counts != 1).any():
                head["weights"] = _plain(counts)
            # Bytes compare exactly and can be hashed, which an array cannot.
            key = (*key, tuple(clips.labels or ()), counts.tobytes())
            values = records.setdefault(key, {**head, "values": {}})["values"]
            values.setdefault(measure.method, {})[measure.metric] = _plain(sums / counts)

        # All metrics of several labels a clip are computed again from the same scores.
        elif measure.arrays[0].size <= MOST_SCORES:
            scores, truth, known = measure.arrays
            if key not in records:
                # The columns that are true: of hundreds of labels a clip has a few.
                truths = list(map(_true_columns, truth))
                unknown = list(map(_true_columns, ~known))
                records[key] = {**head, "truth": truths, "unknown": unknown, "scores": {}}
            records[key]["scores"].setdefault(measure.method, _plain(scores))
    return list(records.values())


def read_measures(records: Sequence[Mapping[str, Any]]) -> dict[Key, Measure]:
    """Return the measures that `record_measures` has written.

    Raises:
        MintError: a record of another form.
    """
    measures = {}
    try:
        for record in records:
            for measure in _read_record(record):
                measures[measure.key] = measure
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        # Whatever a record of another form makes the reading stumble over.
        raise MintError(
            f"the values of single clips cannot be read ({type(error).__name__}: {error}); evaluate the run again"
        ) from None
    return measures


def _read_record(record: Mapping[str, Any]) -> Iterator[Measure]:
    clips = ClipSet(record["task"], record["split"], record["ids"], record.get("labels"))
    for names in (clips.ids, clips.labels or clips.ids):
        if len(names) != len(clips) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"ids and labels of the {len(clips)} clips of {clips.task} are not one text each")
    # The file holds means; times their weights they are sums again, as `mean_measure` takes them.
    weights = np.asarray(record.get("weights", np.ones(len(clips))), dtype=np.float64)
    for method, by_metric in record.get("values", {}).items():
        for metric, values in by_metric.items():
            numbers = np.asarray(values, dtype=np.float64)
            if numbers.shape != weights.shape or weights.shape != (len(clips),):
                raise ValueError(f"{metric} of {clips.task} has {numbers.size} values for {len(clips)} clips")
            yield mean_measure(clips, metric, method, weights * numbers, weights)

    for method, rows in record.get("scores", {}).items():
        scores = np.asarray(rows, dtype=np.float64)
        if scores.ndim != 2 or len(scores) != len(clips):
            raise ValueError(f"the scores of {clips.task} have shape {scores.shape} for {len(clips)} clips")
        truth = _as_table(record["truth"], scores.shape)
        unknown = _as_table(record["unknown"], scores.shape)
        yield from label_measures(clips, method, scores, truth, ~unknown)


def _true_columns(row: Any) -> list[int]:
    """Return where a row of bool is true; `_as_table` turns it back."""
    columns: list[int] = np.flatnonzero(row).tolist()
    return columns


def _as_table(columns_of_rows: Sequence[Sequence[int]], shape: tuple[int, ...]) -> Any:
    """Return a table of bool that is true in the given columns of each row."""
    table = np.zeros(shape, dtype=bool)
    for row, columns in zip(table, columns_of_rows, strict=True):
        row[columns] = True
    return table


def _possible(truth: ArrayLike, known: ArrayLike | None) -> list[str]:
    """Return the metrics of several labels a clip that exist for this truth."""
    # ROC-AUC compares positives with negatives; average precision needs only something to find.
    with_negatives = metrics.scored_classes(truth, known, negatives=True).any()
    with_positives = metrics.scored_classes(truth, known).any()
    return [name for name in MULTILABEL if (with_negatives if name in NEED_NEGATIVES else with_positives)]


def chance_row(clips: ClipSet, metric: str, value: float) -> Row:
    """Return what guessing gives, which is exact: its interval is one point."""
    return Row(clips.task, clips.split, metric, "chance", value, value, value, len(clips))


def _plain(values: Any) -> Any:
    """Return numbers as JSON has them, rounded."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim > 1:
        return [_plain(row) for row in array]
    return [float(f"{number:.{DIGITS}g}") for number in array]
