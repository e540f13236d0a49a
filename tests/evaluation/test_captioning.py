"""What cannot be scored is said before captions are made, and a scorer that fails takes no other with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mint import predict
from mint.builders.stages import Trained
from mint.evaluation.captioning import captioning_steps
from mint.evaluation.metrics import captions as caption_metrics
from mint.evaluation.metrics import sentences
from mint.evaluation.metrics.captions import REPORTED, CaptionScore, CaptionScores
from mint.evaluation.records import Evaluation, Setup
from mint.evaluation.settings import Settings
from mint.evaluation.steps import run_steps
from mint.types import Example, MintError

CLIPS = [
    Example(str(n), Path("a.wav"), "notes", "test", "corpus", labels=(label,), captions=(f"a {label}", "a tone"))
    for n, label in enumerate(["flute", "flute", "organ"])
]
SAID = ["a flute", "an organ", "the organs"]
PACKAGE = "pycocoevalcap is not installed"
ENCODER = "the sentence encoder is not here"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens, in order: captions are made without a model, and all scorers are there."""
    events: list[str] = []

    def generate(*_: Any, **__: Any) -> list[str]:
        events.append("generate")
        return SAID

    def score(generated: Sequence[str], references: Any, metrics: Sequence[str]) -> CaptionScores:
        events.append(f"score {' '.join(metrics)}")
        scores = {name: CaptionScore(0.5, np.array([0.0, 0.5, 1.0]), name != "bleu_4") for name in metrics}
        return CaptionScores(scores, {}, "tokeniser")

    monkeypatch.setattr(predict, "generate", generate)
    monkeypatch.setattr(caption_metrics, "missing", lambda metrics: {})
    monkeypatch.setattr(caption_metrics, "score_captions", score)
    monkeypatch.setattr(sentences, "missing", lambda: None)
    monkeypatch.setattr(sentences, "sentence_similarity", lambda *_: np.array([0.1, 0.2, 0.3]))
    return events


def caption(clips: Sequence[Example]) -> Evaluation:
    stage2: Any = object()
    setup = Setup(Trained(None, stage2), {2: stage2}, Settings(), 0)
    return run_steps(captioning_steps(setup, clips, clips))


def values(evaluation: Evaluation) -> dict[tuple[str, str], float]:
    return {(row.task, row.metric): row.value for row in evaluation.rows if row.method != "chance"}


def test_all_metrics(made: list[str]) -> None:
    evaluation = caption(CLIPS)
    assert made == ["generate", f"score {' '.join(REPORTED)}"]
    expected = {("captioning", metric): 0.5 for metric in REPORTED} | {
        ("captioning", "sentence_similarity"): pytest.approx(0.2),
        ("captioning", "names_label"): pytest.approx(2 / 3),
        ("notes", "caption_names_label"): pytest.approx(2 / 3),
    }
    assert values(evaluation) == expected
    chance = [(row.task, row.metric) for row in evaluation.rows if row.method == "chance"]
    assert chance == [("captioning", "names_label"), ("notes", "caption_names_label")]
    assert {row.metric for row in evaluation.rows if row.low is None} == {"bleu_4"}
    assert evaluation.captions == list(zip(CLIPS, SAID, strict=True))
    assert evaluation.measured["captioning"] == CLIPS


def test_nothing_is_generated_where_nothing_can_be_scored(
    made: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(caption_metrics, "missing", lambda metrics: dict.fromkeys(metrics, PACKAGE))
    monkeypatch.setattr(sentences, "missing", lambda: ENCODER)
    evaluation = caption([replace(clip, labels=()) for clip in CLIPS])
    assert made == []
    assert evaluation.not_computed == {**dict.fromkeys(REPORTED, PACKAGE), "sentence_similarity": ENCODER}
    assert (evaluation.rows, evaluation.measured) == ([], {})
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"not computed: {', '.join(REPORTED)} ({PACKAGE})",
        f"not computed: sentence_similarity ({ENCODER})",
    ]

    # With labels there is something to measure, and the reasons are said before it begins.
    evaluation = caption(CLIPS)
    assert made == ["generate"]
    assert values(evaluation).keys() == {("captioning", "names_label"), ("notes", "caption_names_label")}


def test_what_is_missing_is_said_before_captions_are_made(
    made: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said_before: list[str] = []

    def generate(*_: Any, **__: Any) -> list[str]:
        said_before.append(capsys.readouterr().err)
        return SAID

    monkeypatch.setattr(predict, "generate", generate)
    monkeypatch.setattr(sentences, "missing", lambda: ENCODER)
    caption(CLIPS)
    assert said_before == [f"not computed: sentence_similarity ({ENCODER})\n"]


@pytest.mark.parametrize("error", [ValueError("could not convert string to float: b''"), MintError("no Java")])
def test_a_scorer_that_fails_takes_no_other_with_it(
    made: list[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    reason = str(error) if isinstance(error, MintError) else f"ValueError: {error}"
    monkeypatch.setattr(caption_metrics, "score_captions", fail)
    evaluation = caption(CLIPS)
    assert evaluation.not_computed == dict.fromkeys(REPORTED, reason)
    assert ("captioning", "sentence_similarity") in values(evaluation)
    assert ("captioning", "names_label") in values(evaluation)
    assert len(evaluation.captions) == 3

    monkeypatch.setattr(sentences, "sentence_similarity", fail)
    evaluation = caption(CLIPS)
    assert evaluation.not_computed["sentence_similarity"] == reason
    assert values(evaluation).keys() == {("captioning", "names_label"), ("notes", "caption_names_label")}
