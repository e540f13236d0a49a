"""Steps of an evaluation: one that fails takes nothing with it that was measured."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

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
        for part in guarded([step.name], step.parts, failures):
            parts.append(_only_finite(part))
            # Said at once, not at the end: whoever waits may install what is missing and start again.
            announce(parts[-1].not_computed)

    # Baselines alone are no evaluation of the run.
    evaluation = join(parts)
    if failures and not any(row.method in TRAINED for row in evaluation.rows):
        raise failures[0]
    return evaluation


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
