"""Captions of stage 2 against those that people wrote (paper, section 4.2 and Table 4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mint import predict
from mint.evaluation.metrics import captions as caption_metrics
from mint.evaluation.metrics import sentences
from mint.evaluation.metrics.captions import REPORTED, names_label
from mint.evaluation.records import Evaluation, Setup, clip_set, measured_part, progress_bar
from mint.evaluation.results.measures import caption_row, mean_measure
from mint.evaluation.steps import Step, guarded
from mint.types import CAPTION_PROMPT, Example

SENTENCES = "sentence_similarity"
BATCH = 32
"""Windows that are captioned together."""


def captioning_steps(setup: Setup, examples: Sequence[Example]) -> Iterator[Step]:
    """Yield the step that captions clips and scores the captions; each clip has at least one true caption."""
    yield Step("captioning", _caption(setup, examples))


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

    # A scorer that fails, such as one that needs Java, must not take the captions and the other metrics with it.
    by_words = [metric for metric in wanted if metric != SENTENCES]
    if by_words:
        yield from guarded(by_words, _compare_words(setup, examples, generated, by_words))
    if SENTENCES in wanted:
        yield from guarded([SENTENCES], _compare_meaning(setup, examples, generated))
    yield from _name_labels(setup, examples, generated)


def _lacking() -> dict[str, str]:
    """Return why each metric that this machine cannot compute is missing."""
    lacking = caption_metrics.missing(REPORTED)
    if (reason := sentences.missing()) is not None:
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
        if score.is_mean:
            yield measured_part([mean_measure(clips, metric, "stage2", score.per_clip)], examples, setup.seed)
        else:
            yield Evaluation(rows=[caption_row(clips, metric, "stage2", score)])


def _compare_meaning(setup: Setup, examples: Sequence[Example], generated: Sequence[str]) -> Iterator[Evaluation]:
    """Compare captions with the true ones by a sentence encoder."""
    similar = sentences.sentence_similarity(generated, [example.captions for example in examples])
    measure = mean_measure(clip_set("captioning", examples), SENTENCES, "stage2", similar)
    yield measured_part([measure], examples, setup.seed)


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
