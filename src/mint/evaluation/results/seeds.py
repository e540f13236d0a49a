"""Results files of one recipe, put together over its seeds: what the tables are drawn from.

Several files may hold parts of one run (`mint evaluate --task` writes one for each task); files of several seeds give a
mean and a spread. Values are times 100, as in the paper's tables.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mint.evaluation.results.file import METHODS, Results, Row, read_results
from mint.evaluation.settings import describe_settings
from mint.types import MintError

Place = tuple[str, str, str]
"""Task or corpus, split, metric."""

GENERIC = ("labels", "retrieval", "captioning")
"""Tasks that any corpus may have; their corpora are named beside them where the results file knows them."""
ALL_OBJECTIVES = "ALC+ALM+ATG"
NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Cell:
    """One value of a table, times 100."""

    value: float
    """Mean over the seeds."""
    seeds: int = 1
    spread: float | None = None
    """Sample standard deviation over the seeds; None for one seed."""
    low: float | None = None
    """Ends of the 95 % interval over clips; None for several seeds, and where none was computed."""
    high: float | None = None
    n: int | None = None
    """Clips measured; None for a quoted value."""


@dataclass(frozen=True)
class Run:
    """One recipe, or one cell of an ablation, with all its seeds."""

    recipe: str
    seeds: tuple[int, ...]
    commits: tuple[str, ...]
    leakage: str
    """Counts of held-out clips that are also trained on, in words."""
    axes: Mapping[str, str]
    """Of an ablation: axis -> what the cell has there; of any other run empty."""
    base: bool
    """Whether it may stand for its recipe: true but for the cells of an ablation that change something."""
    settings: Mapping[str, str]
    """What was chosen for `stage1`, `stage2` and `captions`, in words, as far as the files say."""
    values: Mapping[tuple[Place, str], Mapping[int, Row]]
    """Rows by place and method, then by seed."""

    @property
    def methods(self) -> list[str]:
        """In the order of columns."""
        found = dict.fromkeys(method for _, method in self.values)
        return sorted(found, key=lambda method: METHODS.index(method) if method in METHODS else len(METHODS))

    def cell(self, place: Place, method: str) -> Cell | None:
        """The value over the seeds; None where nothing was measured."""
        rows = list(self.values.get((place, method), {}).values())
        if not rows:
            return None
        numbers = [100 * row.value for row in rows]
        clips = max(row.n for row in rows)
        if len(numbers) > 1:
            return Cell(statistics.fmean(numbers), len(numbers), statistics.stdev(numbers), n=clips)
        exact = method == "chance" or rows[0].low is None or rows[0].high is None
        low, high = (None, None) if exact else (100 * (rows[0].low or 0.0), 100 * (rows[0].high or 0.0))
        return Cell(numbers[0], low=low, high=high, n=clips)


def read_runs(paths: Sequence[Path], corpora: Mapping[str, Sequence[str]]) -> list[Run]:
    """Results files by recipe, in the order in which recipes come.

    Args:
        paths: of the files.
        corpora: corpora of the paper -> the names that they may have.

    Raises:
        MintError: a file that is no results file, or two files with different values for the same thing.
    """
    groups: dict[tuple[str, str], list[tuple[Path, Results]]] = {}
    for path in paths:
        results = read_results(path)
        groups.setdefault((results.recipe, _ablation(results).get("cell", "")), []).append((path, results))
    return [_together(files, corpora) for files in groups.values()]


def _together(files: Sequence[tuple[Path, Results]], corpora: Mapping[str, Sequence[str]]) -> Run:
    values: dict[tuple[Place, str], dict[int, Row]] = {}
    origin: dict[tuple[Place, str, int], Path] = {}
    for path, results in files:
        for row in results.rows:
            place = (place_of(row.task, results, corpora), row.split, row.metric)
            key = (place, row.method, results.seed)
            by_seed = values.setdefault((place, row.method), {})
            if by_seed.setdefault(results.seed, row) != row:
                raise MintError(
                    f"{origin[key]} and {path} differ on {' / '.join(place)} by {row.method} of recipe "
                    f"{results.recipe!r}, seed {results.seed}; give one of them"
                )
            origin.setdefault(key, path)
    every = [results for _, results in files]
    ablation = _ablation(every[0])
    return Run(
        recipe=every[0].recipe,
        seeds=tuple(sorted({results.seed for results in every})),
        commits=tuple(dict.fromkeys((results.commit or "no checkout")[:12] for results in every)),
        leakage="; ".join(dict.fromkeys(describe_leakage(results.extra.get("leakage")) for results in every)),
        axes=ablation.get("axes", {}),
        base=ablation.get("cell", "base") == "base",
        settings=_settings(every),
        values=values,
    )


def _settings(files: Sequence[Results]) -> dict[str, str]:
    said: dict[str, dict[str, None]] = {}
    for results in files:
        if record := results.extra.get("settings"):
            for subject, words in describe_settings(record).items():
                if subject != "captions" or any(row.task == "captioning" for row in results.rows):
                    said.setdefault(subject, {})[words] = None
    return {subject: "; ".join(words) for subject, words in said.items()}


def place_of(task: str, results: Results, corpora: Mapping[str, Sequence[str]]) -> str:
    """The corpus of the paper that a task of a results file belongs to, or the task itself.

    A task is known by its own name or by the only corpus that it is measured on: as the file says under `corpora`
    (task -> names), else under `leakage`, else by the name of the only manifest.
    """
    known = _corpora_of(task, results)
    for name in [task, *(known if len(known) == 1 else [])]:
        for corpus, aliases in corpora.items():
            if re.sub("[^a-z0-9]", "", name.lower()) in aliases:
                return corpus
    return f"{task} ({', '.join(known)})" if task in GENERIC and known else task


def _corpora_of(task: str, results: Results) -> list[str]:
    """Corpora that a task is measured on, as far as the file says."""
    if known := results.extra.get("corpora", {}).get(task):
        return list(known)
    splits = _leaked_splits(results.extra.get("leakage"))
    tested = [split["corpus"] for split in splits if split["task"] == task or task in GENERIC]
    manifests = [Path(manifest).stem for manifest in results.extra.get("manifests", [])]
    return list(dict.fromkeys(tested)) or (manifests if len(manifests) == 1 else [])


def describe_leakage(leakage: Any) -> str:
    """The leakage entry of a results file in words (recorded by `mint.data.manifests.leakage`)."""
    if isinstance(leakage, dict) and "not_computed" in leakage:
        return f"not computed ({leakage['not_computed']})"
    if splits := _leaked_splits(leakage):
        kinds = {"by_id": "recording", "by_file": "file", "by_caption": "caption"}
        shared = ", ".join(f"by {name} {sum(split[kind] for split in splits)}" for kind, name in kinds.items())
        listed = [counts["clips"] for counts in leakage.get("blacklists", {}).values()]
        return shared + (f"; training clips on blacklists {sum(listed)}" if listed else "")
    if isinstance(leakage, dict):
        counts = {name: value for name, value in leakage.items() if isinstance(value, int)}
        if len(counts) == 1:
            return str(next(iter(counts.values())))
        leakage = ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in counts.items())
    return str(leakage) if leakage not in (None, "") else NOT_RECORDED


def shared_clips(leakage: Any) -> int:
    """Held-out clips of a results file that are also trained on, by recording or file; 0 where nobody looked."""
    if splits := _leaked_splits(leakage):
        return sum(max(split["by_id"], split["by_file"]) for split in splits)
    counts = leakage.values() if isinstance(leakage, dict) else [leakage]
    return sum(count for count in counts if type(count) is int)


def _leaked_splits(leakage: Any) -> list[dict[str, Any]]:
    """The test splits of what `mint.data.manifests.leakage` records; nothing for another form."""
    splits: list[dict[str, Any]] = leakage.get("splits", []) if isinstance(leakage, dict) else []
    return splits


def _ablation(results: Results) -> dict[str, Any]:
    """Cell and axes of an ablation: as the file says, else by the `objectives` that its stage 1 was trained with."""
    entry: dict[str, Any] = results.extra.get("ablation", {})
    if not entry and (objectives := results.extra.get("objectives")):
        whole = objectives == ALL_OBJECTIVES
        return {"cell": "base" if whole else f"objectives={objectives}", "axes": {"objectives": objectives}}
    return entry
