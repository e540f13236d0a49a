"""Evaluation from a run's folder: what goes wrong is said in one line, what does not matter changes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mint import predict
from mint.builders.encoder import build_encoder
from mint.builders.stages import Trained, load_trained
from mint.cli import main
from mint.config import EncoderConfig
from mint.data.features.prepare import Features, prepare_features, read_examples
from mint.evaluation.evaluate import evaluate
from mint.evaluation.evaluate_run import evaluate_run
from mint.evaluation.metrics.classification import accuracy
from mint.evaluation.metrics.retrieval import retrieve
from mint.evaluation.results.file import read_results
from mint.evaluation.results.paper_tables import tables_of
from mint.evaluation.settings import Settings
from mint.predict import Matcher
from mint.run_folder import find_stages
from mint.types import Example, MintError
from tiny_runs import LABELS, train_both

ByStage = dict[int, Features]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A trained tiny run and the corpus beside it."""
    place = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINT_CACHE", str(place / "cache"))
        train_both(place, max_steps=2)
        yield place


@pytest.fixture(autouse=True)
def without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """METEOR alone would take longer than all else; its own tests have it."""
    find = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "java" else find(name))


@pytest.fixture
def trained(folder: Path) -> Trained:
    return load_trained(find_stages(folder / "run"))


@pytest.fixture
def examples(folder: Path) -> list[Example]:
    return read_examples([folder / "tones.jsonl"])


@pytest.fixture
def features(examples: list[Example]) -> ByStage:
    return dict.fromkeys((1, 2), prepare_features(build_encoder(EncoderConfig(family="tiny")), examples))


def test_a_split_without_clips_is_named(trained: Trained, examples: list[Example], features: ByStage) -> None:
    learnt = [example for example in examples if example.split == "train"]
    with pytest.raises(MintError, match="no usable clip in the splits test or unseen"):
        evaluate(trained, learnt, features)


def test_steps_side_by_side_measure_the_same(
    trained: Trained, examples: list[Example], features: ByStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread each either way, so that even rounding is the same."""
    evaluations = []
    for workers in (1, 2):
        monkeypatch.setattr("mint.evaluation.evaluate._count_workers", lambda _, workers=workers: workers)
        evaluations.append(evaluate(trained, examples, features))
    alone, together = evaluations

    assert together.rows == alone.rows
    assert together.record() == alone.record()
    assert together.captions == alone.captions
    assert len(together.attentions) == len(alone.attentions) > 0
    for (_, found), (_, expected) in zip(together.attentions, alone.attentions, strict=True):
        torch.testing.assert_close(found, expected, atol=0.0, rtol=0.0)


@pytest.mark.parametrize(("task", "stage"), [("retrieval", 1), ("captioning", 2)])
def test_what_a_task_lacks_is_named(
    trained: Trained, examples: list[Example], features: ByStage, task: str, stage: int
) -> None:
    without: Any = {f"stage{stage}": None}
    with pytest.raises(MintError, match=f"{task} needs stage {stage}, which this run does not have"):
        evaluate(replace(trained, **without), examples, features, tasks=[task])
    silent = [replace(example, captions=()) for example in examples]
    with pytest.raises(MintError, match=f"{task} needs captions, and no usable clip of the split test has one"):
        evaluate(trained, silent, features, tasks=[task])


def test_a_task_that_cannot_be_measured_is_named_beside_others(
    trained: Trained, examples: list[Example], features: ByStage
) -> None:
    evaluation = evaluate(replace(trained, stage1=None), examples, features, tasks=["pitch", "retrieval"])
    assert evaluation.not_computed.keys() == {"retrieval"}
    assert "needs stage 1" in evaluation.not_computed["retrieval"]
    assert {row.task for row in evaluation.rows} == {"pitch"}


def test_a_task_that_is_asked_for_twice_is_measured_once(
    trained: Trained, examples: list[Example], features: ByStage
) -> None:
    rows = evaluate(trained, examples, features, tasks=["pitch", "pitch"]).rows
    assert len({row.key for row in rows}) == len(rows)


def test_a_task_with_one_label_only_is_refused(trained: Trained, examples: list[Example], features: ByStage) -> None:
    same = [replace(example, labels=("low",)) for example in examples]
    with pytest.raises(MintError, match="only one class; give at least two labels"):
        evaluate(trained, same, features, tasks=["pitch"])


@pytest.mark.parametrize("stage", [1, 2])
def test_broken_weights_are_not_measured(
    trained: Trained, examples: list[Example], features: ByStage, stage: int
) -> None:
    measured: Any = trained.stage1 if stage == 1 else trained.stage2
    model = measured.model
    torch.nn.init.constant_(model.audio_projection.weight if stage == 1 else model.projection.weight, torch.nan)
    alone = replace(trained, stage2=None) if stage == 1 else replace(trained, stage1=None)
    with pytest.raises(MintError, match=r"NaN|not finite"):
        evaluate(alone, examples, features, tasks=["pitch"])


def test_the_order_of_labels_changes_nothing(trained: Trained, examples: list[Example], features: ByStage) -> None:
    held_out = [example for example in examples if example.split == "test"]
    clips = [features[1].windows(example) for example in held_out]
    assert trained.stage2 is not None
    figures, columns = [], []
    for labels in (sorted(LABELS), sorted(LABELS, reverse=True), list(LABELS)):
        sums, _ = predict.rank_vocabulary(trained.stage2, clips, "The pitch is", labels)
        wanted = np.array([labels.index(example.labels[0]) for example in held_out])
        figures.append(float(accuracy(sums.numpy(), wanted)))
        columns.append(sums[:, [labels.index(label) for label in LABELS]])
    assert len(set(figures)) == 1
    for other in columns[1:]:
        torch.testing.assert_close(other, columns[0], atol=1e-4, rtol=0)


def test_clips_are_ranked_by_the_share_of_a_label_among_the_labels(
    trained: Trained, examples: list[Example], features: ByStage
) -> None:
    several = [replace(example, labels=(*example.labels, *list(LABELS)[:1])) for example in examples]
    found = evaluate(trained, several, features, tasks=["pitch"])
    (scores,) = {
        measure.arrays[0].tobytes(): measure.arrays[0] for measure in found.measures if measure.method == "stage2"
    }.values()
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1.0, rtol=1e-5)


def test_labels_that_nobody_checked_do_not_count(trained: Trained, examples: list[Example], features: ByStage) -> None:
    following = dict(zip(LABELS, [*list(LABELS)[1:], next(iter(LABELS))], strict=True))
    asked = [replace(example, unknown=(following[example.labels[0]],)) for example in examples]
    found = {
        (row.method, row.metric): row
        for row in evaluate(replace(trained, stage2=None), asked, features, tasks=["pitch"]).rows
    }
    # Of three clips, one has the label, one does not, and of one nobody knows: the right one stands first or second.
    assert found["chance", "map"].value == pytest.approx((1 + 1 / 2) / 2)
    unasked = evaluate(
        replace(trained, stage2=None),
        [replace(example, labels=tuple(LABELS)[:2]) for example in examples],
        features,
        tasks=["pitch"],
    )
    assert [row.value for row in unasked.rows if (row.method, row.metric) == ("chance", "map")] == [1.0]
    assert ("stage1", "map") in found


def test_the_order_of_clips_changes_nothing(trained: Trained, examples: list[Example], features: ByStage) -> None:
    alone = replace(trained, stage2=None)
    forward = evaluate(alone, examples, features, tasks=["pitch"]).rows
    backward = evaluate(alone, examples[::-1], features, tasks=["pitch"]).rows
    assert {(row.method, row.value) for row in forward} == {(row.method, row.value) for row in backward}


def test_re_ranking_fits_a_trained_run(trained: Trained, examples: list[Example], features: ByStage) -> None:
    clips = [features[1].windows(example) for example in examples]
    captions = [(place, text) for place, example in enumerate(examples) for text in example.captions]
    texts = [text for _, text in captions]
    assert trained.stage1 is not None
    found = retrieve(
        predict.embed_clips(trained.stage1, clips),
        predict.embed_texts(trained.stage1, texts),
        torch.tensor([place for place, _ in captions]),
        reranker=Matcher(trained.stage1, clips, texts),
        temperature=0.07,
        top=10,
    )
    assert found.text_to_audio.best.shape == (len(texts), 1)


def test_a_test_set_that_shares_clips_with_training_is_reported(folder: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (folder / "tones.jsonl").read_text(encoding="utf-8").splitlines()]
    copied = dict(lines[0], id="again", audio="again.wav", split="test")
    shutil.copy(folder / lines[0]["audio"], tmp_path / "again.wav")
    others = [dict(line, audio=str(folder / line["audio"])) for line in lines if line["split"] == "test"]
    manifest = tmp_path / "shared.jsonl"
    manifest.write_text("\n".join(json.dumps(line) for line in [copied, *others]), encoding="utf-8")
    results, path = evaluate_run(folder / "run" / "stage1", ["pitch"], [str(manifest)], output=tmp_path / "r.json")
    assert read_results(path) == results
    (table,) = [table for table in tables_of([path]) if table.name == "table2-own"]
    assert {line.run.leakage for line in table.rows if line.run} == {"by recording 0, by file 1, by caption 4"}


def test_what_was_chosen_travels_with_the_results(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "r.json"
    chosen = ["--task", "captioning", "--clips", "2", "--beams", "2", "--max-tokens", "3", "--scoring", "mean"]
    assert main(["evaluate", str(folder / "run"), *chosen, "--output", str(output)]) == 0
    results = read_results(output)
    assert results.extra["settings"]["decoding"] == {"strategy": "beam", "beams": 2, "max_tokens": 3}
    assert results.extra["settings"]["scoring"] == "mean"
    assert {row.n for row in results.rows if row.metric == "names_label"} == {2}
    assert main(["tables", str(output), "--output", str(tmp_path / "tables")]) == 0


def test_a_report_of_any_run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, report = tmp_path / "r.json", tmp_path / "r.html"
    assert main(["evaluate", str(folder / "run"), "--output", str(output), "--report", str(report)]) == 0
    assert f"Written to {output} and {report}" in capsys.readouterr().out
    page = report.read_text(encoding="utf-8")
    for heading in ("Training", "Confusions", "Calibration", "Where the queries look", "Clips to listen to"):
        assert f">{heading}</h2>" in page
    held_out = [example for example in read_examples([folder / "tones.jsonl"]) if example.split == "test"]
    for example in held_out:
        assert f"<h3>{example.id}</h3>" in page
        assert all(f"<dd>{caption}</dd>" in page for caption in example.captions)
    assert page.count("data:audio/flac") >= 2 * len(held_out)


def test_templates_are_averaged_for_similarity_ranking(
    trained: Trained, examples: list[Example], features: ByStage
) -> None:
    alone = replace(trained, stage2=None)

    def scores(*templates: str) -> dict[str, float]:
        found = evaluate(alone, examples, features, tasks=["pitch"], settings=Settings(templates=templates))
        return {f"{row.metric} of {row.method}": row.value for row in found.rows}

    assert scores("The pitch is {label}") == scores()
    assert trained.stage1 is not None
    held_out = [example for example in examples if example.split == "test"]
    queries = predict.embed_clips(trained.stage1, [features[1].windows(example) for example in held_out])
    labels = sorted(LABELS)
    texts = [
        predict.embed_texts(trained.stage1, [f"{start} {label}" for label in labels])
        for start in ("The pitch is", "hear")
    ]
    mean = torch.nn.functional.normalize(texts[0] + texts[1], dim=-1)
    wanted = np.array([labels.index(example.labels[0]) for example in held_out])
    expected = accuracy(torch.einsum("nqe,ce->nqc", queries, mean).amax(dim=1).numpy(), wanted)
    assert scores("The pitch is {label}", "hear {label}")["accuracy of stage1"] == float(expected)


def test_unknown_task(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(folder / "run"), "--task", "pich"]) == 2
    assert "no task 'pich' in these manifests; there is pitch, retrieval, captioning" in capsys.readouterr().err
