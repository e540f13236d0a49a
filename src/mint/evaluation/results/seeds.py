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
from mint.text_files import one_line
from mint.types import MintError

Location = tuple[str, str, str]
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
    """Axis of an ablation -> the value that the cell has there; empty for any other run."""
    base: bool
    """Whether it may stand for its recipe: false for the cells of an ablation that change something."""
    settings: Mapping[str, str]
    """What was chosen for `stage1`, `stage2` and `captions`, in words, as far as the files say."""
    same_recipe: bool
    """Whether the files say that they are of one recipe; older ones have its name alone."""
    values: Mapping[tuple[Location, str], Mapping[int, Row]]
    """Rows by location and method, then by seed."""

    @property
    def methods(self) -> list[str]:
        """The methods that were measured, in the order of columns."""
        found = dict.fromkeys(method for _, method in self.values)
        return sorted(found, key=lambda method: METHODS.index(method) if method in METHODS else len(METHODS))

    def cell(self, location: Location, method: str) -> Cell | None:
        """Return the value over the seeds, None where nothing was measured."""
        rows = list(self.values.get((location, method), {}).values())
        if not rows:
            return None

        # In percent from here on, as the paper prints.
        numbers = [100 * row.value for row in rows]
        clips = max(row.n for row in rows)
        # The spread over seeds takes the place of the interval over clips: it holds what training adds.
        if len(numbers) > 1:
            return Cell(statistics.fmean(numbers), len(numbers), statistics.stdev(numbers), n=clips)

        # Chance is exact, and some metrics have no interval.
        exact = method == "chance" or rows[0].low is None or rows[0].high is None
        low, high = (None, None) if exact else (100 * (rows[0].low or 0.0), 100 * (rows[0].high or 0.0))
        return Cell(numbers[0], low=low, high=high, n=clips)


def read_runs(paths: Sequence[Path], corpora: Mapping[str, Sequence[str]]) -> list[Run]:
    """Read results files and put those of one recipe together, in the order in which recipes come.

    Args:
        paths: of the files.
        corpora: corpora of the paper -> the names that they may have.

    Raises:
        MintError: a file that is no results file, two files with different values for the same thing, or files of
            different recipes of one name.
    """
    groups: dict[tuple[str, str], list[tuple[Path, Results]]] = {}
    for path in paths:
        results = read_results(path)
        try:
            # Cells of an ablation share the recipe's name, and are runs of their own.
            cell = _ablation(results).get("cell", "")
            _together([(path, results)], corpora)  # reads whatever the tables will read
            groups.setdefault((results.recipe, cell), []).append((path, results))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {one_line(str(error))}"
            raise MintError(
                f"{path} is not as `mint evaluate` writes results files ({reason}); evaluate the run again"
            ) from None
    return [_together(files, corpora) for files in groups.values()]


def _together(files: Sequence[tuple[Path, Results]], corpora: Mapping[str, Sequence[str]]) -> Run:
    """Put the files of one recipe together."""
    _refuse_other_recipes(files)
    values: dict[tuple[Location, str], dict[int, Row]] = {}
    # The file that each value was read from first, for the message where another contradicts it.
    origin: dict[tuple[Location, str, int], Path] = {}
    for path, results in files:
        for row in results.rows:
            location = (corpus_of(row.task, results, corpora), row.split, row.metric)
            by_seed = values.setdefault((location, row.method), {})
            first = origin.setdefault((location, row.method, results.seed), path)
            # The same value in two files is harmless: files of single tasks and a file of all may be given together.
            if by_seed.setdefault(results.seed, row) != row:
                raise MintError(
                    f"{first} and {path} differ on {' / '.join(location)} by {row.method} of recipe "
                    f"{results.recipe!r}, seed {results.seed}; give one of them"
                )

    # Every file may be of another commit and other corpora: `dict.fromkeys` keeps each once, in the order given.
    every = [results for _, results in files]
    commits = dict.fromkeys((results.commit or "no checkout")[:12] for results in every)
    leakage = dict.fromkeys(describe_leakage(results.extra.get("leakage")) for results in every)
    ablation = _ablation(every[0])
    return Run(
        recipe=every[0].recipe,
        seeds=tuple(sorted({results.seed for results in every})),
        commits=tuple(commits),
        leakage="; ".join(leakage),
        axes=ablation.get("axes", {}),
        base=ablation.get("cell", "base") == "base",
        settings=_settings(every),
        same_recipe=len(every) == 1 or all(_digest(results) is not None for results in every),
        values=values,
    )


def _refuse_other_recipes(files: Sequence[tuple[Path, Results]]) -> None:
    """Refuse to take runs of different recipes for seeds of one, though they have one name.

    Raises:
        MintError: two files whose recipes differ in more than seed and folders.
    """
    first: Path | None = None
    for path, results in files:
        # Files that do not record the digest cannot be told apart, and pass; `Run.same_recipe` says so.
        if (digest := _digest(results)) is None:
            continue
        if first is None:
            first, first_digest = path, digest
        elif digest != first_digest:
            raise MintError(
                f"{first} and {path} are of two recipes that are both called {files[0][1].recipe!r} and differ in more "
                "than the seed; give the files of one, or give the recipes names of their own and evaluate again"
            )


def _digest(results: Results) -> str | None:
    """Return the digest of the recipe, None where the file does not hold it."""
    digest = results.extra.get("recipe_digest")
    return None if digest is None else str(digest)


def _settings(files: Sequence[Results]) -> dict[str, str]:
    """Return what was chosen for each subject, in words; where files differ, all of it."""
    chosen: dict[str, dict[str, None]] = {}
    for results in files:
        record = results.extra.get("settings")
        if not record:
            continue
        # Every file records how captions would be written, also one that measured none.
        has_captions = any(row.task == "captioning" for row in results.rows)
        for subject, words in describe_settings(record).items():
            if subject != "captions" or has_captions:
                chosen.setdefault(subject, {})[words] = None
    return {subject: "; ".join(words) for subject, words in chosen.items()}


def corpus_of(task: str, results: Results, corpora: Mapping[str, Sequence[str]]) -> str:
    """Return the corpus of the paper that a task of a results file belongs to, or the task itself.

    A task is known by its own name or by the only corpus that it is measured on: as the file says under `corpora`
    (task -> names), else under `leakage`, else by the name of the only manifest.
    """
    known = _corpora_of(task, results)
    for name in [task, *(known if len(known) == 1 else [])]:
        # `MusicCaps`, `music-caps` and `music_caps` are one name.
        plain = re.sub("[^a-z0-9]", "", name.lower())
        for corpus, aliases in corpora.items():
            if plain in aliases:
                return corpus
    return f"{task} ({', '.join(known)})" if task in GENERIC and known else task


def _corpora_of(task: str, results: Results) -> list[str]:
    """Return the corpora that a task is measured on, as far as the file says."""
    if known := results.extra.get("corpora", {}).get(task):
        return list(known)

    # Files that lack the key say it by the way: the record of leakage names the corpus of each test split.
    tested: dict[str, None] = {}
    for split in _leaked_splits(results.extra.get("leakage")):
        if split["task"] == task or task in GENERIC:
            tested[split["corpus"]] = None
    manifests = [Path(manifest).stem for manifest in results.extra.get("manifests", [])]
    return list(tested) or (manifests if len(manifests) == 1 else [])


def describe_leakage(leakage: Any) -> str:
    """Return the leakage entry of a results file in words (recorded by `mint.data.manifests.leakage`)."""
    if not leakage:
        return NOT_RECORDED
    if "not_computed" in leakage:
        return f"not computed ({leakage['not_computed']})"
    kinds = {"by_id": "recording", "by_file": "file", "by_caption": "caption"}
    counts = dict.fromkeys(kinds, 0)
    for split in leakage["splits"]:
        for kind in kinds:
            counts[kind] += split[kind]
    shared = ", ".join(f"by {name} {counts[kind]}" for kind, name in kinds.items())

    # No blacklist at all is another thing than a blacklist that no training clip is on.
    blacklists = leakage.get("blacklists", {})
    listed = sum(entry["clips"] for entry in blacklists.values())
    return shared + (f"; training clips on blacklists {listed}" if blacklists else "")


def shared_clips(leakage: Any) -> int:
    """Return how many held-out clips are also trained on, by recording or file; 0 where nobody looked."""
    # One clip may be counted by both, so the larger of the two and not their sum.
    return sum(max(split["by_id"], split["by_file"]) for split in _leaked_splits(leakage))


def _leaked_splits(leakage: Any) -> list[dict[str, Any]]:
    """Return the test splits of what `mint.data.manifests.leakage` records; none where it was not computed."""
    splits: list[dict[str, Any]] = (leakage or {}).get("splits", [])
    return splits


def _ablation(results: Results) -> dict[str, Any]:
    """Return cell and axes of an ablation: as the file says, else by the `objectives` of its stage 1."""
    entry: dict[str, Any] = results.extra.get("ablation", {})
    # A run with fewer objectives is a row of the paper's Table 5 without having been one of `mint ablate`.
    if not entry and (objectives := results.extra.get("objectives")):
        whole = objectives == ALL_OBJECTIVES
        return {"cell": "base" if whole else f"objectives={objectives}", "axes": {"objectives": objectives}}
    return entry
