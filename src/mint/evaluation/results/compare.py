"""Two runs on the same clips: by how much they differ, and whether that is more than chance.

Both are resampled together (a paired bootstrap), which is sharper than their two intervals side by side: what makes a
clip hard is hard for both. Results files keep what each method was worth on each clip (see
`mint.evaluation.results.per_clip`), or at least what stage 2 said of the clips of the tasks with one label a clip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mint.evaluation.metrics.bootstrap import Interval, difference
from mint.evaluation.metrics.classification import mean
from mint.evaluation.results.file import NOT_SHARES, Results, metric_title, show
from mint.evaluation.results.per_clip import Series, read_series
from mint.types import MintError

if TYPE_CHECKING:
    from mint.evaluation.evaluate import Prediction

Place = tuple[str, str, str, str]
"""Task, split, metric, method."""


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


def record_predictions(predictions: Sequence[Prediction]) -> list[dict[str, str]]:
    """For the key `predictions` of a results file: what was said of each clip, and what is true."""
    return [
        {
            "task": one.example.task,
            "split": one.example.split,
            "id": f"{one.example.corpus}/{one.example.id}",
            "truth": one.example.labels[0],
            "predicted": one.predicted,
        }
        for one in predictions
    ]


def compare(first: Results, second: Results, *, seed: int = 0) -> list[Difference]:
    """The differences in everything that both runs measured, in the order of the first file.

    Args:
        first: of one run.
        second: of the other.
        seed: of the resampling.

    Raises:
        MintError: a file without values of single clips, no clip in common, two clips of one name, a clip with two
            truths.
    """
    ours, theirs = (_series(results, name) for results, name in ((first, "first"), (second, "second")))
    found = [
        _difference(place, ours[place], theirs[place], seed)
        for place in ours
        if place in theirs and set(ours[place].ids) & set(theirs[place].ids)
    ]
    if not found:
        raise MintError("the two runs have no clip in common; compare runs on the same manifests")
    return found


def _difference(place: Place, first: Series, second: Series, seed: int) -> Difference:
    places = [{clip: row for row, clip in enumerate(series.ids)} for series in (first, second)]
    for name, series, there in zip(("first", "second"), (first, second), places, strict=True):
        if len(there) < len(series.ids):
            twice = Counter(series.ids).most_common(1)[0][0]
            raise MintError(
                f"two clips of {place[0]} are called {twice} in the {name} file; make ids unique within their corpus "
                "(`mint data validate` lists them), and evaluate again"
            )
    common = sorted(places[0].keys() & places[1].keys())
    rows = [np.array([there[clip] for clip in common]) for there in places]
    ours, theirs = (
        tuple(array[chosen] for array in series.arrays) for series, chosen in zip((first, second), rows, strict=True)
    )
    strata = None
    if first.strata is not None and second.strata is not None:
        strata = [first.strata[row] for row in rows[0]]
        for clip, one, row in zip(common, strata, rows[1], strict=True):
            if one != second.strata[row]:
                raise MintError(
                    f"clip {clip} is {one!r} in the first file and {second.strata[row]!r} in the second; "
                    "compare runs on the same manifest"
                )
    if len(ours) > 2 and not (np.array_equal(ours[1], theirs[1]) and np.array_equal(ours[2], theirs[2])):
        raise MintError(f"the labels of {place[0]} differ between the files; compare runs on the same manifest")
    return Difference(
        *place,
        float(first.metric(*ours)),
        float(second.metric(*theirs)),
        difference(first.metric, theirs, ours, strata=strata, seed=seed),
        len(common),
        len(places[0].keys() ^ places[1].keys()),
    )


def comparison_table(found: Sequence[Difference], names: tuple[str, str]) -> str:
    """As Markdown; shares in percent."""
    head = ["task", "split", "metric", "method", "n", *names, "second - first", "95 % interval", "excludes 0"]
    body = [
        [
            *(one.task, one.split, metric_title(one.metric), one.method, str(one.n)),
            *(show(one.metric, value) for value in (one.first, one.second)),
            _signed(one.metric, one.gap.value),
            f"[{_signed(one.metric, one.gap.low)}, {_signed(one.metric, one.gap.high)}]",
            "yes" if one.differs else "no",
        ]
        for one in found
    ]
    rule = ["---"] * 4 + ["---:"] * (len(head) - 4)
    table = "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *body))
    note = "\nOf twenty lines between two runs that do not differ, one excludes 0 by chance.\n"
    dropped = {(one.task, one.split): one.dropped for one in found}
    if left := sum(dropped.values()):
        note += f"\n{left} clips that only one of the two measured are left out.\n"
    return f"Paired bootstrap over clips\n\n{table}{note}"


def _signed(metric: str, value: float) -> str:
    return f"{value:+.3f}" if metric in NOT_SHARES else f"{100 * value:+.1f}"


def _series(results: Results, name: str) -> dict[Place, Series]:
    """What a file holds of single clips."""
    predictions = results.extra.get("predictions") or []
    found = _predicted(predictions) | read_series(results.extra.get("per_clip") or [])
    if not found:
        raise MintError(f"the {name} results file keeps nothing of single clips; evaluate that run again")
    return found


def _predicted(predictions: Sequence[Mapping[str, Any]]) -> dict[Place, Series]:
    """Accuracy of stage 2 from what it said."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for entry in predictions:
        groups.setdefault((entry["task"], entry["split"]), []).append(entry)
    return {
        (*place, "accuracy", "stage2"): Series(
            mean,
            (np.array([entry["predicted"] == entry["truth"] for entry in entries], dtype=np.float64),),
            [entry["id"] for entry in entries],
            [entry["truth"] for entry in entries],
        )
        for place, entries in groups.items()
    }
