"""The report of a finished run, from what its evaluation gave."""

from __future__ import annotations

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
from mint.text_files import read_json
from mint.types import AudioEncoder, Clip, Example, MintError

LOSSES = ("step", "loss", "alc", "alm", "atg")
"""What the report draws of the records of a training log."""
ATTENTIONS = 6
"""Clips over whose spectrogram the report shows where the queries look."""
Key = tuple[str, Path, float, float | None]
"""Task, file, start and duration: what a clip is known by, as ids are unique in their corpus alone."""


def report_of_run(
    title: str,
    results: Results,
    evaluation: Evaluation,
    encoder: AudioEncoder,
    folders: Mapping[int, Path],
    skipped: Sequence[Skipped] = (),
    commands: Sequence[str] = (),
) -> ReportData:
    """Collect all that is known of a run.

    Args:
        title: the title of the page.
        results: the results as they stand in the file.
        evaluation: what the results were made from.
        encoder: the frozen encoder, for the time between its tokens.
        folders: the folder of each stage, with its `history.json`.
        skipped: the clips that could not be used.
        commands: command lines to continue with.
    """
    # The clip that was captioned and the clip that was asked about are two examples of one recording.
    captions = {_key(example): caption for example, caption in evaluation.captions}
    predicted = {}
    mistakes = []
    for prediction in evaluation.predictions:
        predicted[_key(prediction.example)] = prediction.predicted
        if prediction.margin > 0:
            mistakes.append(prediction)

    # The surest mistakes teach most.
    mistakes.sort(key=lambda prediction: -prediction.margin)
    worst = [prediction.example for prediction in mistakes[:MOST_PLAYERS]]

    shown = [example for example, _ in evaluation.captions]
    shown = shown or [prediction.example for prediction in evaluation.predictions]

    curves = []
    for stage in sorted(folders):
        if (curve := _curve(stage, folders[stage])) is not None:
            curves.append(curve)
    return ReportData(
        title=title,
        results=results,
        date=datetime.now().astimezone(),
        machine=describe_machine(),
        curves=curves,
        confusions=evaluation.confusions,
        similarities=evaluation.similarities,
        calibrations=evaluation.calibrations,
        attentions=_attention_maps(evaluation, encoder),
        samples=[_sample(example, predicted, captions) for example in shown[:MOST_PLAYERS]],
        mistakes=[_sample(example, predicted, captions) for example in worst],
        skipped=skipped,
        not_computed=evaluation.not_computed,
        commands=commands,
    )


def player_clip(example: Example) -> Clip | None:
    """Return the beginning of a clip, to listen to; None if it cannot be read."""
    seconds = min(example.duration or MOST_SECONDS, MOST_SECONDS)
    try:
        return Clip(load_audio(example.audio, RATE, example.start, seconds), RATE)
    except MintError:
        # Features may come from the cache after the audio was moved away.
        return None


def _attention_maps(evaluation: Evaluation, encoder: AudioEncoder) -> list[AttentionMap]:
    maps = []
    for example, attention in evaluation.attentions[:ATTENTIONS]:
        clip = player_clip(example)
        if clip is not None:
            title = f"{example.id} ({', '.join(example.labels)})"
            moments = over_time(attention, encoder.bands)  # [Q, steps]
            maps.append(AttentionMap(title, clip, moments, encoder.step_seconds, f"“{example.prompt}”"))
    return maps


def _curve(stage: int, folder: Path) -> Curve | None:
    """Return the losses of a stage; None for a run without its log, such as one from the hub, or with a broken one."""
    try:
        records = read_json(folder / "history.json")
        losses = []
        for record in records:
            # Records of validation and of the run's end have no `loss`.
            if "loss" in record:
                losses.append({key: record[key] for key in LOSSES if key in record})
    except (OSError, TypeError, MintError):
        return None
    return Curve(f"Stage {stage}", losses)


def _key(example: Example) -> Key:
    return example.task, example.audio, example.start, example.duration


def _sample(example: Example, predicted: Mapping[Key, str], captions: Mapping[Key, str]) -> Sample:
    return Sample(
        title=example.id,
        clip=player_clip(example),
        predicted=predicted.get(_key(example)),
        truth=", ".join(example.labels) if example.labels else None,
        generated=captions.get(_key(example)),
        references=example.captions,
    )
