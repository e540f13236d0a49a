"""Ablations of the quickstart: what each part of the method is worth (paper, section 4.3, Tables 5 and 6).

One cell is the quickstart with one thing changed, trained and measured with several seeds. All cells hear the same
clips: the corpora are rendered once and the frozen features come from the cache, so that a seed stands for the new
weights, the order of the data and the negatives. A cell that leaves stage 1 as it is shares that of the base. Beyond
the paper's two tables: the instruction in Bridge-Net, the number of queries, and how often they cross-attend.

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
from mint.evaluation.evaluate import evaluate
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
"""Name in the results."""
BASE = "base"
SUMS = {
    "ALC": ("objectives.alm=false", "objectives.atg=false"),
    "ALC+ATG": ("objectives.alm=false",),
    "ALC+ALM": ("objectives.atg=false",),
}
"""Table 5 -> overrides of stage 1; the fourth row is the base."""
QUERIES, EVERY = (4, 8, 16), (1, 2, 3)
"""Numbers of queries, and of blocks from one cross-attention to the next, that are tried."""
AXIS_NAMES = ("objectives", "stages", *AXES)
"""What `--only` takes; `stages` (Table 6) needs the base alone."""
TASKS = ("notes", "ensembles", "percussion", "retrieval")
"""Measured by default: neither `chords`, which the encoder cannot tell, nor `captioning`, which is slow."""
DATA_SEED = 0
"""Of the corpora and of the clips that are drawn for retrieval."""


@dataclass(frozen=True)
class Ablation:
    """What is run."""

    output: Path
    seeds: tuple[int, ...] = (0, 1, 2)
    only: tuple[str, ...] = AXIS_NAMES
    """Axes."""
    overrides: tuple[str, ...] = ()
    """`key=value` for both recipes, `stage1.key=value` or `stage2.key=value` for one."""
    tasks: tuple[str, ...] = TASKS
    scale: float = 1.0
    """Share of the clips that are rendered."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        for axis in self.only:
            if axis not in AXIS_NAMES:
                raise MintError(f"no ablation {axis!r}; choose from {', '.join(AXIS_NAMES)}")
        if not self.seeds:
            raise MintError("no seeds are given; give at least one, such as --seeds 0")


@dataclass(frozen=True)
class Cell:
    """The quickstart with at most one thing changed."""

    name: str
    """Of its folder: `base`, `objectives=ALC`, `queries=4`, ..."""
    axes: dict[str, str]
    """Axis -> its value here, for the axes on which it is a row of a table."""
    stage1: tuple[str, ...] = ()
    """Overrides."""
    stage2: tuple[str, ...] = ()

    @property
    def shares_stage1(self) -> bool:
        """Whether its stage 1 is that of the base."""
        return self.name != BASE and not self.stage1


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
        if todo := missing(ablation):
            manifests, examples, features, encoder = _prepare(ablation)
            for number, (seed, cell) in enumerate(todo, start=1):
                print(f"[{number}/{len(todo)}] seed {seed}, {cell.name}", file=sys.stderr)
                _run_cell(ablation, seed, cell, manifests, examples, features, encoder)
    finally:
        runs = write_summary(ablation)
        if left := missing(ablation):
            print(f"{describe(left)}; run the same command again to continue", file=sys.stderr)
    return runs


def cells(ablation: Ablation) -> list[Cell]:
    """The base and every cell of the axes that are asked for."""
    first, second = (load_recipe(f"quickstart/stage{stage}", _overrides(ablation, stage)) for stage in (1, 2))
    queries, every = first.bridge.num_queries, first.bridge.cross_attention_every
    axes = {"objectives": "ALC+ALM+ATG", "instruction": "on", "queries": str(queries), "cross_attention": str(every)}
    _refuse_other_base(first, second)
    every_cell = [
        *(("objectives", name, overrides, ()) for name, overrides in SUMS.items()),
        ("instruction", "off", (), ("instruction_aware=false",)),
        *(("queries", str(n), *_both(f"bridge.num_queries={n}")) for n in QUERIES if n != queries),
        *(("cross_attention", str(n), *_both(f"bridge.cross_attention_every={n}")) for n in EVERY if n != every),
    ]
    return [Cell(BASE, axes)] + [
        Cell(f"{axis}={value}", {axis: value}, stage1, stage2)
        for axis, value, stage1, stage2 in every_cell
        if axis in ablation.only
    ]


def missing(ablation: Ablation) -> list[tuple[int, Cell]]:
    """Seed and cell of what is not done yet, in the order in which it is run."""
    every = cells(ablation)
    return [
        (seed, cell)
        for seed in ablation.seeds
        for cell in every
        if not (_folder(ablation, seed, cell.name) / "results.json").is_file()
    ]


def describe(left: Sequence[tuple[int, Cell]]) -> str:
    """What is missing, in one line."""
    by_seed: dict[int, list[str]] = {}
    for seed, cell in left:
        by_seed.setdefault(seed, []).append(cell.name)
    return "missing: " + "; ".join(f"seed {seed}: {', '.join(names)}" for seed, names in by_seed.items())


def write_summary(ablation: Ablation) -> list[Run]:
    """Write `ablation.md`, `ablation.png`, `ablation.svg` and the tables of the cells that are done."""
    done = [
        path
        for cell in cells(ablation)
        for seed in ablation.seeds
        if (path := _folder(ablation, seed, cell.name) / "results.json").is_file()
    ]
    if not done:
        return []
    runs = read_runs(done, published()["corpora"])
    tables = [table for table in build_tables(runs) if table.name.startswith(("table5", "table6", "ablation"))]
    write_tables(tables, ablation.output / "tables")
    left = missing(ablation)
    head = f"# Ablations of the quickstart\n\n{describe(left)}\n\n" if left else "# Ablations of the quickstart\n\n"
    text = f"{head}{_settings_in_words(ablation)}\n\n{markdown(tables)}"
    write_whole(ablation.output / "ablation.md", text)
    draw(tables, ablation.output / "ablation")
    return runs


def _refuse_other_settings(ablation: Ablation) -> None:
    """One output folder belongs to one training and one measurement; seeds and axes may be added."""
    asked = {"overrides": list(ablation.overrides), "tasks": list(ablation.tasks), "scale": ablation.scale}
    path = ablation.output / "ablation.json"
    begun: object = None
    with suppress(OSError, MintError):  # there is none, or it is broken
        begun = read_json(path)
    if isinstance(begun, dict) and begun != asked:
        raise MintError(f"{ablation.output} holds an ablation with {begun}, not with {asked}; give another --output")
    cells(ablation)  # an override that a recipe cannot have is refused before it is written down
    write_json(path, asked)


def _refuse_other_base(first: Recipe, second: Recipe) -> None:
    """The base is the whole method: what the axes switch may not be switched off in all cells."""
    objectives = first.objectives
    assert objectives is not None
    if not (objectives.alc and objectives.alm and objectives.atg and second.instruction_aware):
        raise MintError("the overrides switch off an objective or the instruction, which the ablation does by itself")


def _both(override: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (override,), (override,)


def _overrides(ablation: Ablation, stage: int) -> list[str]:
    """Those of both stages, and those of this one without their prefix."""
    other = f"stage{3 - stage}."
    return [
        override.removeprefix(f"stage{stage}.") for override in ablation.overrides if not override.startswith(other)
    ]


def _folder(ablation: Ablation, seed: int, name: str) -> Path:
    return ablation.output / f"seed{seed}" / name


def _prepare(ablation: Ablation) -> tuple[list[Path], list[Example], Features, AudioEncoder]:
    """Corpora, examples and features that all cells share."""
    font = fetch("soundfont") / "TimGM6mb.sf2"
    manifests = prepare_quickstart(ablation.output / "data", font, seed=DATA_SEED, scale=ablation.scale)
    examples = read_examples(manifests)
    recipe = load_recipe("quickstart/stage1", _overrides(ablation, 1))
    encoder = build_encoder(recipe.encoder, default_device())
    return manifests, examples, prepare_features(encoder, examples, recipe.data.max_seconds), encoder


def _run_cell(
    ablation: Ablation,
    seed: int,
    cell: Cell,
    manifests: Sequence[Path],
    examples: Sequence[Example],
    features: Features,
    encoder: AudioEncoder,
) -> None:
    """Train and measure one cell."""
    folder = _folder(ablation, seed, cell.name)
    folder.mkdir(parents=True, exist_ok=True)
    first = (_folder(ablation, seed, BASE) if cell.shares_stage1 else folder) / "stage1"
    clock = Clock(folder / "seconds.json")
    recipes = [_recipe(ablation, stage, seed, cell, manifests, first) for stage in (1, 2)]
    for recipe, place in zip(recipes, (first, folder / "stage2"), strict=True):
        if not is_finished(place):
            with clock.step(f"stage{recipe.stage}"):
                train(recipe, place, examples, features, encoder)
    with clock.step("evaluation"):
        # A stage 1 that several cells share is measured with the base alone.
        folders = {2: folder / "stage2"} if cell.shares_stage1 else {1: first, 2: folder / "stage2"}
        both = dict.fromkeys((1, 2), features)
        evaluation = evaluate(load_trained(folders), examples, both, tasks=ablation.tasks, seed=DATA_SEED)
    write_results(
        folder / "results.json",
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
        leakage=leakage_record(manifests, evaluation.clips()),
        settings=QUICK.record(),
        **evaluation.record(),
    )


def _recipe(ablation: Ablation, stage: int, seed: int, cell: Cell, manifests: Sequence[Path], first: Path) -> Recipe:
    overrides = [*_overrides(ablation, stage), *(cell.stage1 if stage == 1 else cell.stage2)]
    recipe = load_recipe(f"quickstart/stage{stage}", overrides)
    data = dataclasses.replace(recipe.data, manifests=tuple(str(path) for path in manifests))
    return dataclasses.replace(recipe, data=data, start=str(first) if stage == 2 else None, seed=seed)


def _settings_in_words(ablation: Ablation) -> str:
    changed = f"`{' '.join(ablation.overrides)}`" if ablation.overrides else "the quickstart's recipes as they are"
    seeds = ", ".join(map(str, ablation.seeds))
    return f"Overrides: {changed}. Share of the clips: {ablation.scale:g}. Seeds: {seeds}.\n\n![](ablation.svg)"
