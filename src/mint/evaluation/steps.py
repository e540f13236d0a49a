"""Steps of an evaluation: one that fails takes nothing with it that was measured.

On a CPU two steps run side by side, each with half of the threads: two cores wait for one another in each small product
of a language model, but not between steps, and some steps have use for one core alone.
"""

from __future__ import annotations

import ctypes
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Thread

import torch
from tqdm.auto import tqdm

from mint.evaluation.records import Evaluation, by_reason, join
from mint.evaluation.results.file import check_row
from mint.evaluation.results.measures import TRAINED
from mint.text_files import one_line
from mint.types import MintError


@dataclass(frozen=True)
class Step:
    """Something that can be measured by itself."""

    name: str
    """Task, split and method."""
    parts: Iterator[Evaluation]
    """A generator of what it measures, which measures nothing before it is asked for its first part."""
    size: int = 0
    """Roughly what its time grows with (clips times labels or tokens): the largest steps begin first."""


@dataclass(frozen=True)
class _Outcome:
    """What a step gave."""

    parts: list[Evaluation]
    failures: list[Exception]


def run_steps(steps: Iterable[Step], workers: int = 1) -> Evaluation:
    """Run the steps and put what they measure together, in their order.

    A step that fails is named on standard error and under `not_computed`, with the reason; what it measured before,
    and all other steps, count.

    Args:
        steps: the steps.
        workers: how many of them run at a time; they share PyTorch's threads.

    Raises:
        MintError: as the first step that failed, where no step has measured anything of the trained stages.
    """
    parts: list[Evaluation] = []
    failures: list[Exception] = []
    for outcome in _outcomes(list(steps), workers):
        parts += outcome.parts
        failures += outcome.failures

    # Baselines alone are no evaluation of the run.
    evaluation = join(parts)
    if failures and not any(row.method in TRAINED for row in evaluation.rows):
        raise failures[0]
    return evaluation


def _outcomes(steps: Sequence[Step], workers: int) -> list[_Outcome]:
    """Run the steps, `workers` at a time, and return what each gave, in their order."""
    if workers < 2:
        return [_run(step) for step in steps]

    outcomes: dict[int, _Outcome] = {}
    errors: list[BaseException] = []
    # Begun last, a large step would run alone for long.
    waiting = deque(sorted(range(len(steps)), key=lambda index: -steps[index].size))

    def work() -> None:
        try:
            while waiting and not errors:
                index = waiting.popleft()
                outcomes[index] = _run(steps[index])
        except IndexError:  # another worker took the last one
            pass
        except BaseException as error:
            errors.append(error)

    with _shared_threads(workers):
        others = [Thread(target=work, name=f"evaluation-{number}") for number in range(1, workers)]
        for thread in others:
            thread.start()
        # This thread is a worker too, and the one that an interruption comes to.
        work()
        if errors:
            _interrupt(others)
        for thread in others:
            thread.join()

    if errors:
        raise errors[0]
    return [outcomes[index] for index in range(len(steps))]


def _run(step: Step) -> _Outcome:
    """Run a step to its end or to its failure."""
    outcome = _Outcome([], [])
    for part in guarded([step.name], step.parts, outcome.failures):
        outcome.parts.append(_only_finite(part))
        # Said at once, not at the end: whoever waits may install what is missing and start again.
        announce(outcome.parts[-1].not_computed)
    return outcome


@contextmanager
def _shared_threads(workers: int) -> Iterator[None]:
    """Give each worker its share of PyTorch's threads inside the block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // workers))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _interrupt(threads: Sequence[Thread]) -> None:
    """Raise KeyboardInterrupt in threads, before their next line of Python: a step may have hours to go."""
    for thread in threads:
        if thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(KeyboardInterrupt)
            )


def guarded(
    names: Sequence[str], parts: Iterator[Evaluation], failures: list[Exception] | None = None
) -> Iterator[Evaluation]:
    """Yield parts of an evaluation; if one cannot be made, yield in its place what is not computed, and end.

    Args:
        names: what is not computed then.
        parts: the parts, as they are measured.
        failures: receives the error, if one is given.
    """
    try:
        yield from parts
    except Exception as error:  # whatever it is, hours of measuring must not be lost
        if failures is not None:
            failures.append(error)
        yield Evaluation(not_computed=dict.fromkeys(names, reason_of(error)))


def _only_finite(part: Evaluation) -> Evaluation:
    """Return a part without the rows that no results file can hold; each of them is named."""
    rows, refused = [], {}
    for row in part.rows:
        try:
            # Now, since the results file is written whole or not at all: one NaN would take all other rows with it.
            check_row(row)
            rows.append(row)
        except MintError as error:
            refused[", ".join(row.key)] = str(error)
    return replace(part, rows=rows, not_computed={**part.not_computed, **refused}) if refused else part


def reason_of(error: Exception) -> str:
    """Return why something failed, in one line."""
    text = one_line(str(error))
    return text if isinstance(error, MintError) else f"{type(error).__name__}: {text}"


def announce(not_computed: Mapping[str, str]) -> None:
    """Say on standard error what is not computed; what lacks the same thing is named together."""
    for reason, names in by_reason(not_computed).items():
        tqdm.write(f"not computed: {', '.join(names)} ({reason})", file=sys.stderr)
