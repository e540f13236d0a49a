"""Each clip is asked its own prompt, and a task is measured the same whatever the order of its clips."""

from __future__ import annotations

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
from mint.config import EncoderConfig
from mint.data.features.prepare import Features, prepare_features, read_examples
from mint.evaluation import closed_set
from mint.evaluation.closed_set import ClosedTask, HeldOut, closed_set_steps
from mint.evaluation.evaluate import evaluate
from mint.evaluation.metrics import captions
from mint.evaluation.metrics.classification import accuracy
from mint.evaluation.records import Setup
from mint.evaluation.settings import Settings
from mint.predict import Scoring
from mint.run_folder import find_stages
from mint.types import Example, MintError, NamedClasses
from tiny_models import randomise
from tiny_runs import LABELS, train_both

PROMPTS = ("The pitch is", "Compared with a whistle, this tone, as anybody would hear at once, is", "x")
NAMES = sorted(LABELS)

ByStage = dict[int, Features]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A trained tiny run and the corpus beside it."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINT_CACHE", str(folder / "cache"))
        train_both(folder, max_steps=2)
        yield folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Trained:
    """The run's stages with larger weights, so that a prompt changes the scores by much."""
    trained = load_trained(find_stages(folder / "run"), "cpu")
    assert trained.stage1 is not None
    assert trained.stage2 is not None
    for stage in (trained.stage1, trained.stage2):
        randomise(stage.model, seed=1)
    return trained


@pytest.fixture(scope="module")
def examples(folder: Path) -> list[Example]:
    """The twelve clips of the corpus, six of them held out, with three prompts in turn."""
    examples = []
    for index, example in enumerate(read_examples([folder / "tones.jsonl"])):
        split = "test" if index % 2 else "train"
        examples.append(replace(example, prompt=PROMPTS[index % 3], split=split))
    return examples


@pytest.fixture(scope="module")
def features(examples: list[Example]) -> ByStage:
    return dict.fromkeys((1, 2), prepare_features(build_encoder(EncoderConfig(family="tiny")), examples))


def held_out(examples: list[Example]) -> list[Example]:
    return sorted((example for example in examples if example.split == "test"), key=lambda example: example.id)


def expected_stage2(trained: Trained, examples: list[Example], features: ByStage) -> Any:
    """Each clip alone, with its own prompt: [N, C]."""
    assert trained.stage2 is not None
    rows = []
    for example in held_out(examples):
        sums, _ = predict.rank_vocabulary(trained.stage2, [features[2].windows(example)], example.prompt or "", NAMES)
        rows.append(sums[0])
    return torch.stack(rows).numpy()


def expected_stage1(trained: Trained, examples: list[Example], features: ByStage) -> Any:
    """As `expected_stage2`, by the similarity of prompt and label."""
    assert trained.stage1 is not None
    rows = []
    for example in held_out(examples):
        queries = predict.embed_clips(trained.stage1, [features[1].windows(example)])[0]  # [Q, E]
        texts = predict.embed_texts(trained.stage1, [f"{example.prompt} {name}" for name in NAMES])  # [C, E]
        rows.append((queries @ texts.T).amax(dim=0))
    return torch.stack(rows).numpy()


def several_labels(examples: list[Example]) -> list[Example]:
    """The same clips in a task with several labels a clip, whose scores are kept."""
    return [
        replace(example, labels=(example.labels[0], "middle")[: 1 + index % 2])
        for index, example in enumerate(examples)
    ]


def centred(scores: Any) -> Any:
    """Without what is added to all scores of a clip."""
    return np.asarray(scores) - np.asarray(scores).mean(axis=1, keepdims=True)


@pytest.mark.parametrize("method", ["stage1", "stage2"])
def test_each_clip_is_asked_its_own_prompt(
    trained: Trained, examples: list[Example], features: ByStage, method: str
) -> None:
    expected = {"stage1": expected_stage1, "stage2": expected_stage2}[method](trained, examples, features)
    wanted = np.array([NAMES.index(example.labels[0]) for example in held_out(examples)])
    evaluation = evaluate(trained, examples, features, tasks=["pitch"])
    (row,) = [row for row in evaluation.rows if row.method == method]
    assert row.value == float(accuracy(expected, wanted))
    if method == "stage2":
        found = {one.example.id: one.predicted for one in evaluation.predictions}
        assert found == {
            example.id: NAMES[label] for example, label in zip(held_out(examples), expected.argmax(axis=1), strict=True)
        }

    many = evaluate(trained, several_labels(examples), features, tasks=["pitch"])
    (scores,) = {id(one.arrays): one.arrays[0] for one in many.measures if one.key[2:] == ("map", method)}.values()
    np.testing.assert_allclose(centred(scores), centred(expected), atol=1e-4)


def test_one_prompt_for_all_is_another_question(trained: Trained, examples: list[Example], features: ByStage) -> None:
    """The prompts of these tests matter: with the first clip's prompt for all, the scores differ."""
    same = [replace(example, prompt=PROMPTS[0]) for example in examples]
    for expected in (expected_stage1, expected_stage2):
        gap = np.abs(centred(expected(trained, examples, features)) - centred(expected(trained, same, features)))
        assert gap.max() > 0.01


@pytest.mark.parametrize("several", [False, True])
def test_the_order_of_the_clips_changes_nothing(
    trained: Trained, examples: list[Example], features: ByStage, several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows with their intervals, every clip's values, and whatever a report draws from the clips."""
    monkeypatch.setattr(captions, "missing", lambda metrics: dict.fromkeys(metrics, "left out, as it is slow"))
    clips = several_labels(examples) if several else examples
    first, *others = [
        evaluate(trained, order, features, settings=Settings(retrieved_clips=4, captioned_clips=3), seed=3)
        for order in (clips, [*clips[1:], clips[0]], clips[::-1])
    ]
    for other in others:
        assert list(other.rows) == list(first.rows)
        assert other.record() == first.record()
        assert other.captions == first.captions
        assert [example.id for example, _ in other.attentions] == [example.id for example, _ in first.attentions]


@pytest.mark.parametrize("scoring", ["mean", "prior"])
def test_scores_are_finished_prompt_by_prompt(
    trained: Trained, examples: list[Example], features: ByStage, scoring: Scoring
) -> None:
    """The mean over clips that `prior` takes off is that of the clips with the same prompt."""
    clips = several_labels([replace(example, prompt=PROMPTS[index % 4 // 2]) for index, example in enumerate(examples)])
    evaluation = evaluate(trained, clips, features, tasks=["pitch"], settings=Settings(scoring=scoring))
    (scores,) = [one.arrays[0] for one in evaluation.measures if one.key[2:] == ("map", "stage2")]
    sums = expected_stage2(trained, clips, features)
    if scoring == "mean":
        assert trained.stage2 is not None
        counts = [len(trained.stage2.model.language.answer_tokens(name)) for name in NAMES]  # type: ignore[attr-defined]
        expected = sums / np.array(counts)
    else:
        prompts = np.array([example.prompt for example in held_out(clips)])
        expected = np.stack(
            [row - sums[prompts == prompt].mean(axis=0) for row, prompt in zip(sums, prompts, strict=True)]
        )
    np.testing.assert_allclose(centred(scores), centred(expected), atol=1e-4)


def test_a_prior_needs_two_clips_of_a_prompt(trained: Trained, examples: list[Example], features: ByStage) -> None:
    alone = [replace(example, prompt="other" if example.id == "low1" else "The pitch is") for example in examples]
    assert trained.stage1 is not None
    with pytest.raises(MintError, match="only one of pitch, test has the prompt 'other'; choose another scoring"):
        evaluate(replace(trained, stage1=None), alone, features, tasks=["pitch"], settings=Settings(scoring="prior"))


def test_steps_are_one_for_each_method_and_split(trained: Trained, examples: list[Example], features: ByStage) -> None:
    setup = Setup(trained, features, Settings(), 0)
    unseen = [replace(example, split="unseen") for example in examples[:2]]
    names = [step.name for step in closed_set_steps(setup, "pitch", [*examples, *unseen])]
    assert names == [
        f"pitch, {split}, {method}"
        for split in ("test", "unseen")
        for method in ("stage2", "stage1", "probe", "chance")
    ]


def test_truth_and_what_nobody_checked(trained: Trained, examples: list[Example], features: ByStage) -> None:
    clips = [
        replace(examples[1], labels=("low",), unknown=("high",)),
        replace(examples[3], labels=("middle", "high")),
    ]
    task = ClosedTask(Setup(trained, features, Settings(), 0), "pitch", clips)
    assert (task.labels, task.single) == (["high", "low", "middle"], False)
    held = HeldOut(task, clips)
    assert held.truth.tolist() == [[False, True, False], [True, False, True]]
    assert held.known.tolist() == [[False, True, True], [True, True, True]]
    assert held.clips.labels is None


def test_the_encoders_classes_are_a_bound_where_they_cover_the_labels(
    trained: Trained, examples: list[Example], features: ByStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores by hand: the mean over patches of the sigmoid, and the best of the classes that a label may mean."""
    weight = torch.randn(5, 16, generator=torch.Generator().manual_seed(3))
    classes = NamedClasses(tuple("abcde"), weight, torch.zeros(5), tokens=7, samples=2240, least=None)
    meant = {label: [number, number + 1] for number, label in enumerate(NAMES)}
    monkeypatch.setattr(closed_set, "classes_called", lambda label, names: meant[label])
    task = ClosedTask(Setup(trained, features, Settings(), 0, classes), "pitch", examples)
    tested = HeldOut(task, task.of_split("test"))
    ((part,),) = [list(closed_set._encoder(tested, classes))]

    right = 0
    for example in tested.examples:
        patches = features[2].windows(example)[0].split(7)
        heard = torch.stack([(patch.mean(dim=0) @ weight.T).sigmoid() for patch in patches]).mean(dim=0)
        scores = [float(heard[meant[label]].max()) for label in NAMES]
        right += NAMES[int(np.argmax(scores))] == example.labels[0]
    (row,) = [row for row in part.rows if row.metric == "accuracy"]
    assert row.method == "encoder"
    assert row.value == pytest.approx(right / len(tested.examples))

    monkeypatch.setattr(closed_set, "classes_called", lambda label, names: [] if label == NAMES[0] else [0])
    assert list(closed_set._encoder(tested, classes)) == []
