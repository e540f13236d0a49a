"""Labels calibrated by reference clips: what a run keeps, what it takes off, and who asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mint import Mint, hub, predict
from mint.builders.stages import TrainedStage, load_trained
from mint.data.features.reference import REFERENCE, ReferenceClips
from mint.evaluation.evaluate_run import evaluate_run
from mint.evaluation.settings import Settings
from mint.model.stage2 import Stage2
from mint.run_folder import find_stages
from mint.types import MintError
from tiny_runs import LABELS, recipe, train_both, train_recipe

PROMPT = "The pitch is"
NAMES = [*LABELS, "a rather long answer"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `run`, which keeps two reference clips, and `plain`, which keeps none."""
    folder = tmp_path_factory.mktemp("calibration")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINT_CACHE", str(folder / "cache"))
        train_both(folder, max_steps=2)
        (folder / "run").rename(folder / "plain")
        wanted = recipe(2, folder / "tones.jsonl", max_steps=2)
        start = str(folder / "plain" / "stage1")
        train_recipe(replace(wanted, start=start, reference_clips=2), folder / "run" / "stage2")
        yield folder


@pytest.fixture(scope="module")
def stage2(folder: Path) -> TrainedStage[Stage2]:
    stage = load_trained(find_stages(folder / "run")).stage2
    assert stage is not None
    return stage


def naive_shares(stage2: TrainedStage[Stage2], clip: Tensor) -> Tensor:
    """The candidates' shares for one clip, one candidate at a time."""
    likelihoods = []
    for name in NAMES:
        sums, counts = predict.rank_vocabulary(stage2, [[clip]], PROMPT, [name])
        likelihoods.append((sums[0, 0] / counts[0]).exp())
    return torch.stack(likelihoods) / torch.stack(likelihoods).sum()


def test_a_run_keeps_clips_of_each_instruction_but_that_for_captions(stage2: TrainedStage[Stage2]) -> None:
    assert stage2.reference is not None
    assert stage2.reference.prompts == [PROMPT] * 2
    first, second = stage2.reference.features
    assert first.shape[1] == stage2.model.bridge.audio_norm.normalized_shape[0]
    assert first.shape != second.shape or not first.equal(second)


def test_scores_are_shares_above_those_in_the_reference_clips(stage2: TrainedStage[Stage2]) -> None:
    assert stage2.reference is not None
    clip = torch.randn(7, stage2.reference.features[0].shape[1], generator=torch.Generator().manual_seed(0))
    shares = [naive_shares(stage2, one.float()) for one in stage2.reference.features]
    expected = naive_shares(stage2, clip).log() - torch.stack(shares).mean(dim=0).log()

    sums, counts = predict.rank_vocabulary(stage2, [[clip]], PROMPT, NAMES)
    scores = predict.finish_scores(sums, counts, "calibrated", predict.label_bias(stage2, PROMPT, NAMES))
    torch.testing.assert_close(scores[0], expected, atol=1e-4, rtol=1e-4)


def test_every_verb_takes_the_scoring_that_the_run_is_meant_for(folder: Path, stage2: TrainedStage[Stage2]) -> None:
    mint = Mint.from_pretrained(folder / "run")
    path = folder / "low0.wav"
    by_itself = mint.classify(path, NAMES, prompt=PROMPT)
    assert by_itself == mint.classify(path, NAMES, prompt=PROMPT, scoring="calibrated")
    bias = predict.label_bias(stage2, PROMPT, NAMES)
    means = mint.classify(path, NAMES, prompt=PROMPT, scoring="mean")
    expected = torch.tensor(list(means.values())).log_softmax(dim=0) - bias
    np.testing.assert_allclose(list(by_itself.values()), expected, atol=1e-4)

    settings = {}
    cases: list[tuple[str, predict.Scoring | None]] = [("run", None), ("plain", None), ("run", "sum")]
    for name, chosen in cases:
        output = folder / f"{name}-{chosen}.json"
        results, _ = evaluate_run(folder / name, ["pitch"], settings=Settings(scoring=chosen), output=output)
        settings[name, chosen] = results.extra["settings"]["scoring"]
    assert settings == {("run", None): "calibrated", ("plain", None): "sum", ("run", "sum"): "sum"}


def test_clips_of_another_instruction_stand_in() -> None:
    clips = [torch.full((1, 2), float(number)) for number in range(6)]
    reference = ReferenceClips(["a", "a", "a", "b", "b", "b"], clips)
    assert [clip[0, 0].item() for clip in reference.asked("b")] == [3, 4, 5]
    assert [clip[0, 0].item() for clip in reference.asked("c")] == [0, 2, 4]


def test_they_are_kept_as_they_are(tmp_path: Path) -> None:
    reference = ReferenceClips(["a", "b"], [torch.randn(3, 2).half(), torch.randn(1, 2).half()])
    reference.save(tmp_path)
    found = ReferenceClips.load(tmp_path)
    assert found is not None
    assert found.prompts == ["a", "b"]
    assert all(one.equal(other) for one, other in zip(found.features, reference.features, strict=True))
    assert len(load_file(tmp_path / REFERENCE)) == 2
    assert ReferenceClips.load(tmp_path / "none") is None


def test_a_run_without_them_says_so(folder: Path) -> None:
    mint = Mint.from_pretrained(folder / "plain")
    with pytest.raises(MintError, match=r"this run keeps none; train it with `reference_clips: 32`"):
        mint.classify(folder / "low0.wav", NAMES, scoring="calibrated")


def test_they_go_where_the_weights_go(folder: Path, tmp_path: Path) -> None:
    hub.save(find_stages(folder / "run"), tmp_path / "copy")
    assert (tmp_path / "copy" / "stage2" / REFERENCE).is_file()
    hub.save(find_stages(folder / "plain"), tmp_path / "plain")
    assert not (tmp_path / "plain" / "stage2" / REFERENCE).exists()
