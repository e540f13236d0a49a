"""Captions of stage 2 against those that people wrote (paper, section 4.2 and Table 4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from mint import predict
from mint.evaluation.metrics import captions as caption_metrics
from mint.evaluation.metrics import sentences
from mint.evaluation.metrics.captions import REPORTED, names_label
from mint.evaluation.records import Evaluation, Setup, clip_set, measured_part, progress_bar
from mint.evaluation.results.measures import caption_row, mean_measure
from mint.evaluation.steps import Step, reason_of
from mint.types import CAPTION_PROMPT, Example

SENTENCES = "sentence_similarity"
BATCH = 32
"""Windows that are captioned together."""


def captioning_steps(setup: Setup, examples: Sequence[Example]) -> Iterator[Step]:
    """Yield the step that captions clips and scores the captions; each clip has at least one true caption."""
    yield Step("captioning", partial(_caption, setup, examples))


def _caption(setup: Setup, examples: Sequence[Example]) -> Iterator[Evaluation]:
    # What cannot be computed is known and said before the captions are made, which may take hours.
    lacking = _lacking()
    wanted = [metric for metric in (*REPORTED, SENTENCES) if metric not in lacking]
    yield Evaluation(not_computed=lacking)
    if not wanted and not any(len(example.labels) == 1 for example in examples):
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
    yield Evaluation(captions=list(zip(examples, generated, strict=True)), measured={"captioning": examples})
    yield from _compare(setup, examples, generated, wanted)
    yield from _name_labels(setup, examples, generated)


def _lacking() -> dict[str, str]:
    """Return why each metric that this machine cannot compute is missing."""
    lacking = caption_metrics.missing(REPORTED)
    if (reason := sentences.missing()) is not None:
        lacking[SENTENCES] = reason
    return lacking


def _compare(
    setup: Setup, examples: Sequence[Example], generated: Sequence[str], metrics: Sequence[str]
) -> Iterator[Evaluation]:
    """Compare captions with the true ones; a metric that fails is named, and the others count."""
    references = [example.captions for example in examples]
    clips = clip_set("captioning", examples)
    by_words = [metric for metric in metrics if metric != SENTENCES]
    try:
        scored = caption_metrics.score_captions(generated, references, by_words)
    except Exception as error:  # the captions, and the metrics of other scorers, must not be lost
        yield Evaluation(not_computed=dict.fromkeys(by_words, reason_of(error)))
    else:
        yield Evaluation(not_computed=scored.not_computed)
        for metric, score in scored.scores.items():
            if score.is_mean:
                yield measured_part([mean_measure(clips, metric, "stage2", score.per_clip)], examples, setup.seed)
            else:
                yield Evaluation(rows=[caption_row(clips, metric, "stage2", score)])

    if SENTENCES in metrics:
        try:
            similar = sentences.sentence_similarity(generated, references)
        except Exception as error:  # as above
            yield Evaluation(not_computed={SENTENCES: reason_of(error)})
        else:
            yield measured_part([mean_measure(clips, SENTENCES, "stage2", similar)], examples, setup.seed)


def _name_labels(setup: Setup, examples: Sequence[Example], generated: Sequence[str]) -> Iterator[Evaluation]:
    """Measure how many captions name the label of their clip: of all clips that have one label, and of each task."""
    labelled = [index for index, example in enumerate(examples) if len(example.labels) == 1]
    rows_of_task: dict[str, list[int]] = {}
    for index in labelled:
        rows_of_task.setdefault(examples[index].task, []).append(index)

    groups = [("captioning", "names_label", labelled)] if labelled else []
    groups += [(task, "caption_names_label", indices) for task, indices in rows_of_task.items()]
    for task, metric, indices in groups:
        chosen = [examples[index] for index in indices]
        names = [names_label(generated[index], examples[index].labels[0]) for index in indices]
        yield measured_part([mean_measure(clip_set(task, chosen), metric, "stage2", names)], chosen, setup.seed)
