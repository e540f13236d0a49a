"""Result files and the tables drawn from them.

One JSON file holds every number of a run with what made it: recipe, commit, seed, time and memory. Tables (README,
`mint evaluate`, the report) are drawn from these files only; nothing in them is typed by hand.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from mint.files import write_json
from mint.text_files import read_json, shown
from mint.types import MintError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

METHODS = ("chance", "majority", "encoder", "probe", "stage1", "stage1+alm", "stage2")
"""Order of a table's columns; methods of other names follow."""
UNTRAINED = ("chance", "majority", "encoder")
"""Methods that never stand in bold."""
TITLES = {
    **{"map": "PR-AUC, macro", "micro_map": "PR-AUC, micro"},
    **{"roc_auc": "ROC-AUC, macro", "micro_roc_auc": "ROC-AUC, micro"},
    **{"cider_d": "CIDEr-D", "rouge_l": "ROUGE-L", "spice": "SPICE", "spider": "SPIDEr"},
    **{"bleu_4": "BLEU-4", "meteor": "METEOR", "sentence_similarity": "sentence similarity"},
    **{"names_label": "captions name the label", "caption_names_label": "captions name the label"},
}
"""Names in the report for metrics whose keys are no words."""
NOT_SHARES = ("cider_d", "spider")
"""Metrics that are not shares of 1 and are printed as they are."""


@dataclass(frozen=True)
class Row:
    """One number."""

    task: str
    """`notes`, `ensembles`, `retrieval`, `labels`, ..."""
    split: str
    """`test` or `unseen`."""
    metric: str
    """`accuracy`, `map`, `roc_auc`, `recall@10`, `cider_d`, ...; higher is better for all."""
    method: str
    """`stage2`, `stage1`, `probe`, `majority`, `chance`, ..."""
    value: float
    """Shares lie in [0, 1]."""
    low: float | None
    """Ends of the 95 % interval; equal to the value where it is exact, None where none was computed."""
    high: float | None
    n: int
    """Clips measured."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Task, split, metric and method: what the row is known by."""
        return self.task, self.split, self.metric, self.method


@dataclass(frozen=True)
class Results:
    """The content of a results file."""

    rows: tuple[Row, ...]
    seconds: float
    peak_memory_bytes: int | None
    recipe: str
    commit: str | None
    seed: int
    extra: dict[str, Any]
    """All other keys: `versions`, `skipped`, `leakage`, ..."""


NAMED = tuple(field.name for field in dataclasses.fields(Results) if field.name != "extra")
"""The keys that every results file has."""
RESULTS = TypeAdapter(Results)
"""Reads `Results` from JSON values, refusing other types."""


def write_results(
    path: Path,
    rows: Sequence[Row],
    *,
    seconds: float,
    peak_memory_bytes: int | None,
    recipe: str,
    commit: str | None,
    seed: int,
    **extra: Any,
) -> None:
    """Write a results file, whole or not at all (written beside it, then renamed).

    Raises:
        MintError: a value that is not finite, or the same row twice.
    """
    # Who reads the file finds a value by its key, and must find one.
    seen = set()
    for row in rows:
        check_row(row)
        if row.key in seen:
            raise MintError(f"two rows for {' / '.join(row.key)}; a results file holds one")
        seen.add(row.key)

    content = {
        "rows": [dataclasses.asdict(row) for row in rows],
        "seconds": seconds,
        "peak_memory_bytes": peak_memory_bytes,
        "recipe": recipe,
        "commit": commit,
        "seed": seed,
        **extra,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)


def check_row(row: Row) -> None:
    """Refuse a row that no results file can hold.

    Raises:
        MintError: a value that is not finite.
    """
    # JSON has no NaN, and a table in which one stands is believed less than an error.
    if not all(math.isfinite(number) for number in (row.value, row.low, row.high) if number is not None):
        raise MintError(f"{' / '.join(row.key)} is {row.value} [{row.low}, {row.high}]; only finite values are written")


def read_results(path: Path) -> Results:
    """Read a results file.

    Raises:
        MintError: no such file, or not a results file.
    """
    if path.is_dir():
        raise MintError(f"{path} is a folder; give a results file, such as those that `mint evaluate` writes")
    try:
        content = read_json(path)
        # What remains in `content` is of the tasks' own making, and is not checked here.
        fields = {key: content.pop(key) for key in NAMED}
        results = RESULTS.validate_python({**fields, "extra": content})
        for row in results.rows:
            check_row(row)
    except FileNotFoundError:
        raise MintError(f"no results file {path}; evaluate the run first") from None
    except MintError as error:
        # From `read_json`, where the file is no JSON.
        raise MintError(f"{path} is not a results file ({error}); give one that `mint evaluate` has written") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        reason = f"{where} is {shown(first['input'])}: {first['msg'].lower()}"
        raise MintError(f"{path} is not a results file ({reason}); give one that `mint evaluate` has written") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise MintError(f"{path} is not a results file ({reason}); give one that `mint evaluate` has written") from None
    return results


def markdown_table(rows: Iterable[Row]) -> str:
    """Return a table with one line for each task, split and metric, and one column for each method.

    A cell is `value [low, high]`; shares are in percent. The best trained method of each line is in bold, all of them
    if they are equal.
    """
    lines, methods = arrange(rows)
    if not lines:
        return "No results.\n"

    head = ["task", "split", "metric", "n", *methods]
    table = [head, ["---"] * 3 + ["---:"] * (len(head) - 3)]
    for (task, split, metric), cells in lines.items():
        best = best_methods(cells)
        line = [task, split, metric_title(metric), str(max(row.n for row in cells.values()))]
        for method in methods:
            line.append(_cell(cells.get(method), method in best))
        table.append(line)
    return "".join(f"| {' | '.join(line)} |\n" for line in table)


def arrange(rows: Iterable[Row]) -> tuple[dict[tuple[str, str, str], dict[str, Row]], list[str]]:
    """Arrange rows as a table.

    Returns:
        The rows by (task, split, metric) and method, in the order in which they come; and the methods in the order of
        the columns.
    """
    lines: dict[tuple[str, str, str], dict[str, Row]] = {}
    methods: dict[str, None] = {}
    for row in rows:
        lines.setdefault((row.task, row.split, row.metric), {})[row.method] = row
        methods[row.method] = None
    return lines, sorted(methods, key=lambda method: METHODS.index(method) if method in METHODS else len(METHODS))


def best_methods(cells: dict[str, Row]) -> set[str]:
    """Return the trained methods that share the highest value of a line."""
    trained = {method: row.value for method, row in cells.items() if method not in UNTRAINED}
    # Equal values are all marked: which of them was looked at first says nothing.
    highest = max(trained.values(), default=None)
    return {method for method, value in trained.items() if value == highest}


def metric_title(metric: str) -> str:
    """Return the name of a metric as a table shows it, with its unit."""
    return metric if metric in NOT_SHARES else f"{metric} (%)"


def readable_title(metric: str) -> str:
    """Return the name of a metric in words, with its unit: `text to audio, R@10 (%)`."""
    way, name = "", metric
    if re.match(r"(audio_to_text_)?(recall|map)@", metric):
        way = "audio to text, " if metric.startswith("audio_to_text_") else "text to audio, "
        name = metric.removeprefix("audio_to_text_").replace("recall@", "R@").replace("map@", "mAP@")
    title = way + TITLES.get(name, name.replace("_", " "))
    return title if metric in NOT_SHARES else f"{title} (%)"


def show(metric: str, value: float) -> str:
    """Return a value as a table shows it: shares in percent with one decimal, others with three decimals."""
    return f"{value:.3f}" if metric in NOT_SHARES else f"{100 * value:.1f}"


def show_interval(row: Row) -> str:
    """Return `[low, high]`, or nothing if there is no interval: chance and the majority class are exact."""
    # An interval of one point is exact, and would only widen the column.
    if row.low is None or row.high is None or row.low == row.high:
        return ""
    return f"[{show(row.metric, row.low)}, {show(row.metric, row.high)}]"


def _cell(row: Row | None, best: bool) -> str:
    if row is None:
        return "–"
    value = show(row.metric, row.value)
    return f"{f'**{value}**' if best else value} {show_interval(row)}".strip()
