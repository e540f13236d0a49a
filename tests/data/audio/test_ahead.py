"""Work in threads ahead of its use: order, how far ahead, and no thread that stays behind."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from mint.data.audio import ahead
from mint.data.audio.ahead import read_ahead

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def three_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "read_threads", lambda: 3)


def readers() -> int:
    return sum(thread.name.startswith("mint-read") for thread in threading.enumerate())


def test_results_come_in_the_order_of_the_items() -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * number

    assert list(read_ahead(range(12), slow_first)) == [(number, number * number) for number in range(12)]
    assert readers() == 0


def test_only_a_few_items_are_taken_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = read_ahead(items(), lambda number: number)
    for used in range(1, 20):
        next(results)
        assert len(taken) <= used + 5
    results.close()  # type: ignore[attr-defined]
    assert len(taken) < 30


def test_an_error_comes_in_its_turn() -> None:
    def fail(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    results = read_ahead(range(9), fail)
    assert [next(results), next(results)] == [(0, 0), (1, 1)]
    with pytest.raises(ValueError, match="two"):
        next(results)
    assert readers() == 0


def test_an_interruption_leaves_no_thread_and_begins_nothing_more() -> None:
    begun: list[int] = []

    def read(number: int) -> int:
        begun.append(number)
        time.sleep(0.01)
        return number

    results = read_ahead(range(1000), read)
    next(results)
    with pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    assert readers() == 0
    count = len(begun)
    time.sleep(0.05)
    assert len(begun) == count < 10
