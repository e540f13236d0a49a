"""Two runs on the same clips: by how much they differ, and whether that is more than chance.

Both are resampled together (a paired bootstrap), which is sharper than their two intervals side by side: what makes a
clip hard is hard for both. Results files keep what each method was worth on each clip (see
`mint.evaluation.results.measures`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mint.evaluation.metrics.bootstrap import Interval, difference
from mint.evaluation.results.file import NOT_SHARES, Results, metric_title, show
from mint.evaluation.results.measures import Key, Measure, read_measures
from mint.types import MintError


@dataclass(frozen=True)
class Difference:
    """One metric of two runs on the clips that both measured."""

    task: str
    split: str
    metric: str
    method: str
    first: float
    second: float
    gap: Interval
    """`second` minus `first`, with its 95 % interval."""
    n: int
    """Clips that both measured."""
    dropped: int
    """Clips that one of them alone measured."""

    @property
    def differs(self) -> bool:
        """Whether the interval excludes 0."""
        return self.gap.low > 0 or self.gap.high < 0


def compare(first: Results, second: Results, *, seed: int = 0) -> list[Difference]:
    """Return the differences in everything that both runs measured, in the order of the first file.

    Args:
        first: of one run.
        second: of the other.
        seed: of the resampling.

    Raises:
        MintError: a file without values of single clips, no clip in common, two clips of one name, a clip with two
            truths.
    """
    ours, theirs = _measures(first, "first"), _measures(second, "second")
    found = []
    # A task that the two measured on other clips altogether is passed over: only where none is left is it an error.
    for key, measure in ours.items():
        if key in theirs and set(measure.clips.ids) & set(theirs[key].clips.ids):
            found.append(_difference(measure, theirs[key], seed))
    if not found:
        raise MintError("the two runs have no clip in common; compare runs on the same manifests")
    return found


def _difference(first: Measure, second: Measure, seed: int) -> Difference:
    rows_of = _rows_by_id(first, "first"), _rows_by_id(second, "second")
    # Sorted, so that the resampling by a seed does not depend on the order of clips in the files.
    common = sorted(rows_of[0].keys() & rows_of[1].keys())
    our_rows = np.array([rows_of[0][clip] for clip in common])
    their_rows = np.array([rows_of[1][clip] for clip in common])
    ours = tuple(array[our_rows] for array in first.arrays)
    theirs = tuple(array[their_rows] for array in second.arrays)

    # One label a clip: clips are resampled within their label, which must be the same in both files.
    strata = None
    if first.clips.labels is not None and second.clips.labels is not None:
        strata = [first.clips.labels[row] for row in our_rows]
        for clip, label, row in zip(common, strata, their_rows, strict=True):
            if label != second.clips.labels[row]:
                raise MintError(
                    f"clip {clip} is {label!r} in the first file and {second.clips.labels[row]!r} in the second; "
                    "compare runs on the same manifest"
                )

    # Several labels a clip: the arrays are scores, truth and known, of which the scores alone may differ.
    if len(ours) > 2 and not (np.array_equal(ours[1], theirs[1]) and np.array_equal(ours[2], theirs[2])):
        raise MintError(f"the labels of {first.clips.task} differ between the files; compare runs on the same manifest")

    return Difference(
        *first.key,
        float(first.function(*ours)),
        float(second.function(*theirs)),
        difference(first.function, theirs, ours, strata=strata, seed=seed),
        len(common),
        len(rows_of[0].keys() ^ rows_of[1].keys()),
    )


def _rows_by_id(measure: Measure, name: str) -> dict[str, int]:
    """Return the row of each clip; `name` says in which file it is."""
    # Of two clips with one id the later would stand for both, and its value would be paired with another clip's.
    rows = {clip: row for row, clip in enumerate(measure.clips.ids)}
    if len(rows) < len(measure.clips):
        twice = Counter(measure.clips.ids).most_common(1)[0][0]
        raise MintError(
            f"two clips of {measure.clips.task} are called {twice} in the {name} file; make ids unique within their "
            "corpus (`mint data validate` lists them), and evaluate again"
        )
    return rows


def comparison_table(found: Sequence[Difference], names: tuple[str, str]) -> str:
    """Return the differences as a table in Markdown, shares in percent; `names` are those of the two files."""
    head = ["task", "split", "metric", "method", "n", *names, "second - first", "95 % interval", "excludes 0"]
    lines = [head, ["---"] * 4 + ["---:"] * (len(head) - 4)]
    for one in found:
        gap = [_signed(one.metric, value) for value in one.gap]
        line = [one.task, one.split, metric_title(one.metric), one.method, str(one.n)]
        line += [show(one.metric, one.first), show(one.metric, one.second)]
        lines.append([*line, gap[0], f"[{gap[1]}, {gap[2]}]", "yes" if one.differs else "no"])

    text = "Paired bootstrap over clips\n\n"
    for line in lines:
        text += f"| {' | '.join(line)} |\n"
    # What 95 % means, for whoever looks for the one line that suits.
    text += "\nOf twenty lines between two runs that do not differ, one excludes 0 by chance.\n"

    # All metrics of a task drop the same clips, which count once.
    dropped = {(one.task, one.split): one.dropped for one in found}
    if left_out := sum(dropped.values()):
        text += f"\n{left_out} clips that only one of the two measured are left out.\n"
    return text


def _signed(metric: str, value: float) -> str:
    return f"{value:+.3f}" if metric in NOT_SHARES else f"{100 * value:+.1f}"


def _measures(results: Results, name: str) -> dict[Key, Measure]:
    """Return what a file holds of single clips."""
    measures = read_measures(results.extra.get("per_clip") or [])
    if not measures:
        raise MintError(f"the {name} results file keeps nothing of single clips; evaluate that run again")
    return measures
