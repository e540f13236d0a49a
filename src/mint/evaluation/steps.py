"""Steps of an evaluation: one that fails takes nothing with it that was measured."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

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
    run: Callable[[], Iterator[Evaluation]]
    """Yields the parts of the evaluation that it measures, each as soon as it is there."""


def run_steps(steps: Iterable[Step]) -> Evaluation:
    """Run the steps and put what they measure together.

    A step that fails is named on standard error and under `not_computed`, with the reason; what it measured before,
    and all other steps, count.

    Raises:
        MintError: as the first step that failed, where no step has measured anything of the trained stages.
    """
    parts: list[Evaluation] = []
    failures: list[Exception] = []
    for step in steps:
        try:
            for part in step.run():
                for row in part.rows:
                    check_row(row)
                announce(part.not_computed)
                parts.append(part)
        except Exception as error:  # whatever it is, hours of other steps must not be lost
            failures.append(error)
            part = Evaluation(not_computed={step.name: reason_of(error)})
            announce(part.not_computed)
            parts.append(part)

    evaluation = join(parts)
    if failures and not any(row.method in TRAINED for row in evaluation.rows):
        raise failures[0]
    return evaluation


def reason_of(error: Exception) -> str:
    """Return why something failed, in one line."""
    text = one_line(str(error))
    return text if isinstance(error, MintError) else f"{type(error).__name__}: {text}"


def announce(not_computed: Mapping[str, str]) -> None:
    """Say on standard error what is not computed; what lacks the same thing is named together."""
    for reason, names in by_reason(not_computed).items():
        tqdm.write(f"not computed: {', '.join(names)} ({reason})", file=sys.stderr)
