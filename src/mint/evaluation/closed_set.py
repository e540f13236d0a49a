"""Tasks with a list of labels, one or many a clip (paper, section 4.1 and Table 2).

Vocabulary ranking with stage 2, similarity ranking with stage 1, the encoder's own classifier where its classes cover
the labels, a linear probe on the same frozen features (which, unlike the others, is always trained on the task), the
majority class and chance, all on the same clips. Each clip is asked its own prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import torch
from sklearn.metrics import confusion_matrix

from mint import predict
from mint.data.corpora.drawn.words import classes_called
from mint.evaluation.metrics import probe
from mint.evaluation.metrics.calibration import calibrate
from mint.evaluation.metrics.classification import among_labels
from mint.evaluation.metrics.similarity import ensemble, similarity
from mint.evaluation.records import (
    Confusion,
    Evaluation,
    Prediction,
    Setup,
    clip_set,
    draw,
    labels_of,
    measured_part,
    progress_bar,
)
from mint.evaluation.report.attention import clip_attention
from mint.evaluation.results.measures import (
    ClipSet,
    Measure,
    accuracy_measure,
    chance_accuracy_row,
    chance_label_rows,
    label_measures,
)
from mint.evaluation.steps import Step
from mint.types import Example, MintError, NamedClasses

HELD_OUT = ("test", "unseen")
LOOKED_INTO = 4
"""Clips of each task and split whose attention is kept for the report."""


@dataclass(frozen=True)
class ClosedTask:
    """A task with a list of labels: its clips of all splits, and what is known of them."""

    setup: Setup
    name: str
    examples: Sequence[Example]
    _fitting: Lock = field(default_factory=Lock, repr=False, compare=False)
    """Held while the probe is fitted: steps of two splits may ask for it at once."""

    @cached_property
    def labels(self) -> list[str]:
        """The C labels of the task, sorted."""
        return labels_of(self.examples)

    @cached_property
    def single(self) -> bool:
        """Whether every clip has one label."""
        return all(len(example.labels) == 1 and not example.unknown for example in self.examples)

    @cached_property
    def _probe(self) -> probe.Probe | None:
        """The linear probe."""
        return _fit_probe(self)

    @property
    def probe(self) -> probe.Probe | None:
        """The linear probe, fitted when it is first asked for; None where the training data allow none."""
        with self._fitting:
            return self._probe

    def of_split(self, split: str) -> list[Example]:
        """Return the clips of one split."""
        return [example for example in self.examples if example.split == split]

    def truth(self, examples: Sequence[Example]) -> Any:
        """Return which labels each clip has [N, C] bool."""
        table = np.zeros((len(examples), len(self.labels)), dtype=bool)
        for row, example in zip(table, examples, strict=True):
            row[:] = [label in example.labels for label in self.labels]
        return table

    def known(self, examples: Sequence[Example]) -> Any:
        """Return for which labels somebody listened [N, C] bool: OpenMIC asks about few a clip."""
        table = np.ones((len(examples), len(self.labels)), dtype=bool)
        for row, example in zip(table, examples, strict=True):
            row[:] = [label not in example.unknown for label in self.labels]
        return table


@dataclass(frozen=True)
class HeldOut:
    """The clips of a task in one split, and the truth about them."""

    task: ClosedTask
    examples: Sequence[Example]

    @property
    def title(self) -> str:
        """Task and split."""
        return f"{self.task.name}, {self.examples[0].split}"

    @cached_property
    def clips(self) -> ClipSet:
        """How results know the clips."""
        labels = [example.labels[0] for example in self.examples] if self.task.single else None
        return clip_set(self.task.name, self.examples, labels)

    @cached_property
    def truth(self) -> Any:
        """[N, C] bool."""
        return self.task.truth(self.examples)

    @cached_property
    def known(self) -> Any:
        """[N, C] bool."""
        return self.task.known(self.examples)

    @cached_property
    def wanted(self) -> Any:
        """The index of the label of each clip [N], in a task with one label a clip."""
        return self.truth.argmax(axis=1)

    def measures(self, method: str, scores: Any) -> list[Measure]:
        """Return all metrics of the scores [N, C] of a method."""
        if self.task.single:
            return [accuracy_measure(self.clips, method, scores, self.wanted)]
        return label_measures(self.clips, method, scores, self.truth, self.known)


def closed_set_steps(setup: Setup, name: str, examples: Sequence[Example]) -> Iterator[Step]:
    """Yield the steps that measure one task.

    Args:
        setup: what the evaluation needs.
        name: the task.
        examples: its clips of all splits; those of `train` and `validation` serve the probe.
    """
    task = ClosedTask(setup, name, examples)
    is_fitted = False
    # Each method is a step of its own: one that fails does not take the others with it.
    for split in HELD_OUT:
        in_split = task.of_split(split)
        if not in_split:
            continue

        held_out = HeldOut(task, in_split)
        if setup.trained.stage2 is not None:
            yield Step(f"{held_out.title}, stage2", _stage2(held_out), len(in_split) * len(task.labels))
        if setup.trained.stage1 is not None:
            yield Step(f"{held_out.title}, stage1", _stage1(held_out))
        if setup.classes is not None:
            yield Step(f"{held_out.title}, encoder", _encoder(held_out, setup.classes))
        # The first split's step fits the probe, which takes long where there are many clips to train on.
        fitted = 0 if is_fitted else len(task.of_split("train")) * len(task.labels)
        yield Step(f"{held_out.title}, probe", _probe(held_out), fitted)
        is_fitted = True
        yield Step(f"{held_out.title}, chance", _untrained(held_out))


def _stage2(held_out: HeldOut) -> Iterator[Evaluation]:
    """Rank the vocabulary with stage 2, and look into its answers in a task with one label a clip."""
    task, examples = held_out.task, held_out.examples
    setup, stage2 = task.setup, task.setup.trained.stage2
    assert stage2 is not None
    prompts = [example.prompt or "" for example in examples]
    scoring = setup.settings.scoring
    if scoring == "prior":
        _refuse_lonely_prompts(held_out.title, prompts)
    clips, progress = setup.windows(2, examples), progress_bar(held_out.title)
    scored = predict.score_labels(stage2, clips, prompts, task.labels, scoring, progress)  # [N, C]

    # Clips are also ranked by one label, for average precision; log-likelihoods of different clips do not compare.
    scores = among_labels(scored.cpu().numpy())  # [N, C]
    yield measured_part(held_out.measures("stage2", scores), examples, setup.seed)
    if task.single:
        yield _look_into(held_out, scores)


def _stage1(held_out: HeldOut) -> Iterator[Evaluation]:
    """Rank the labels by their similarity to the clips with stage 1."""
    task, examples = held_out.task, held_out.examples
    setup, stage1 = task.setup, task.setup.trained.stage1
    assert stage1 is not None
    queries = predict.embed_clips(stage1, setup.windows(1, examples))  # [N, Q, E]

    scores = queries.new_empty(len(examples), len(task.labels))
    for prompt, rows in predict.rows_by_prompt([example.prompt or "" for example in examples]).items():
        # Several templates give several texts for each label, whose embeddings are averaged.
        texts: list[str] = []
        for label in task.labels:
            texts += setup.settings.texts(prompt, label)
        embedded = predict.embed_texts(stage1, texts)  # [C * templates, E]
        owner = torch.arange(len(task.labels)).repeat_interleave(len(texts) // len(task.labels))
        classes = ensemble(embedded, owner.to(embedded.device), len(task.labels))  # [C, E]

        scores[rows] = similarity(queries[rows], classes)
    yield measured_part(held_out.measures("stage1", scores.cpu().numpy()), examples, setup.seed)


def _probe(held_out: HeldOut) -> Iterator[Evaluation]:
    """Measure the linear probe, where the training data allow one."""
    task, examples = held_out.task, held_out.examples
    if task.probe is not None:
        scores = task.probe.scores(task.setup.pooled(examples))
        yield measured_part(held_out.measures("probe", scores), examples, task.setup.seed)


def _encoder(held_out: HeldOut, classes: NamedClasses) -> Iterator[Evaluation]:
    """Measure what the encoder's own classifier says, if it has classes for all labels of the task."""
    task, examples = held_out.task, held_out.examples
    meant = [classes_called(label, classes.names) for label in task.labels]
    if not all(meant):
        return
    heard = task.setup.heard(examples, classes)  # [N, classes]
    scores = np.stack([heard[:, numbers].max(axis=1) for numbers in meant], axis=1)  # [N, C]
    yield measured_part(held_out.measures("encoder", scores), examples, task.setup.seed)


def _untrained(held_out: HeldOut) -> Iterator[Evaluation]:
    """Measure what needs no model: the majority class of the training split, and guessing."""
    task, examples = held_out.task, held_out.examples
    if not task.single:
        yield Evaluation(rows=chance_label_rows(held_out.clips, held_out.truth, held_out.known))
        return

    if learnt := task.of_split("train"):
        majority = probe.majority_scores(task.truth(learnt).argmax(axis=1), len(examples), len(task.labels))
        yield measured_part(held_out.measures("majority", majority), examples, task.setup.seed)
    yield Evaluation(rows=[chance_accuracy_row(held_out.clips, len(task.labels))])


def _look_into(held_out: HeldOut, scores: Any) -> Evaluation:
    """Return what a report shows of stage 2's scores [N, C]: confusions, calibration, and where the queries look."""
    task, examples = held_out.task, held_out.examples
    chosen, wanted = scores.argmax(axis=1), held_out.wanted
    counts = confusion_matrix(wanted, chosen, labels=range(len(task.labels)))  # [C, C]

    predictions = []
    for row, example in enumerate(examples):
        margin = float(scores[row, chosen[row]] - scores[row, wanted[row]])
        predictions.append(Prediction(example, task.labels[chosen[row]], margin))

    calibrations = {}
    # The other scores are no log-likelihoods, and their softmax is no belief of the model.
    if task.setup.settings.scoring in ("sum", "calibrated"):
        calibrations[held_out.title] = calibrate(scores, wanted)

    attentions = []
    stage2 = task.setup.trained.stage2
    assert stage2 is not None
    for example in draw(examples, LOOKED_INTO, seed=0):
        window = task.setup.windows(2, [example])[0][0]
        attention = clip_attention(stage2.model, stage2.tokenizer, window, example.prompt or "", stage2.max_tokens)
        attentions.append((example, attention))

    return Evaluation(
        confusions=[Confusion(held_out.title, task.labels, counts)],
        predictions=predictions,
        calibrations=calibrations,
        attentions=attentions,
    )


def _refuse_lonely_prompts(title: str, prompts: Sequence[str]) -> None:
    """Refuse a prompt of one clip, of whose scores the mean over the clips would leave nothing."""
    for prompt, rows in predict.rows_by_prompt(prompts).items():
        if len(rows) == 1:
            raise MintError(
                f"scoring 'prior' compares the clips of a prompt, and only one of {title} has the prompt {prompt!r}; "
                "choose another scoring"
            )


def _fit_probe(task: ClosedTask) -> probe.Probe | None:
    """Fit the linear probe; without a validation split every fifth training clip helps to choose its penalty."""
    train, validation = task.of_split("train"), task.of_split("validation")
    if not validation:
        validation = train[4::5]
        train = [example for index, example in enumerate(train) if index % 5 != 4]
    if not train or not validation or len(task.labels) < 2:
        return None

    inputs, held_inputs = task.setup.pooled(train), task.setup.pooled(validation)
    truth, held_truth = task.truth(train), task.truth(validation)
    if task.single:
        return probe.fit_probe(inputs, truth.argmax(axis=1), held_inputs, held_truth.argmax(axis=1), len(task.labels))
    return probe.fit_multilabel_probe(inputs, truth, held_inputs, held_truth, task.known(train), task.known(validation))
