"""The methods of `Mint` that yield answers one by one: those of single calls, in order, errors among them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from mint import Mint, predict
from mint.data.manifests.manifest import read_manifest
from mint.types import MintError
from tiny_runs import LABELS, shared_run

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = list(LABELS)
SHORT: dict[str, Any] = {"max_new_tokens": 6}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from shared_run(tmp_path_factory, max_steps=20)


@pytest.fixture(scope="module")
def mint(run: Path) -> Mint:
    return Mint.from_pretrained(run)


@pytest.fixture(scope="module")
def paths(run: Path) -> list[Path]:
    return sorted(run.parent.glob("*.wav"))


def test_each_gives_what_single_calls_give(mint: Mint, paths: list[Path]) -> None:
    assert [one.value for one in mint.caption_each(iter(paths), **SHORT)] == [mint.caption(p, **SHORT) for p in paths]
    asked = [one.get() for one in mint.ask_each(paths, "The pitch is", **SHORT)]
    assert asked == [mint.ask(path, "The pitch is", **SHORT) for path in paths]
    for answer, path in zip(mint.embed_each(paths), paths, strict=True):
        assert answer.audio == path
        torch.testing.assert_close(answer.get(), mint.embed_audio(path))
    for method in ("vocabulary", "similarity"):
        scores = [one.get() for one in mint.classify_each(paths, NAMES, method=method)]
        for one, path in zip(scores, paths, strict=True):
            assert one == pytest.approx(mint.classify(path, NAMES, method=method), abs=1e-4)
    means = [one.get() for one in mint.classify_each(paths, NAMES, scoring="mean")]
    assert means[1] == pytest.approx(mint.classify(paths[1], NAMES, scoring="mean"), abs=1e-4)


def test_a_bad_clip_is_an_answer_and_not_the_end(mint: Mint, paths: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    mixed = [tmp_path / "text.wav", paths[0], tmp_path / "missing.wav", paths[1]]
    answers = list(mint.caption_each(mixed, **SHORT))
    assert [answer.audio for answer in answers] == mixed
    assert [answer.value for answer in answers] == [None, *mint.caption(paths[:1], **SHORT), None, answers[3].value]
    assert [type(answer.error) for answer in answers] == [MintError, type(None), MintError, type(None)]
    with pytest.raises(MintError, match=r"missing.wav: no such audio file"):
        answers[2].get()
    assert list(mint.caption_each([])) == []
    assert [answer.value for answer in mint.embed_each(mixed[:1])] == [None]


def test_a_clip_of_a_manifest_is_a_part_of_its_file(mint: Mint, run: Path) -> None:
    examples = list(read_manifest(run.parent / "tones.jsonl"))[:3]
    assert [one.get() for one in mint.caption_each(examples, **SHORT)] == [
        mint.caption(example.audio, **SHORT) for example in examples
    ]


def test_the_first_answers_come_before_the_last_clips_are_read(mint: Mint, paths: list[Path]) -> None:
    taken: list[Path] = []

    def clips() -> Iterator[Path]:
        for path in paths * 20:
            taken.append(path)
            yield path

    answers = mint.embed_each(clips())
    next(answers)
    assert len(taken) <= 1 + 16 + 3
    answers.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mint-read")]


def test_groups_grow_and_stay_small(mint: Mint, paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    embed = predict.embed_clips

    def count(stage: Any, clips: Any) -> Any:
        sizes.append(len(clips))
        return embed(stage, clips)

    monkeypatch.setattr(predict, "embed_clips", count)
    assert len(list(mint.embed_each(paths * 10))) == 120
    assert sizes == [1, 2, 4, 8, 16, 32, 32, 25]
    sizes.clear()
    mint.embed_audio(paths * 3)
    assert sizes == [32, 4]


def test_what_is_drawn_for_a_clip_depends_on_the_seed_alone(mint: Mint, paths: list[Path]) -> None:
    drawn: dict[str, Any] = {"do_sample": True, "top_k": 0, "max_new_tokens": 12, "seed": 3}
    alone = [mint.caption(path, **drawn) for path in paths[:5]]
    assert alone != [mint.caption(path, **drawn | {"seed": 4}) for path in paths[:5]]
    assert mint.caption(list(paths[:5]), **drawn) == alone
    assert [one.get() for one in mint.caption_each(paths[:5], **drawn)] == alone


def test_mistakes_are_told_before_the_first_answer_is_asked_for(mint: Mint, paths: list[Path]) -> None:
    for call, message in (
        (lambda: mint.caption_each(paths, num_beans=2), "did you mean 'num_beams'"),
        (lambda: mint.ask_each(paths, " "), "the prompt is ' '"),
        (lambda: mint.classify_each(paths, []), "the list of labels is empty"),
        (lambda: mint.classify_each(paths, NAMES, scoring="prior"), "'prior' compares all clips of a list"),
    ):
        with pytest.raises(MintError, match=message):
            call()


def test_several_threads_go_through_generators_at_once(mint: Mint, paths: list[Path]) -> None:
    expected = [mint.caption(path, **SHORT) for path in paths]

    def work(_: int) -> list[str]:
        return [answer.get() for answer in mint.caption_each(paths, **SHORT)]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [expected] * 4
