"""Timelines of `Mint`: right times against a naive loop over pieces that are cut out one by one."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
import torch

from mint import Mint
from mint.inference import Stretch
from mint.types import MintError
from tiny_runs import LABELS, RATE, train_both

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAMES = list(LABELS)
EVENTS = [("low", 0.0, 4.0), ("high", 4.0, 7.0), ("low", 7.0, 9.0), ("middle", 9.0, 12.3)]
"""What is heard in the recording, with times in seconds."""


@pytest.fixture(scope="module")
def mint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mint]:
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINT_CACHE", str(folder / "cache"))
        yield Mint.from_pretrained(train_both(folder, max_steps=30))


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones that follow one another."""
    samples = np.zeros(round(EVENTS[-1][2] * RATE))
    times = np.arange(len(samples)) / RATE
    for name, start, end in EVENTS:
        is_on = (times >= start) & (times < end)
        samples[is_on] = 0.5 * np.sin(2 * np.pi * LABELS[name] * times[is_on])
    path = tmp_path_factory.mktemp("recording") / "tones.wav"
    soundfile.write(path, samples + 0.02 * np.random.default_rng(0).standard_normal(len(samples)), RATE)
    return path


def naively(
    path: Path, every: float, hop: float, answer: Callable[[Any], tuple[str, float | None]]
) -> list[tuple[float, float, str, float | None]]:
    """A plain loop: the samples of each piece, its answer, the middle of it; neighbours that agree are joined."""
    samples, rate = soundfile.read(path, dtype="float32")
    total = len(samples) / rate
    said = []
    for index in itertools.count():
        start = index * hop
        first = round(start * rate)
        said.append((start, *answer((samples[first : first + round(every * rate)], rate))))
        if first + round(every * rate) >= len(samples):
            break

    joined: list[tuple[float, float, str, float | None]] = []
    groups = [list(group) for _, group in itertools.groupby(said, key=lambda one: one[1])]
    begins = [0.0, *(group[0][0] + (every - hop) / 2 for group in groups[1:])]
    for group, begin, end in zip(groups, begins, [*begins[1:], total], strict=True):
        scores = [score for _, _, score in group if score is not None]
        joined.append((begin, end, group[0][1], sum(scores) / len(scores) if scores else None))
    return joined


def same(found: list[Stretch], expected: list[tuple[float, float, str, float | None]]) -> bool:
    assert [one.answer for one in found] == [answer for _, _, answer, _ in expected]
    assert [one.start for one in found] == pytest.approx([start for start, _, _, _ in expected])
    assert [one.end for one in found] == pytest.approx([end for _, end, _, _ in expected])
    for one, (_, _, _, score) in zip(found, expected, strict=True):
        assert one.score == (None if score is None else pytest.approx(score, abs=1e-4))
    return True


@pytest.mark.parametrize(("every", "hop"), [(1.0, 1.0), (1.0, 0.25), (2.0, 0.5), (30.0, 30.0), (0.7, 0.7)])
def test_labels_are_those_of_a_naive_loop(mint: Mint, recording: Path, every: float, hop: float) -> None:
    def best(clip: Any) -> tuple[str, float]:
        scores = mint.classify(clip, NAMES, prompt="The pitch is", method="similarity")
        probabilities = torch.tensor(list(scores.values())).softmax(dim=0)
        return NAMES[int(probabilities.argmax())], probabilities.max().item()

    found = list(mint.timeline(recording, every, hop, labels=NAMES, prompt="The pitch is", method="similarity"))
    assert same(found, naively(recording, every, hop, best))
    assert found[0].start == 0
    assert found[-1].end == pytest.approx(12.3)
    for one, following in itertools.pairwise(found):
        assert one.end == following.start
        assert one.answer != following.answer


def test_captions_and_answers_are_those_of_a_naive_loop(mint: Mint, recording: Path) -> None:
    found = list(mint.timeline(recording, 1.5, max_new_tokens=3))
    assert same(found, naively(recording, 1.5, 1.5, lambda clip: (mint.caption(clip, max_new_tokens=3), None)))
    asked = list(mint.timeline(recording, 3.0, prompt="The pitch is", max_new_tokens=3))
    expected = naively(recording, 3.0, 3.0, lambda clip: (mint.ask(clip, "The pitch is", max_new_tokens=3), None))
    assert same(asked, expected)


def test_a_query_has_a_cosine_for_each_piece(mint: Mint, recording: Path) -> None:
    found = list(mint.timeline(recording, 2.0, 1.0, query="a high tone"))
    samples, rate = soundfile.read(recording, dtype="float32")
    assert len(found) == 12
    for index, one in enumerate(found):
        clip = (samples[index * rate : (index + 2) * rate], rate)
        [(_, cosine)] = mint.search("a high tone", [clip])
        assert one.score == pytest.approx(cosine, abs=1e-5)
        assert one.answer == "a high tone"
    assert [one.start for one in found] == [0.0, *(index + 0.5 for index in range(1, 12))]


class ByPitch:
    """Labels by the loudest frequency, in the place of a model that would have learnt it."""

    def __init__(self, mint: Mint, monkeypatch: pytest.MonkeyPatch) -> None:
        from mint.inference import timeline
        from mint.inference.questions import Answer

        def answer_each(_: Any, question: Any, clips: Any) -> Iterator[Answer[Any]]:
            for clip in clips:
                spectrum = np.abs(np.fft.rfft(clip.samples))
                pitch = float(spectrum.argmax()) * clip.rate / len(clip.samples)
                name = min(NAMES, key=lambda name: abs(LABELS[name] - pitch))
                yield Answer(clip, timeline.Said(name, 1.0))

        monkeypatch.setattr(timeline, "answer_each", answer_each)
        self.mint = mint


@pytest.mark.parametrize(("every", "hop"), [(0.5, 0.5), (1.0, 0.25), (1.5, 0.1), (2.0, 0.5)])
def test_times_are_right_to_one_hop(
    mint: Mint, recording: Path, every: float, hop: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the length of a piece: an answer stands for its middle."""
    found = list(ByPitch(mint, monkeypatch).mint.timeline(recording, every, hop, labels=NAMES))
    assert [one.answer for one in found] == [name for name, _, _ in EVENTS]
    for one, (_, start, end) in zip(found, EVENTS, strict=True):
        assert abs(one.start - start) <= hop
        assert abs(one.end - end) <= hop


def test_stretches_come_before_the_recording_ends(mint: Mint, recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stretches = ByPitch(mint, monkeypatch).mint.timeline(recording, 0.5, labels=NAMES)
    assert next(stretches) == Stretch(0.0, 4.0, "low", 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda mint, path: mint.timeline(path, 0), "every is 0; give seconds above 0"),
        (lambda mint, path: mint.timeline(path, "1"), "every is '1'; give seconds"),
        (lambda mint, path: mint.timeline(path, 1.0, 2.0), "a hop of 2 s leaves gaps"),
        (lambda mint, path: mint.timeline([path], 1.0), "a timeline is that of one recording"),
        (lambda mint, path: mint.timeline(path, 1.0, labels=[]), "the list of labels is empty"),
        (lambda mint, path: mint.timeline(path, 1.0, labels=["a"], query="b"), "labels or a query; leave one out"),
        (lambda mint, path: mint.timeline(path, 1.0, labels=["a"], num_beams=2), "num_beams: options of texts"),
        (lambda mint, path: mint.timeline(path, 1.0, query=" "), "the query is ' '"),
        (lambda mint, path: mint.timeline(path, 1.0, num_beans=2), "did you mean 'num_beams'"),
        (lambda mint, path: next(mint.timeline(f"{path}.wav", 1.0)), "no such audio file"),
        (lambda mint, path: next(mint.timeline((np.array([0.0, np.nan]), RATE), 1.0)), "NaN or infinite"),
    ],
)
def test_mistakes(mint: Mint, recording: Path, call: Any, message: str) -> None:
    with pytest.raises(MintError, match=message):
        call(mint, recording)
