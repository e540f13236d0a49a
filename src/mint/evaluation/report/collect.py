"""The report of a finished run, from what its evaluation gave."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from mint.data.audio.decode import load_audio
from mint.data.features.encode import Skipped
from mint.evaluation.records import Evaluation
from mint.evaluation.report.attention import over_time
from mint.evaluation.report.page import (
    MOST_PLAYERS,
    MOST_SECONDS,
    RATE,
    AttentionMap,
    Curve,
    ReportData,
    Sample,
)
from mint.evaluation.results.file import Results
from mint.machine import describe_machine
from mint.types import AudioEncoder, Clip, Example, MintError

LOSSES = ("step", "loss", "alc", "alm", "atg")
"""Of a training log's records."""
ATTENTIONS = 6
"""Clips over whose spectrogram the report shows where the queries look."""
Place = tuple[str, Path, float, float | None]
"""Task, file, start and duration: what an example is known by, as ids are unique in their corpus alone."""


def report_of_run(
    title: str,
    results: Results,
    evaluation: Evaluation,
    encoder: AudioEncoder,
    folders: Mapping[int, Path],
    skipped: Sequence[Skipped] = (),
    commands: Sequence[str] = (),
) -> ReportData:
    """All that is known of a run.

    Args:
        title: of the page.
        results: as they stand in the file.
        evaluation: what the results were made from.
        encoder: for the time between its tokens.
        folders: of each stage, with its `history.json`.
        skipped: clips that could not be used.
        commands: command lines to go on with.
    """
    said = {_place(prediction.example): prediction.predicted for prediction in evaluation.predictions}
    captions = {_place(example): caption for example, caption in evaluation.captions}
    wrong = sorted((one for one in evaluation.predictions if one.margin > 0), key=lambda one: -one.margin)
    shown = [example for example, _ in evaluation.captions] or [one.example for one in evaluation.predictions]
    return ReportData(
        title=title,
        results=results,
        date=datetime.now().astimezone(),
        machine=describe_machine(),
        curves=[curve for stage in sorted(folders) if (curve := _curve(stage, folders[stage])) is not None],
        confusions=evaluation.confusions,
        similarities=evaluation.similarities,
        calibrations=evaluation.calibrations,
        attentions=[
            AttentionMap(
                f"{example.id} ({', '.join(example.labels)})",
                clip,
                over_time(attention, encoder.bands),
                encoder.step_seconds,
                f"“{example.prompt}”",
            )
            for example, attention in evaluation.attentions[:ATTENTIONS]
            if (clip := player_clip(example)) is not None
        ],
        samples=[_sample(example, said, captions) for example in shown[:MOST_PLAYERS]],
        mistakes=[_sample(one.example, said, captions) for one in wrong[:MOST_PLAYERS]],
        skipped=skipped,
        not_computed=evaluation.not_computed,
        commands=commands,
    )


def player_clip(example: Example) -> Clip | None:
    """The beginning of a clip, to listen to; None where it cannot be read."""
    seconds = min(example.duration or MOST_SECONDS, MOST_SECONDS)
    try:
        return Clip(load_audio(example.audio, RATE, example.start, seconds), RATE)
    except MintError:
        return None


def _curve(stage: int, folder: Path) -> Curve | None:
    """The losses of a stage; None for a run without its log, such as one from the hub."""
    path = folder / "history.json"
    if not path.is_file():
        return None
    records = json.loads(path.read_text(encoding="utf-8"))
    return Curve(
        f"Stage {stage}", [{key: one[key] for key in LOSSES if key in one} for one in records if "loss" in one]
    )


def _place(example: Example) -> Place:
    return example.task, example.audio, example.start, example.duration


def _sample(example: Example, said: Mapping[Place, str], captions: Mapping[Place, str]) -> Sample:
    return Sample(
        title=example.id,
        clip=player_clip(example),
        predicted=said.get(_place(example)),
        truth=", ".join(example.labels) if example.labels else None,
        generated=captions.get(_place(example)),
        references=example.captions,
    )
