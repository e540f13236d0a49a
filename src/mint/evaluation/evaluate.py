"""Evaluation of trained stages on held-out clips, with the baselines beside them (paper, sections 3.3 and 4).

Closed-set tasks stand in `closed_set`, retrieval with stage 1 in `audio_text`, captioning with stage 2 in `captioning`.
Each of them is a list of steps that return what they measure; a step that fails takes nothing with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from mint import predict
from mint.builders.stages import Trained
from mint.data.features.prepare import Features
from mint.evaluation.audio_text import retrieval_steps
from mint.evaluation.captioning import captioning_steps
from mint.evaluation.closed_set import closed_set_steps
from mint.evaluation.records import Evaluation, Setup, draw
from mint.evaluation.settings import QUICK, Settings
from mint.evaluation.steps import Step, run_steps
from mint.types import Example, MintError, NamedClasses

NEEDED_STAGE = {"retrieval": 1, "captioning": 2}
"""Tasks that captions make, and the stage that they need."""
MOST_WORKERS = 2
"""Steps that run at a time, at most: each holds a batch in memory."""


def evaluate(
    trained: Trained,
    examples: Sequence[Example],
    features: Mapping[int, Features],
    *,
    tasks: Sequence[str] | None = None,
    settings: Settings = QUICK,
    seed: int = 0,
    classes: NamedClasses | None = None,
) -> Evaluation:
    """Measure the tasks of the examples; no figure depends on the order of the examples.

    Args:
        trained: the stages; a missing one leaves its columns empty.
        examples: the clips of all splits; those of `train` and `validation` serve the probe.
        features: the features of the examples, by the stage that reads them.
        tasks: which tasks: those of the examples, `retrieval`, `captioning`; None: all that there are.
        settings: scoring, decoding, and the number of clips; those of the quickstart unless given.
        seed: seed of the choice of clips and of the bootstrap.
        classes: the encoder's own classifier, which is a bound where all labels of a task are among its classes.

    Raises:
        MintError: an unknown task, one without a held-out clip, or nothing of the trained stages could be measured.
    """
    setup = Setup(trained, features, settle(settings, trained), seed, classes)
    usable = sorted(filter(setup.can_use, examples), key=_order)
    labelled = list(filter(_has_labels, usable))
    captioned = [example for example in usable if example.captions and example.split == "test"]

    # A table has its tasks in the order of the manifests; their clips are sorted.
    closed = list(dict.fromkeys(example.task for example in filter(_has_labels, examples)))
    known = dict.fromkeys([*closed, *NEEDED_STAGE])
    for task in tasks or ():
        if task not in known:
            raise MintError(f"no task {task!r} in these manifests; there is {', '.join(known)}")

    # Closed sets take the clips of all splits: the probe is fitted on those of training.
    steps: list[Step] = []
    for task in closed:
        if tasks is None or task in tasks:
            steps += closed_set_steps(setup, task, [example for example in labelled if example.task == task])
    if trained.stage1 is not None and captioned and (tasks is None or "retrieval" in tasks):
        steps += retrieval_steps(setup, draw(captioned, settings.retrieved_clips, seed))
    if trained.stage2 is not None and captioned and (tasks is None or "captioning" in tasks):
        steps += captioning_steps(setup, draw(captioned, settings.captioned_clips, seed), labelled)

    # What was asked for by name and cannot be measured is said, not left out in silence.
    lacking = _lacking(tasks or (), trained, captioned)
    if not steps:
        raise MintError(
            next(iter(lacking.values()), None)
            or "nothing to evaluate: the manifests have no usable clip in the splits test or unseen"
        )
    last = Step("tasks", iter([Evaluation(not_computed=lacking)]))
    return run_steps([*steps, last], _count_workers(trained))


def _count_workers(trained: Trained) -> int:
    """Return how many steps run at a time: two on a CPU of several cores; a GPU has enough to do with one."""
    stage = trained.stage1 or trained.stage2
    assert stage is not None
    on_cpu = next(stage.model.parameters()).device.type == "cpu"
    return min(MOST_WORKERS, torch.get_num_threads()) if on_cpu else 1


def settle(settings: Settings, trained: Trained) -> Settings:
    """Return the settings with the scoring of the run, where they name none and there is a stage 2."""
    return settings if trained.stage2 is None else settings.settled(predict.own_scoring(trained.stage2))


def _has_labels(example: Example) -> bool:
    """Return whether somebody listened to the clip for labels, if only to leave some of them open."""
    return bool(example.labels or example.unknown)


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


def _lacking(tasks: Sequence[str], trained: Trained, captioned: Sequence[Example]) -> dict[str, str]:
    """Return why tasks that are asked for by name cannot be measured, if it is the run or the captions."""
    stages = {1: trained.stage1, 2: trained.stage2}
    reasons = {}
    for task, number in NEEDED_STAGE.items():
        if task in tasks and stages[number] is None:
            reasons[task] = (
                f"{task} needs stage {number}, which this run does not have; train it, or leave the task out"
            )
        elif task in tasks and not captioned:
            reasons[task] = f"{task} needs captions, and no usable clip of the split test has one; check the manifests"
    return reasons
