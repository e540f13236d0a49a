"""Two runs on the same clips: by how much they differ, and whether that is more than chance.

Both are resampled together (a paired bootstrap), which is sharper than their two intervals side by side: what makes a
clip hard is hard for both. Results files keep what stage 2 said of each clip of the tasks with one label a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mint.evaluation.bootstrap import Interval, difference
from mint.evaluation.metrics import mean
from mint.evaluation.results import Results, show
from mint.types import MintError

if TYPE_CHECKING:
    from mint.evaluation.runner import Prediction

METRIC = "accuracy"


@dataclass(frozen=True)
class Difference:
    """Accuracy of two runs on the clips that both measured."""

    task: str
    split: str
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
    """The differences on every task and split that both runs measured.

    Args:
        first: of one run.
        second: of the other.
        seed: of the resampling.

    Raises:
        MintError: a file without predictions, no clip in common, or a clip with two truths.
    """
    ours, theirs = (_by_place(results, name) for results, name in ((first, "first"), (second, "second")))
    found = []
    for place in ours:
        common = sorted(ours[place].keys() & theirs.get(place, {}).keys())
        if not common:
            continue
        pairs = [(ours[place][clip], theirs[place][clip]) for clip in common]
        for clip, (one, other) in zip(common, pairs, strict=True):
            if one["truth"] != other["truth"]:
                raise MintError(
                    f"clip {clip} is {one['truth']!r} in the first file and {other['truth']!r} in the second; "
                    "compare runs on the same manifest"
                )
        truth = [one["truth"] for one, _ in pairs]
        right = np.array([[entry["predicted"] == entry["truth"] for entry in pair] for pair in pairs], dtype=np.float64)
        gap = difference(mean, (right[:, 1],), (right[:, 0],), strata=truth, seed=seed)
        dropped = len(ours[place].keys() ^ theirs[place].keys())
        shares = right.mean(axis=0)
        found.append(Difference(*place, float(shares[0]), float(shares[1]), gap, len(common), dropped))
    if not found:
        raise MintError("the two runs have no clip in common; compare runs on the same manifests")
    return found


def comparison_table(found: Sequence[Difference], names: tuple[str, str]) -> str:
    """As Markdown, in percent."""
    head = ["task", "split", "n", *names, "second - first", "95 % interval", "excludes 0"]
    body = [
        [
            one.task,
            one.split,
            str(one.n),
            show(METRIC, one.first),
            show(METRIC, one.second),
            f"{100 * one.gap.value:+.1f}",
            f"[{100 * one.gap.low:+.1f}, {100 * one.gap.high:+.1f}]",
            "yes" if one.differs else "no",
        ]
        for one in found
    ]
    rule = ["---"] * 2 + ["---:"] * (len(head) - 2)
    table = "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *body))
    dropped = sum(one.dropped for one in found)
    note = f"\n{dropped} clips that only one of the two measured are left out.\n" if dropped else ""
    return f"Accuracy of stage 2 (%), paired bootstrap over clips\n\n{table}{note}"


def _by_place(results: Results, name: str) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """Predictions by task and split, then by clip."""
    predictions = results.extra.get("predictions")
    if not predictions:
        raise MintError(
            f"the {name} results file keeps no predictions of single clips; evaluate that run again, on a task with "
            "one label a clip"
        )
    places: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for entry in predictions:
        places.setdefault((entry["task"], entry["split"]), {})[entry["id"]] = entry
    return places
