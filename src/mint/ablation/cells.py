"""Ablations of the quickstart: what each part of the method is worth (paper, section 4.3, Tables 5 and 6).

One cell is the quickstart with one thing changed, trained and measured with several seeds. All cells use the same
clips: the corpora are rendered once and the frozen features come from the cache, so that a seed stands for the new
weights, the order of the data and the negatives. A cell that does not change stage 1 shares that of the base. Three
axes go beyond the paper's two tables: the instruction in Bridge-Net, the number of queries, and how often they
cross-attend.

Every cell is the folder of a run, `OUTPUT/seedN/CELL`, with its results file; what is done is not done again.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mint.ablation.plot import draw
from mint.assets import fetch
from mint.builders.encoder import build_encoder
from mint.builders.stages import load_trained
from mint.config import Recipe, load_recipe, recipe_digest
from mint.data.corpora.rendered.quickstart import prepare_quickstart
from mint.data.features.prepare import Features, prepare_features, read_examples
from mint.data.manifests.leakage import leakage_record
from mint.evaluation.evaluate import evaluate, settle
from mint.evaluation.results.file import write_results
from mint.evaluation.results.paper_tables import AXES, build_tables, published
from mint.evaluation.results.render import markdown, write_tables
from mint.evaluation.results.seeds import Run, read_runs
from mint.evaluation.settings import QUICK
from mint.files import owning, write_json, write_whole
from mint.machine import default_device, git_commit, peak_memory_bytes
from mint.quickstart import Clock
from mint.run_folder import is_finished
from mint.text_files import read_json
from mint.training.train import train
from mint.types import AudioEncoder, Example, MintError

RECIPE = "ablation of the quickstart"
"""The name of the recipe in the results."""
BASE = "base"
SUMS = {
    "ALC": ("objectives.alm=false", "objectives.atg=false"),
    "ALC+ATG": ("objectives.alm=false",),
    "ALC+ALM": ("objectives.atg=false",),
}
"""Rows of Table 5 and their overrides of stage 1; the fourth row is the base."""
QUERIES, EVERY = (4, 8, 16), (1, 2, 3)
"""The numbers of queries, and of blocks from one cross-attention to the next, that are tried."""
AXIS_NAMES = ("objectives", "stages", *AXES)
"""The axes that `--only` takes; `stages` (Table 6) needs the base alone."""
TASKS = ("notes", "ensembles", "percussion", "retrieval")
"""Tasks that are measured by default: not `chords`, which the encoder cannot tell, and not the slow `captioning`."""
DATA_SEED = 0
"""Seed of the corpora and of the clips that are drawn for retrieval."""


@dataclass(frozen=True)
class Ablation:
    """The choices of an ablation."""

    output: Path
    seeds: tuple[int, ...] = (0, 1, 2)
    only: tuple[str, ...] = AXIS_NAMES
    """The axes that are varied."""
    overrides: tuple[str, ...] = ()
    """`key=value` for both recipes, `stage1.key=value` or `stage2.key=value` for one."""
    tasks: tuple[str, ...] = TASKS
    scale: float = 1.0
    """The share of the clips that is rendered."""

    def __post_init__(self) -> None:
        """Refuse an unknown axis, and an ablation without a seed."""
        for axis in self.only:
            if axis not in AXIS_NAMES:
                raise MintError(f"no ablation {axis!r}; choose from {', '.join(AXIS_NAMES)}")
        if not self.seeds:
            raise MintError("no seeds are given; give at least one, such as --seeds 0")


@dataclass(frozen=True)
class Cell:
    """The quickstart with at most one thing changed."""

    name: str
    """The name of its folder: `base`, `objectives=ALC`, `queries=4`, ..."""
    axes: dict[str, str]
    """Axis -> its value here, for the axes on which the cell is a row of a table."""
    stage1: tuple[str, ...] = ()
    """The overrides of stage 1's recipe."""
    stage2: tuple[str, ...] = ()
    """The overrides of stage 2's recipe."""

    @property
    def shares_stage1(self) -> bool:
        """True if its stage 1 is that of the base."""
        return self.name != BASE and not self.stage1


@dataclass(frozen=True)
class Shared:
    """What all cells of an ablation share."""

    manifests: Sequence[Path]
    examples: Sequence[Example]
    features: Features
    encoder: AudioEncoder


def run(ablation: Ablation) -> list[Run]:
    """Run what is not done yet; then, or when it is interrupted, write the tables and the plot of what is done.

    Returns:
        The finished cells, each over its seeds.

    Raises:
        MintError: the folder holds an ablation with other settings, another process is writing into it, or a recipe
            cannot have an override.
    """
    with owning(ablation.output):
        return _run(ablation)


def _run(ablation: Ablation) -> list[Run]:
    _refuse_other_settings(ablation)
    try:
        todo = missing(ablation)
        # Rendering and encoding the corpora takes minutes, which a finished ablation needs for nothing.
        if todo:
            shared = _prepare(ablation)
            for number, (seed, cell) in enumerate(todo, start=1):
                print(f"[{number}/{len(todo)}] seed {seed}, {cell.name}", file=sys.stderr)
                _run_cell(ablation, seed, cell, shared)
    finally:
        # Also after Ctrl-C: an ablation takes days, and its tables can be looked at on the way.
        runs = write_summary(ablation)
        left = missing(ablation)
        if left:
            print(f"{describe(left)}; run the same command again to continue", file=sys.stderr)
    return runs


def cells(ablation: Ablation) -> list[Cell]:
    """Return the base and every cell of the axes that are asked for."""
    first = load_recipe("quickstart/stage1", _overrides(ablation, 1))
    second = load_recipe("quickstart/stage2", _overrides(ablation, 2))
    _refuse_other_base(first, second)
    queries, every = first.bridge.num_queries, first.bridge.cross_attention_every
    axes = {"objectives": "ALC+ALM+ATG", "instruction": "on", "queries": str(queries), "cross_attention": str(every)}

    # The base has a row on every axis; a size that is the base's own needs no cell.
    wanted = [Cell(BASE, axes)]
    for name, overrides in SUMS.items():
        wanted.append(_cell("objectives", name, stage1=overrides))
    wanted.append(_cell("instruction", "off", stage2=("instruction_aware=false",)))
    # Both stages have the same Bridge-Net, so that its sizes are changed in both.
    for count in QUERIES:
        if count != queries:
            override = (f"bridge.num_queries={count}",)
            wanted.append(_cell("queries", str(count), stage1=override, stage2=override))
    for blocks in EVERY:
        if blocks != every:
            override = (f"bridge.cross_attention_every={blocks}",)
            wanted.append(_cell("cross_attention", str(blocks), stage1=override, stage2=override))
    return [cell for cell in wanted if cell.name == BASE or set(cell.axes) <= set(ablation.only)]


def _cell(axis: str, value: str, stage1: tuple[str, ...] = (), stage2: tuple[str, ...] = ()) -> Cell:
    return Cell(f"{axis}={value}", {axis: value}, stage1, stage2)


def missing(ablation: Ablation) -> list[tuple[int, Cell]]:
    """Return the seed and cell of what is not done yet, in the order in which it is run."""
    every = cells(ablation)
    left = []
    for seed in ablation.seeds:
        for cell in every:
            if not _results_file(ablation, seed, cell).is_file():
                left.append((seed, cell))
    return left


def describe(left: Sequence[tuple[int, Cell]]) -> str:
    """Say in one line what is missing."""
    by_seed: dict[int, list[str]] = {}
    for seed, cell in left:
        by_seed.setdefault(seed, []).append(cell.name)
    return "missing: " + "; ".join(f"seed {seed}: {', '.join(names)}" for seed, names in by_seed.items())


def write_summary(ablation: Ablation) -> list[Run]:
    """Write `ablation.md`, `ablation.png`, `ablation.svg` and the tables of the cells that are done."""
    # In the order of the cells, so that tables do not depend on which of them was ready first.
    done = []
    for cell in cells(ablation):
        for seed in ablation.seeds:
            path = _results_file(ablation, seed, cell)
            if path.is_file():
                done.append(path)
    if not done:
        return []

    runs = read_runs(done, published()["corpora"])
    tables = [table for table in build_tables(runs) if table.name.startswith(("table5", "table6", "ablation"))]
    write_tables(tables, ablation.output / "tables")
    left = missing(ablation)
    paragraphs = ["# Ablations of the quickstart", *([describe(left)] if left else [])]
    paragraphs += [_settings_in_words(ablation), markdown(tables)]
    write_whole(ablation.output / "ablation.md", "\n\n".join(paragraphs))
    draw(tables, ablation.output / "ablation")
    return runs


def _refuse_other_settings(ablation: Ablation) -> None:
    """Refuse other settings than the folder's; seeds and axes may be added."""
    asked = {"overrides": list(ablation.overrides), "tasks": list(ablation.tasks), "scale": ablation.scale}
    path = ablation.output / "ablation.json"
    begun: object = None
    with suppress(OSError, MintError):  # there is none, or it is broken
        begun = read_json(path)
    if isinstance(begun, dict) and begun != asked:
        raise MintError(f"{ablation.output} holds an ablation with {begun}, not with {asked}; give another --output")

    # An override that a recipe cannot have is refused before it is written down.
    cells(ablation)
    write_json(path, asked)


def _refuse_other_base(first: Recipe, second: Recipe) -> None:
    """Refuse a base that is not the whole method: what the axes switch may not be off in all cells."""
    objectives = first.objectives
    assert objectives is not None
    if not (objectives.alc and objectives.alm and objectives.atg and second.instruction_aware):
        raise MintError("the overrides switch off an objective or the instruction, which the ablation does by itself")


def _overrides(ablation: Ablation, stage: int) -> list[str]:
    """Return the overrides of both stages, and those of this stage without their prefix."""
    overrides = []
    for override in ablation.overrides:
        if not override.startswith(f"stage{3 - stage}."):
            overrides.append(override.removeprefix(f"stage{stage}."))
    return overrides


def _folder(ablation: Ablation, seed: int, name: str) -> Path:
    return ablation.output / f"seed{seed}" / name


def _results_file(ablation: Ablation, seed: int, cell: Cell) -> Path:
    return _folder(ablation, seed, cell.name) / "results.json"


def _prepare(ablation: Ablation) -> Shared:
    """Render the corpora and encode their clips."""
    font = fetch("soundfont") / "TimGM6mb.sf2"
    manifests = prepare_quickstart(ablation.output / "data", font, seed=DATA_SEED, scale=ablation.scale)
    examples = read_examples(manifests)
    recipe = load_recipe("quickstart/stage1", _overrides(ablation, 1))
    encoder = build_encoder(recipe.encoder, default_device())
    return Shared(manifests, examples, prepare_features(encoder, examples, recipe.data.max_seconds), encoder)


def _run_cell(ablation: Ablation, seed: int, cell: Cell, shared: Shared) -> None:
    """Train and measure one cell; a stage that is finished is not trained again."""
    folder = _folder(ablation, seed, cell.name)
    folder.mkdir(parents=True, exist_ok=True)
    first = (_folder(ablation, seed, BASE) if cell.shares_stage1 else folder) / "stage1"
    second = folder / "stage2"
    clock = Clock(folder / "seconds.json")
    recipes = [_recipe(ablation, stage, seed, cell, shared.manifests, first) for stage in (1, 2)]
    for recipe, output in zip(recipes, (first, second), strict=True):
        if not is_finished(output):
            with clock.step(f"stage{recipe.stage}"):
                train(recipe, output, shared.examples, shared.features, shared.encoder)

    with clock.step("evaluation"):
        # A stage 1 that several cells share is measured with the base alone.
        trained = load_trained({2: second} if cell.shares_stage1 else {1: first, 2: second})
        features = dict.fromkeys((1, 2), shared.features)
        evaluation = evaluate(trained, shared.examples, features, tasks=ablation.tasks, seed=DATA_SEED)

    write_results(
        _results_file(ablation, seed, cell),
        evaluation.rows,
        seconds=round(clock.total(), 1),
        peak_memory_bytes=peak_memory_bytes(),
        recipe=RECIPE,
        recipe_digest=recipe_digest(recipes),
        commit=git_commit(),
        seed=seed,
        seconds_by_step=clock.seconds,
        ablation={"cell": cell.name, "axes": cell.axes},
        overrides=list(ablation.overrides),
        leakage=leakage_record(shared.manifests, evaluation.clips()),
        settings=settle(QUICK, trained).record(),
        **evaluation.record(),
    )


def _recipe(ablation: Ablation, stage: int, seed: int, cell: Cell, manifests: Sequence[Path], first: Path) -> Recipe:
    """Return the recipe of a cell's stage; `first` is the folder of its stage 1."""
    overrides = [*_overrides(ablation, stage), *(cell.stage1 if stage == 1 else cell.stage2)]
    recipe = load_recipe(f"quickstart/stage{stage}", overrides)
    data = dataclasses.replace(recipe.data, manifests=tuple(str(path) for path in manifests))
    return dataclasses.replace(recipe, data=data, start=str(first) if stage == 2 else None, seed=seed)


def _settings_in_words(ablation: Ablation) -> str:
    changed = f"`{' '.join(ablation.overrides)}`" if ablation.overrides else "the quickstart's recipes as they are"
    seeds = ", ".join(map(str, ablation.seeds))
    return f"Overrides: {changed}. Share of the clips: {ablation.scale:g}. Seeds: {seeds}.\n\n![](ablation.svg)"
