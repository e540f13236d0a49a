"""The HTML report of a run: one self-contained file that opens offline.

Everything is inside: style, script, figures as SVG, audio as FLAC in data URIs (a policy in the page forbids the
browser to fetch anything else). The caller fills `ReportData`; numbers come from the results as they stand in the JSON.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import soundfile
import soxr

from mint.evaluation.records import by_reason
from mint.evaluation.report import figures
from mint.evaluation.report.attention_figure import attention_figure
from mint.evaluation.results.file import arrange, best_methods, readable_title, show, show_interval
from mint.evaluation.results.seeds import describe_leakage, shared_clips
from mint.evaluation.settings import describe_settings
from mint.files import write_whole
from mint.types import MintError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from markupsafe import Markup
    from numpy.typing import ArrayLike

    from mint.data.features.encode import Skipped
    from mint.evaluation.metrics.calibration import Calibration
    from mint.evaluation.records import Confusion, SimilarityMap
    from mint.evaluation.results.file import Results, Row
    from mint.types import Clip

RATE = 16_000
"""Hz of the players' audio."""
MOST_SECONDS = 8.0
"""Longer clips are cut in the report (not in the evaluation): it bounds the file's size."""
MOST_PLAYERS = 12
"""Clips shown in each section."""
MOST_CLASSES = 60
"""With more classes a confusion matrix is listed, not drawn."""
MOST_WIDE_CLASSES = 24
"""With more classes the cells are small."""
MOST_CONFUSIONS = 8


@dataclass(frozen=True)
class Curve:
    """Training log of one stage."""

    title: str
    records: Sequence[Mapping[str, float]]
    """Each `{"step": ..., name of a loss: ..., ...}`."""


@dataclass(frozen=True)
class AttentionMap:
    """Where the queries look in one clip."""

    title: str
    clip: Clip
    attention: ArrayLike
    """[Q, steps]; see `attention.clip_attention` and `over_time`."""
    step_seconds: float
    """Audio of one step."""
    note: str = ""


@dataclass(frozen=True)
class Sample:
    """One clip to listen to."""

    title: str
    clip: Clip | None
    """None if the audio cannot be read."""
    predicted: str | None = None
    truth: str | None = None
    generated: str | None = None
    """The caption of the model."""
    references: Sequence[str] = ()
    """The true captions."""
    note: str | None = None

    @property
    def right(self) -> bool | None:
        """Whether the prediction is right; None if there is no prediction, or no truth."""
        if self.predicted is None or self.truth is None:
            return None
        return self.predicted == self.truth


@dataclass(frozen=True)
class ReportData:
    """All that a report shows."""

    title: str
    results: Results
    date: datetime
    machine: str
    curves: Sequence[Curve] = ()
    confusions: Sequence[Confusion] = ()
    similarities: Sequence[SimilarityMap] = ()
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    """Task and split -> whether the confidence of the predictions is what it should be."""
    attentions: Sequence[AttentionMap] = ()
    samples: Sequence[Sample] = ()
    """Held-out clips chosen without looking at the result, the first `MOST_PLAYERS` of them shown."""
    mistakes: Sequence[Sample] = ()
    """The worst first."""
    skipped: Sequence[Skipped] = ()
    not_computed: Mapping[str, str] = field(default_factory=dict)
    """Metric -> why it is not in the table, and the cure."""
    method: Sequence[str] = ()
    """Paragraphs for "How this was computed", before those that hold for every run."""
    commands: Sequence[str] = ()
    """Command lines to continue with."""


def write_report(path: Path, data: ReportData) -> None:
    """Write the report, whole or not at all.

    Raises:
        MintError: a matrix does not fit its labels.
    """
    # Ids and captions are foreign text: escaped, and a name that the template lacks is an error.
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"duration": _duration, "gibibytes": _gibibytes, "player": _player}
    template = environment.from_string((resources.files("mint.evaluation.report") / "report.html").read_text("utf-8"))

    leakage = data.results.extra.get("leakage")
    settings = data.results.extra.get("settings")
    page = template.render(
        data=data,
        table=_table(data.results.rows),
        curves=_curves(data.curves),
        confusions=[_confusion(confusion) for confusion in data.confusions],
        similarities=[_similarity(similarity) for similarity in data.similarities],
        calibrations=_calibrations(data.calibrations),
        attentions=_attentions(data.attentions),
        not_computed=_not_computed(data.not_computed),
        settings=sorted(set(describe_settings(settings).values())) if settings else [],
        leakage=describe_leakage(leakage),
        shared=shared_clips(leakage),
        most_players=MOST_PLAYERS,
        most_seconds=MOST_SECONDS,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page)


def _table(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the table of results: its methods with their colours, and one line for each task, split and metric."""
    lines, methods = arrange(rows)
    # A method has one colour in all lines, also where others are missing.
    colours = {method: index % figures.COLOURS for index, method in enumerate(methods)}
    body = []
    for (task, split, metric), cells in lines.items():
        best = best_methods(cells)
        values: list[tuple[str, str, str, bool] | None] = []
        ordered = {}
        for method in methods:
            row = cells.get(method)
            if row is None:
                values.append(None)
            else:
                values.append((method, show(metric, row.value), show_interval(row), method in best))
                ordered[method] = row

        body.append({
            "task": task,
            "split": split,
            "metric": readable_title(metric),
            "key": metric,
            "values": values,
            "n": max(row.n for row in cells.values()),
            "figure": figures.interval_figure(ordered, colours),
        })  # fmt: skip
    return {"methods": methods, "colours": colours, "lines": body}


def _curves(curves: Sequence[Curve]) -> list[tuple[Curve, Markup, list[figures.LossLine]]]:
    """Return each training log with its figure and the legend."""
    drawn = []
    for curve in curves:
        figure = figures.loss_figure(curve.title, curve.records)
        drawn.append((curve, figure, figures.loss_lines(curve.records)))
    return drawn


def _calibrations(calibrations: Mapping[str, Calibration]) -> list[tuple[str, Calibration, Markup]]:
    """Return each calibration with its title and its figure."""
    drawn = []
    for title, calibration in calibrations.items():
        drawn.append((title, calibration, figures.calibration_figure(title, calibration)))
    return drawn


def _attentions(attentions: Sequence[AttentionMap]) -> list[tuple[AttentionMap, Markup]]:
    """Return each map of attention with its figure."""
    drawn = []
    for one in attentions:
        drawn.append((one, attention_figure(one.title, one.clip, one.attention, one.step_seconds)))
    return drawn


def _not_computed(reasons: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return metrics that lack the same thing, together, and what they lack."""
    groups = []
    for reason, metrics in by_reason(reasons).items():
        names = [readable_title(metric).removesuffix(" (%)") for metric in metrics]
        groups.append((", ".join(names), reason))
    return groups


def _confusion(confusion: Confusion) -> dict[str, Any]:
    """Return a confusion matrix row by row, and its largest confusions."""
    counts = np.asarray(confusion.counts)
    labels = list(confusion.labels)
    if counts.shape != (len(labels), len(labels)):
        raise MintError(f"confusion {confusion.title!r} has shape {counts.shape} for {len(labels)} labels")

    # Shares of each true label, which may have no clip in this split.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rows = []
    for row_counts, row_shares in zip(counts.tolist(), shares.tolist(), strict=True):
        rows.append(list(zip(row_counts, row_shares, strict=True)))

    # The largest numbers off the diagonal; of equals the first, so that pages do not change by chance.
    wrong = np.where(np.eye(len(labels), dtype=bool), 0, counts)
    worst = []
    for index in np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSIONS].tolist():
        true, predicted = divmod(index, len(labels))
        if wrong[true, predicted]:
            worst.append((labels[true], labels[predicted], int(wrong[true, predicted])))
    return {
        "title": confusion.title,
        "labels": labels,
        "rows": rows,
        "dense": len(labels) > MOST_WIDE_CLASSES,
        "drawn": len(labels) <= MOST_CLASSES,
        "worst": worst,
        "right": int(np.trace(counts)),
        "all": int(counts.sum()),
    }


def _similarity(similarity: SimilarityMap) -> dict[str, Any]:
    """Return a map of similarities with one row for each caption."""
    scores = np.asarray(similarity.scores, dtype=np.float64)  # [N, M]
    if scores.shape != (len(similarity.clips), len(similarity.captions)) or len(similarity.owner) != scores.shape[1]:
        raise MintError(
            f"similarity {similarity.title!r} has shape {scores.shape} for {len(similarity.clips)} clips, "
            f"{len(similarity.captions)} captions and {len(similarity.owner)} owners"
        )

    low, high = (float(scores.min()), float(scores.max())) if scores.size else (0.0, 1.0)
    # A map of equal similarities is drawn pale, not divided by 0.
    shades = (scores - low) / max(high - low, 1e-9)
    rows = []
    for index, (caption, owner) in enumerate(zip(similarity.captions, similarity.owner, strict=True)):
        cells = list(zip(scores[:, index].tolist(), shades[:, index].tolist(), strict=True))
        rows.append((caption, owner, cells))
    return {"title": similarity.title, "clips": list(similarity.clips), "rows": rows}


def _player(clip: Clip) -> str:
    """Return a clip as a data URI: FLAC, mono, 16 bits, at most `MOST_SECONDS`."""
    samples = np.asarray(clip.samples, dtype=np.float32)[: int(MOST_SECONDS * clip.rate)]
    # One rate for all, that every browser plays and that keeps the page small.
    if clip.rate != RATE:
        samples = soxr.resample(samples, clip.rate, RATE)
    buffer = io.BytesIO()
    # Resampling overshoots at edges, and 16 bits would wrap round.
    soundfile.write(buffer, np.clip(samples, -1, 1), RATE, format="FLAC", subtype="PCM_16")
    return f"data:audio/flac;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def _gibibytes(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
