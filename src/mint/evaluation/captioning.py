"""Captions of stage 2 against those that people wrote (paper, section 4.2 and Table 4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mint import predict
from mint.evaluation.metrics import captions as caption_metrics
from mint.evaluation.metrics import sentences
from mint.evaluation.metrics.captions import REPORTED
from mint.evaluation.metrics.naming import naming
from mint.evaluation.records import Evaluation, Setup, clip_set, labels_of, measured_part, progress_bar
from mint.evaluation.results.measures import caption_row, chance_row, mean_measure
from mint.evaluation.steps import Step, guarded
from mint.types import CAPTION_PROMPT, Example

if TYPE_CHECKING:
    from mint.evaluation.metrics.classification import Floats

SENTENCES = "sentence_similarity"
BATCH = 64
"""Windows that are captioned together."""


def captioning_steps(setup: Setup, examples: Sequence[Example], labelled: Sequence[Example]) -> Iterator[Step]:
    """Yield the step that captions clips and scores the captions.

    Args:
        setup: what the evaluation needs.
        examples: the clips; each has at least one true caption.
        labelled: all clips with labels, whose labels captions may name.
    """
    size = len(examples) * setup.settings.decoding.max_tokens
    yield Step("captioning", _caption(setup, examples, labelled), size)


def _caption(setup: Setup, examples: Sequence[Example], labelled: Sequence[Example]) -> Iterator[Evaluation]:
    """Caption the clips, compare the captions with the true ones, and look for the labels in them."""
    # What cannot be computed is known and said before the captions are made, which may take hours.
    lacking = _lacking()
    yield Evaluation(not_computed=lacking)
    by_words = [metric for metric in REPORTED if metric not in lacking]
    with_sentences = SENTENCES not in lacking
    # Captions that nothing can be measured by are not worth their hours.
    if not by_words and not with_sentences and not any(len(example.labels) == 1 for example in examples):
        return

    stage2 = setup.trained.stage2
    assert stage2 is not None
    generated = predict.generate(
        stage2,
        setup.windows(2, examples),
        CAPTION_PROMPT,
        batch_size=BATCH,
        progress=progress_bar("captions"),
        **setup.settings.decoding.options(),
    )
    # Given out before anything is scored: they are kept, whatever happens to the scorers.
    yield Evaluation(captions=list(zip(examples, generated, strict=True)), measured={"captioning": examples})

    # A scorer that fails, such as one that needs Java, must not take the captions and the other metrics with it.
    if by_words:
        yield from guarded(by_words, _compare_words(setup, examples, generated, by_words))
    if with_sentences:
        yield from guarded([SENTENCES], _compare_meaning(setup, examples, generated))
    yield from _name_labels(setup, examples, generated, labelled)


def _lacking() -> dict[str, str]:
    """Return why each metric that this machine cannot compute is missing."""
    lacking = caption_metrics.missing(REPORTED)
    reason = sentences.missing()
    if reason is not None:
        lacking[SENTENCES] = reason
    return lacking


def _compare_words(
    setup: Setup, examples: Sequence[Example], generated: Sequence[str], metrics: Sequence[str]
) -> Iterator[Evaluation]:
    """Compare captions with the true ones by their words."""
    clips = clip_set("captioning", examples)
    scored = caption_metrics.score_captions(generated, [example.captions for example in examples], metrics)
    yield Evaluation(not_computed=scored.not_computed)
    for metric, score in scored.scores.items():
        # BLEU and METEOR count over the whole corpus, so that there is nothing to resample.
        if score.is_mean:
            yield measured_part([mean_measure(clips, metric, "stage2", score.per_clip)], examples, setup.seed)
        else:
            yield Evaluation(rows=[caption_row(clips, metric, "stage2", score)])


def _compare_meaning(setup: Setup, examples: Sequence[Example], generated: Sequence[str]) -> Iterator[Evaluation]:
    """Compare captions with the true ones by a sentence encoder."""
    similar = sentences.sentence_similarity(generated, [example.captions for example in examples])
    measure = mean_measure(clip_set("captioning", examples), SENTENCES, "stage2", similar)
    yield measured_part([measure], examples, setup.seed)


@dataclass(frozen=True)
class Named:
    """How the captions of some clips name their labels."""

    task: str
    metric: str
    examples: Sequence[Example]
    right: Floats
    """Whether the caption of each clip names its label [N]."""
    accidents: Floats
    """The share of the captions of other clips that name it [N], NaN where there is none."""


def _name_labels(
    setup: Setup, examples: Sequence[Example], generated: Sequence[str], labelled: Sequence[Example]
) -> Iterator[Evaluation]:
    """Measure how many captions name the label of their clip: of all clips that have one label, and of each task.

    Chance is how many captions of the other clips of a task do so.
    """
    rows_of_task: dict[str, list[int]] = {}
    for row, example in enumerate(examples):
        if len(example.labels) == 1:
            rows_of_task.setdefault(example.task, []).append(row)

    groups = []
    for task, rows in rows_of_task.items():
        clips = [examples[row] for row in rows]
        captions = [generated[row] for row in rows]
        # The labels of the whole task, also those that no captioned clip has: naming one of them is wrong too.
        labels = labels_of([example for example in labelled if example.task == task])
        right, accidents = naming(captions, [clip.labels[0] for clip in clips], labels)
        groups.append(Named(task, "caption_names_label", clips, right, accidents))

    for group in [_together(groups), *groups] if groups else []:
        clips_measured = clip_set(group.task, group.examples)
        measure = mean_measure(clips_measured, group.metric, "stage2", group.right)
        yield measured_part([measure], group.examples, setup.seed)
        # A task with a single captioned clip has no other whose caption could name the label.
        if not np.isnan(group.accidents).all():
            yield Evaluation(rows=[chance_row(clips_measured, group.metric, float(np.nanmean(group.accidents)))])


def _together(groups: Sequence[Named]) -> Named:
    """Return the clips of all tasks as one group."""
    examples: list[Example] = []
    right, accidents = [], []
    for group in groups:
        examples += group.examples
        right.append(group.right)
        accidents.append(group.accidents)
    return Named("captioning", "names_label", examples, np.concatenate(right), np.concatenate(accidents))
