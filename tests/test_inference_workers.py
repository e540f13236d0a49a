"""One `Mint` in several threads, and in other processes: every call gives what it gives alone."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from mint import Mint
from mint.inference import loading
from tiny_runs import LABELS, shared_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAMES = list(LABELS)
DRAWN: dict[str, Any] = {"do_sample": True, "top_k": 0, "max_new_tokens": 8}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from shared_run(tmp_path_factory, max_steps=5)


@pytest.fixture(scope="module")
def paths(run: Path) -> list[Path]:
    return sorted(run.parent.glob("*.wav"))


def calls(paths: list[Path]) -> list[Callable[[Mint], Any]]:
    """Sixteen calls of every kind; those that draw have seeds of their own."""
    return [
        *(lambda mint, path=path: mint.caption(path, max_new_tokens=8) for path in paths[:3]),
        *(lambda mint, seed=seed: mint.caption(paths[0], seed=seed, **DRAWN) for seed in range(4)),
        *(lambda mint, path=path: mint.classify(path, NAMES) for path in paths[:3]),
        *(lambda mint, path=path: mint.classify(path, NAMES, method="similarity") for path in paths[:3]),
        lambda mint: mint.search("a high tone", list(paths)),
        lambda mint: mint.embed_text(NAMES).tolist(),
        lambda mint: mint.ask(paths[1], "The pitch is", num_beams=2, max_new_tokens=8),
    ]


def test_first_calls_of_several_threads_load_once_and_give_what_they_give_alone(
    run: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Mint.from_pretrained(run)
    expected = [call(alone) for call in calls(paths)]
    assert len({str(text) for text in expected[3:7]}) == 4  # the seeds matter
    loads: list[str] = []

    def slowly(name: str) -> None:
        load = getattr(loading, name)

        def count(*arguments: Any) -> Any:
            loads.append(name)
            time.sleep(0.05)  # every thread comes to the door while the first one loads
            return load(*arguments)

        monkeypatch.setattr(loading, name, count)

    for name in ("load_stage1", "load_stage2", "build_language"):
        slowly(name)
    mint = Mint.from_pretrained(run)
    start = threading.Barrier(8)

    def work(call: Callable[[Mint], Any]) -> Any:
        start.wait(10)
        return call(mint)

    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(work, call) for call in calls(paths)]
        assert [job.result() for job in jobs] == expected
    assert sorted(loads) == ["build_language", "load_stage1", "load_stage2"]


def test_moving_while_others_compute(run: Path, paths: list[Path]) -> None:
    mint = Mint.from_pretrained(run, "cpu")
    expected = mint.classify(paths, NAMES)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(mint.classify, list(paths), NAMES) for _ in range(8)]
        moves = [pool.submit(mint.to, "cpu") for _ in range(4)]
        assert [answer.result() for answer in answers] == [expected] * 8
        assert all(move.result() is mint for move in moves)


def answers(mint: Mint, path: Path) -> tuple[Any, ...]:
    """What a worker gives back."""
    return (
        mint.classify(path, NAMES),
        mint.classify(path, NAMES, method="similarity"),
        mint.caption(path, max_new_tokens=8),
    )


@pytest.mark.parametrize("used", [False, True], ids=["before its first use", "after use"])
@pytest.mark.parametrize(
    "copied", [lambda mint: pickle.loads(pickle.dumps(mint)), copy.deepcopy], ids=["pickle", "copy"]
)
def test_copies_answer_alike_and_are_models_of_their_own(
    run: Path, paths: list[Path], used: bool, copied: Callable[[Mint], Mint]
) -> None:
    mint = Mint.from_pretrained(run)
    expected = answers(Mint.from_pretrained(run), paths[0])
    if used:
        assert answers(mint, paths[0]) == expected
    other = copied(mint)
    assert answers(other, paths[0]) == expected

    # A copy shares no weights, and its frozen model stays frozen and in eval mode.
    with torch.no_grad():
        for stage in (other._stage1, other._stage2):
            assert stage is not None
            for parameter in stage.model.parameters():
                parameter.zero_()
    language: Any = other.load_stage2().model.language
    language.model.train()
    assert not any(module.training for module in language.model.modules())
    assert not any(parameter.requires_grad for parameter in language.model.parameters())
    assert answers(mint, paths[0]) == expected


@pytest.mark.parametrize("method", ["spawn", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_a_worker_process_answers_alike(run: Path, paths: list[Path], method: str) -> None:
    mint = Mint.from_pretrained(run)
    expected = answers(mint, paths[0])
    context: Any = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, context) as pool:
        assert pool.submit(answers, mint, paths[0]).result(120) == expected
