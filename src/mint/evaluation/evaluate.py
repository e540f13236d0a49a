"""Evaluation of trained stages on held-out clips, with the baselines beside them (paper, sections 3.3 and 4).

Closed-set tasks stand in `closed_set`, retrieval with stage 1 in `audio_text`, captioning with stage 2 in `captioning`.
Each of them is a list of steps that return what they measure; a step that fails takes nothing with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mint.builders.stages import Trained
from mint.data.features.prepare import Features
from mint.evaluation.audio_text import retrieval_steps
from mint.evaluation.captioning import captioning_steps
from mint.evaluation.closed_set import closed_set_steps
from mint.evaluation.records import Evaluation, Setup, draw
from mint.evaluation.settings import QUICK, Settings
from mint.evaluation.steps import Step, run_steps
from mint.types import Example, MintError

NEEDED_STAGE = {"retrieval": 1, "captioning": 2}
"""Tasks that captions make, and the stage that they need."""


def evaluate(
    trained: Trained,
    examples: Sequence[Example],
    features: Mapping[int, Features],
    *,
    tasks: Sequence[str] | None = None,
    settings: Settings = QUICK,
    seed: int = 0,
) -> Evaluation:
    """Measure the tasks of the examples; no figure depends on the order of the examples.

    Args:
        trained: the stages; a missing one leaves its columns empty.
        examples: the clips of all splits; those of `train` and `validation` serve the probe.
        features: the features of the examples, by the stage that reads them.
        tasks: which tasks: those of the examples, `retrieval`, `captioning`; None: all that there are.
        settings: scoring, decoding, and the number of clips; those of the quickstart unless given.
        seed: seed of the choice of clips and of the bootstrap.

    Raises:
        MintError: an unknown task, one without a held-out clip, or nothing of the trained stages could be measured.
    """
    usable = [example for example in examples if all(one.has(example) for one in features.values())]
    by_task = _labelled_by_task(usable)
    known = [*by_task, *NEEDED_STAGE]
    for task in tasks or ():
        if task not in known:
            raise MintError(f"no task {task!r} in these manifests; there is {', '.join(known)}")

    captioned = sorted((e for e in usable if e.captions and e.split == "test"), key=_order)
    setup = Setup(trained, features, settings, seed)
    steps = list(_steps(setup, by_task, captioned, tasks))
    if not steps:
        _name_what_lacks(tasks or (), trained, captioned)
        raise MintError("nothing to evaluate: the manifests have no usable clip in the splits test or unseen")
    return run_steps(steps)


def _labelled_by_task(examples: Sequence[Example]) -> dict[str, list[Example]]:
    """Return the clips with labels by task: tasks as they come, clips in an order that is not that of the file."""
    by_task: dict[str, list[Example]] = {}
    for example in examples:
        if example.labels or example.unknown:
            by_task.setdefault(example.task, []).append(example)
    return {task: sorted(clips, key=_order) for task, clips in by_task.items()}


def _order(example: Example) -> tuple[str, str, str, float, float, str, str]:
    """Return what clips are sorted by, so that draws and rounding do not depend on the order of a manifest."""
    return (
        example.corpus,
        example.id,
        str(example.audio),
        example.start,
        example.duration or 0.0,
        example.task,
        example.prompt or "",
    )


def _steps(
    setup: Setup, by_task: Mapping[str, Sequence[Example]], captioned: Sequence[Example], tasks: Sequence[str] | None
) -> Iterator[Step]:
    for task, examples in by_task.items():
        if tasks is None or task in tasks:
            yield from closed_set_steps(setup, task, examples)

    if setup.trained.stage1 is not None and captioned and (tasks is None or "retrieval" in tasks):
        yield from retrieval_steps(setup, draw(captioned, setup.settings.retrieved_clips, setup.seed))
    if setup.trained.stage2 is not None and captioned and (tasks is None or "captioning" in tasks):
        yield from captioning_steps(setup, draw(captioned, setup.settings.captioned_clips, setup.seed))


def _name_what_lacks(tasks: Sequence[str], trained: Trained, captioned: Sequence[Example]) -> None:
    """Say why none of the tasks that are asked for by name can be measured, if it is the run or the captions."""
    stages = {1: trained.stage1, 2: trained.stage2}
    for task, number in NEEDED_STAGE.items():
        if task in tasks and stages[number] is None:
            raise MintError(
                f"{task} needs stage {number}, which this run does not have; train it, or leave the task out"
            )
        if task in tasks and not captioned:
            raise MintError(f"{task} needs captions, and no usable clip of the split test has one; check the manifests")
