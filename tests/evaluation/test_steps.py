"""A step that fails takes nothing with it that was measured."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from mint.evaluation.records import Evaluation, join, measured_part
from mint.evaluation.results.file import Row
from mint.evaluation.results.measures import ClipSet, mean_measure
from mint.evaluation.steps import Step, run_steps
from mint.types import Example, MintError

CLIPS = [Example(str(clip), Path("a.wav"), "notes", "test", "corpus", labels=("a",)) for clip in range(3)]


def part(metric: str, method: str = "stage2") -> Evaluation:
    clips = ClipSet("notes", "test", ["0", "1", "2"])
    return measured_part([mean_measure(clips, metric, method, [0.0, 1.0, 1.0])], CLIPS, seed=0)


def works() -> Iterator[Evaluation]:
    yield part("accuracy")


def fails_later() -> Iterator[Evaluation]:
    yield part("first")
    raise RuntimeError("out of\n memory")


def is_refused() -> Iterator[Evaluation]:
    yield from ()
    raise MintError("there is only one class; give two")


def is_not_finite() -> Iterator[Evaluation]:
    yield Evaluation(rows=[Row("notes", "test", "m", "stage1", float("nan"), None, None, 3)])
    yield part("after")


def test_what_was_measured_counts_and_what_failed_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [
        Step("a", fails_later()),
        Step("b", is_refused()),
        Step("c", is_not_finite()),
        Step("d", works()),
    ]
    evaluation = run_steps(steps)
    assert [row.metric for row in evaluation.rows] == ["first", "after", "accuracy"]
    assert evaluation.not_computed == {
        "a": "RuntimeError: out of memory",
        "b": "there is only one class; give two",
        "notes, test, m, stage1": "notes / test / m / stage1 is nan [None, None]; only finite values are written",
    }
    assert "not computed: a (RuntimeError: out of memory)\n" in capsys.readouterr().err


@pytest.mark.parametrize(("step", "kind"), [(fails_later, None), (is_refused, MintError)])
def test_the_first_failure_is_raised_where_nothing_of_the_stages_was_measured(
    step: Callable[[], Iterator[Evaluation]], kind: type[Exception] | None
) -> None:
    def baseline() -> Iterator[Evaluation]:
        yield part("accuracy", "probe")

    steps = [Step("a", step()), Step("b", baseline()), Step("c", is_refused())]
    if kind is None:
        assert [row.metric for row in run_steps(steps).rows] == ["first", "accuracy"]
    else:
        with pytest.raises(kind):
            run_steps(steps)


def test_an_interruption_is_no_failure() -> None:
    def interrupted() -> Iterator[Evaluation]:
        yield from ()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_steps([Step("a", works()), Step("b", interrupted())])


def test_a_clip_of_several_steps_and_tasks_counts_once() -> None:
    captions = Evaluation(measured={"captioning": CLIPS[1:]})
    whole = join([part("a"), part("b", "stage1"), captions])
    assert {task: len(clips) for task, clips in whole.measured.items()} == {"notes": 3, "captioning": 2}
    assert whole.clips() == CLIPS
    assert whole.record()["corpora"] == {"notes": ["corpus"], "captioning": ["corpus"]}
    assert join([]) == Evaluation()


def test_steps_side_by_side_give_the_same_in_the_same_order(capsys: pytest.CaptureFixture[str]) -> None:
    def steps() -> list[Step]:
        return [Step("a", fails_later()), Step("b", is_refused(), 7), Step("c", is_not_finite(), 9), Step("d", works())]

    alone, together = run_steps(steps()), run_steps(steps(), workers=2)
    assert together.rows == alone.rows
    assert together.not_computed == alone.not_computed
    assert capsys.readouterr().err.count("out of memory") == 2


def test_two_steps_run_at_a_time_the_largest_first_with_half_of_the_threads() -> None:
    both = threading.Barrier(2, timeout=10)
    begun: list[str] = []
    threads = torch.get_num_threads()
    shares: list[int] = []

    def meets(name: str) -> Iterator[Evaluation]:
        begun.append(name)
        shares.append(torch.get_num_threads())
        both.wait()  # one after the other, they would never meet
        yield part("accuracy")

    torch.set_num_threads(4)
    try:
        run_steps([Step("small", meets("small"), 1), Step("large", meets("large"), 9)], workers=2)
        assert begun[0] == "large"
        assert shares == [2, 2]
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(threads)


def test_an_interruption_ends_the_step_beside_it() -> None:
    both = threading.Barrier(2, timeout=10)
    ended: list[str] = []

    def step() -> Iterator[Evaluation]:
        try:
            both.wait()
            if threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt
            for _ in range(1000):
                time.sleep(0.01)
            ended.append("by itself")
        except KeyboardInterrupt:
            ended.append("interrupted")
            raise
        yield part("accuracy")

    with pytest.raises(KeyboardInterrupt):
        run_steps([Step("a", step()), Step("b", step())], workers=2)
    assert ended == ["interrupted", "interrupted"]
