"""Retrieval ranks clips by captions, and a re-ranking that fails does not take the plain ranking with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mint import predict
from mint.builders.stages import Trained, TrainedStage
from mint.evaluation.audio_text import SHOWN, retrieval_steps
from mint.evaluation.records import Setup
from mint.evaluation.settings import Settings
from mint.evaluation.steps import run_steps
from mint.types import Example

CLIPS = [
    Example(str(n), Path("a.wav"), "t", "test", "corpus", captions=tuple(f"{n} {word}" for word in range(1 + n % 2)))
    for n in range(SHOWN + 2)
]
"""Clips with one and two captions in turn, which tell the clip's number."""


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> Setup:
    """A stage 1 that places each clip and its captions in the same corner of the shared space."""
    corners = torch.eye(len(CLIPS))

    def embed_texts(_: Any, texts: list[str]) -> Tensor:
        return corners[[int(text.split()[0]) for text in texts]]

    monkeypatch.setattr(predict, "embed_clips", lambda *_: corners[:, None])
    monkeypatch.setattr(predict, "embed_texts", embed_texts)
    model: Any = SimpleNamespace(alm=True, temperature=torch.tensor(0.1))
    trained = Trained(TrainedStage(model, None, 40, 30.0), None)
    features: Any = {1: None}
    return Setup(trained, features, Settings(reranked=10), 0)


def test_every_caption_finds_its_clip(setup: Setup) -> None:
    plain = replace(setup, settings=Settings())
    evaluation = run_steps(retrieval_steps(plain, CLIPS))
    found = {row.metric: row for row in evaluation.rows if row.method == "stage1"}
    assert {row.value for row in found.values()} == {1.0}
    assert {row.n for row in found.values()} == {len(CLIPS)}
    assert {row.method for row in evaluation.rows} == {"stage1", "chance"}
    assert evaluation.measured == {"retrieval": CLIPS}

    (shown,) = evaluation.similarities
    assert list(shown.captions) == [f"{clip} 0" for clip in range(SHOWN)]
    assert torch.equal(torch.tensor(shown.scores), torch.eye(SHOWN))


def test_a_matching_head_that_fails_leaves_the_plain_ranking(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(predict, "Matcher", fail)
    evaluation = run_steps(retrieval_steps(setup, CLIPS))
    assert {row.method for row in evaluation.rows} == {"stage1", "chance"}
    assert evaluation.not_computed == {"retrieval": "RuntimeError: out of memory"}
