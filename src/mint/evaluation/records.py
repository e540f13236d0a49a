"""Records of an evaluation: what every task of it needs, and what it gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from tqdm.auto import tqdm

from mint.data.features.heard import heard_scores
from mint.data.features.prepare import Features
from mint.evaluation.metrics.calibration import Calibration
from mint.evaluation.results.file import Row
from mint.evaluation.results.measures import ClipSet, Measure, clip_ids, record_measures
from mint.evaluation.settings import Settings
from mint.types import Example, NamedClasses

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

    from mint.builders.stages import Trained
    from mint.predict import Progress, Windows


@dataclass(frozen=True)
class Setup:
    """The trained stages, features and choices that every task of an evaluation needs."""

    trained: Trained
    features: Mapping[int, Features]
    """The features that each stage reads, by its number: the stages may differ in their longest window."""
    settings: Settings
    seed: int
    """Seed of the choice of clips and of the bootstrap."""
    classes: NamedClasses | None = None
    """The encoder's own classifier, if it has one."""

    def can_use(self, example: Example) -> bool:
        """Return whether the clip could be decoded."""
        return all(features.has(example) for features in self.features.values())

    def windows(self, stage: int, examples: Sequence[Example]) -> Clips:
        """Return the windows of clips as a stage hears them."""
        return Clips(examples, self.features[stage])

    def pooled(self, examples: Sequence[Example]) -> Any:
        """Return the mean over time of each clip's features, which the probe sees: [N, D] float32."""
        # The stages have one encoder and differ in their windows at most: the last one's stand for both.
        features = self.features[max(self.features)]
        return np.stack([features.mean(example).numpy() for example in examples])

    def heard(self, examples: Sequence[Example], classes: NamedClasses) -> Any:
        """Return the scores [N, C] of the encoder's own classes."""
        features = self.features[max(self.features)]
        return np.stack([heard_scores(features.windows(example), classes).numpy() for example in examples])


class Clips(Sequence["Windows"]):
    """The windows of clips, read from the features when they are asked for."""

    def __init__(self, examples: Sequence[Example], features: Features) -> None:
        self.examples = examples
        self.features = features

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.examples)

    @overload
    def __getitem__(self, index: int) -> Windows: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Windows]: ...
    def __getitem__(self, index: int | slice) -> Windows | Sequence[Windows]:
        """Return the windows of one clip, or some of the clips."""
        # A slice stays unread: the windows of all clips at once need not fit into memory.
        if isinstance(index, slice):
            return Clips(self.examples[index], self.features)
        return self.features.windows(self.examples[index])


@dataclass(frozen=True)
class Prediction:
    """The answer of stage 2 for one clip of a task with one label a clip."""

    example: Example
    predicted: str
    margin: float
    """Log-likelihood of the prediction above that of the true label; 0 where it is right."""

    def record(self) -> dict[str, str]:
        """Return the prediction and the truth, as a results file keeps them."""
        (name,) = clip_ids([self.example])
        return {
            "task": self.example.task,
            "split": self.example.split,
            "id": name,
            "truth": self.example.labels[0],
            "predicted": self.predicted,
        }


@dataclass(frozen=True)
class Confusion:
    """How the labels of one task are confused."""

    title: str
    labels: Sequence[str]
    counts: ArrayLike
    """[C, C] int; row: true label, column: predicted label."""


@dataclass(frozen=True)
class SimilarityMap:
    """Similarities of some clips and captions."""

    title: str
    clips: Sequence[str]
    """Short names, N."""
    captions: Sequence[str]
    """M."""
    scores: ArrayLike
    """[N, M]."""
    owner: Sequence[int]
    """For each caption the index of its clip."""


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured, and that a report shows of it: by a whole evaluation, or by a part of one."""

    rows: Sequence[Row] = ()
    measures: Sequence[Measure] = ()
    """The measures behind the rows that have an interval."""
    measured: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    """Task -> the held-out clips on which it was measured."""
    confusions: Sequence[Confusion] = ()
    similarities: Sequence[SimilarityMap] = ()
    predictions: Sequence[Prediction] = ()
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    """Task and split -> the calibration of stage 2: whether it is as sure as it is right."""
    attentions: Sequence[tuple[Example, Tensor]] = ()
    """Clips and the attention [Q, T] of stage 2's queries in their first window."""
    captions: Sequence[tuple[Example, str]] = ()
    not_computed: Mapping[str, str] = field(default_factory=dict)
    """Metric or task -> why it could not be measured, and the cure."""

    def clips(self) -> list[Example]:
        """Return all clips on which something was measured, each once."""
        # Clips are compared as objects: their metadata may be anything.
        different: dict[int, Example] = {}
        for examples in self.measured.values():
            for example in examples:
                different[id(example)] = example
        return list(different.values())

    def record(self) -> dict[str, Any]:
        """Return the keys of a results file that come from the evaluation, beside its rows."""
        # Sorted, so that equal evaluations write equal files.
        corpora = {}
        for task, clips in self.measured.items():
            corpora[task] = sorted({clip.corpus for clip in clips})
        return {
            "corpora": corpora,
            "predictions": [prediction.record() for prediction in self.predictions],
            "per_clip": record_measures(self.measures),
            "not_computed": dict(self.not_computed),
        }


def join(parts: Iterable[Evaluation]) -> Evaluation:
    """Put parts of an evaluation together, in their order."""
    values: dict[str, Any] = {}
    for part in parts:
        for name, value in vars(part).items():
            # A list goes on, a mapping gains keys; of the clips of a task, each stands once.
            if name == "measured":
                values[name] = _join_measured(values.get(name, {}), value)
            elif isinstance(value, Mapping):
                values[name] = {**values.get(name, {}), **value}
            else:
                values[name] = [*values.get(name, []), *value]
    return Evaluation(**values)


def _join_measured(
    first: Mapping[str, Sequence[Example]], second: Mapping[str, Sequence[Example]]
) -> dict[str, Sequence[Example]]:
    """Put clips together by task; a clip about which two stages were asked counts once."""
    joined = dict(first)
    for task, examples in second.items():
        together = list(joined.get(task, ()))
        # By identity, as in `Evaluation.clips`: equal lines of a manifest are two clips.
        known = set(map(id, together))
        for example in examples:
            if id(example) not in known:
                together.append(example)
        joined[task] = together
    return joined


def measured_part(measures: Sequence[Measure], examples: Sequence[Example], seed: int, **more: Any) -> Evaluation:
    """Return the part of an evaluation that consists of some measures of one task.

    Args:
        measures: at least one.
        examples: the clips on which they were measured.
        seed: seed of the bootstrap.
        more: further fields of `Evaluation`.
    """
    rows = [measure.row(seed) for measure in measures]
    return Evaluation(rows=rows, measures=measures, measured={measures[0].clips.task: examples}, **more)


def clip_set(task: str, examples: Sequence[Example], labels: Sequence[str] | None = None) -> ClipSet:
    """Return how results know some clips of one split; labels as of `ClipSet`."""
    return ClipSet(task, examples[0].split, clip_ids(examples), labels)


def labels_of(examples: Sequence[Example]) -> list[str]:
    """Return the labels of some clips, sorted, those that nobody checked among them."""
    labels: set[str] = set()
    for example in examples:
        labels.update(example.labels, example.unknown)
    return sorted(labels)


def by_reason(not_computed: Mapping[str, str]) -> dict[str, list[str]]:
    """Return what is not computed by the reason: what lacks the same thing stands together."""
    names: dict[str, list[str]] = {}
    for name, reason in not_computed.items():
        names.setdefault(reason, []).append(name)
    return names


def draw(examples: Sequence[Example], count: int | None, seed: int) -> list[Example]:
    """Return at most `count` of the examples, drawn without looking at them; None: all."""
    # A whole permutation: a larger count adds clips to those of a smaller one.
    order = np.random.default_rng(seed).permutation(len(examples))[:count]
    return [examples[index] for index in order]


def progress_bar(title: str) -> Progress:
    """Return a bar over batches."""
    # Once a second: logs of long evaluations are read as files too.
    return lambda batches, total: tqdm(batches, desc=title, unit="batch", total=total, mininterval=1.0)
