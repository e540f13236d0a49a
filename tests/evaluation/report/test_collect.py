"""What the report says of a clip is what was found of that clip, whatever others are called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mint.encoders.tiny import TinyEncoder
from mint.evaluation.records import Evaluation, Prediction
from mint.evaluation.report.collect import report_of_run
from mint.evaluation.results.file import Results
from mint.types import Example


def test_equal_ids_are_not_mixed_up(tmp_path: Path) -> None:
    first = Example("0.wav", tmp_path / "a" / "0.wav", "notes", "test", "a", labels=("flute",), captions=("a flute",))
    others = [
        replace(first, audio=tmp_path / "b" / "0.wav", corpus="b"),
        replace(first, audio=tmp_path / "c" / "0.wav"),
        replace(first, start=1.0),
        replace(first, task="chords"),
    ]
    examples = [first, *others]
    evaluation = Evaluation(
        predictions=[Prediction(example, f"label {number}", 1.0) for number, example in enumerate(examples)],
        captions=[(example, f"caption {number}") for number, example in enumerate(examples)],
    )
    report = report_of_run("title", Results((), 1.0, None, "r", None, 0, {}), evaluation, TinyEncoder(), {})
    for samples in (report.samples, report.mistakes):
        assert [sample.predicted for sample in samples] == [f"label {number}" for number in range(5)]
        assert [sample.generated for sample in samples] == [f"caption {number}" for number in range(5)]
