"""How does cost grow: of a step with audio, batch, queries and ranks; of ranking with candidates; of retrieval?

Time and peak memory of a stage-1 step of the quickstart's width, with everything but one size fixed; of ranking with
the number of labels; of a search and of a whole retrieval evaluation with the size of the collection. Retrieval is
measured up to a size that takes seconds and extrapolated to a million clips, linearly for a search and quadratically
for the evaluation of all against all; such rows say so, and the plot draws them hollow.

    python benchmarks/growth.py [--plot growth.svg]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.multiprocessing.spawn import spawn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from common import Row, alternate, in_child, parser, peak_memory, report
from mint.builders.language import build_language
from mint.config import LanguageConfig
from mint.evaluation.metrics.retrieval import retrieve
from mint.evaluation.metrics.similarity import maximum
from ranking import PROMPT, QUERIES, audioset_labels, soft_prompts
from shapes import QUICKSTART, TINY, Shape, on_device
from stage1_step import OURS, make_step
from steps import memory_of

FRAMES_PER_SECOND = 6 / 0.96
"""YAMNet's tokens."""
SHARED_WIDTH, SHARED_QUERIES = 256, 8
MILLION = 1_000_000
SEARCHES = 16
"""Texts that are searched for at once."""


@dataclass(frozen=True)
class Sizes:
    """What is varied."""

    seconds: tuple[float, ...] = (3, 5, 10, 20, 30)
    batch: tuple[int, ...] = (4, 8, 16, 32, 64)
    queries: tuple[int, ...] = (4, 8, 16, 32, 64)
    candidates: tuple[int, ...] = (16, 64, 256, 1024, 4096)
    search: tuple[int, ...] = (1_000, 10_000, 100_000)
    evaluation: tuple[int, ...] = (1_000, 2_000, 4_000, 8_000)


SMALLEST = Sizes((3, 5), (2, 4), (2, 4), (4, 8), (50, 100), (50, 100))


def main() -> None:
    options = read_options()
    sizes = SMALLEST if options.quick else Sizes()
    if options.memory:
        print(json.dumps(peaks(options, sizes)))
        return
    memory: dict[str, int | None] = in_child("growth.py", ["--memory", *(["--quick"] if options.quick else [])])
    rows: list[Row] = []
    for case, call in calls(options, sizes):
        (seconds,) = alternate({OURS: call}, options.rounds).values()
        rows.append(Row(case, "time", "s", statistics.median(seconds), rounds=(seconds,)))
        peak = memory.get(case)
        if peak is not None:
            rows.append(Row(case, "peak memory", "B", peak))
    rows += over_ranks(options)
    rows += [
        *extrapolated(rows, f"search for {SEARCHES} texts", power=1),
        *extrapolated(rows, "retrieval evaluation", power=2),
    ]
    report("growth", rows, options)
    draw(rows, options.plot or options.output / "growth.svg")


def read_options() -> argparse.Namespace:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--plot", type=Path, help="file of the plot (growth.svg in the output folder)")
    options.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    return options.parse_args()


def steps(options: argparse.Namespace, sizes: Sizes) -> list[tuple[str, Shape]]:
    """Shapes of stage 1 by case; a case is `what is varied = value`."""
    base = TINY if options.quick else QUICKSTART
    longer = [(s, replace(base, frames=round(s * FRAMES_PER_SECOND))) for s in sizes.seconds]
    return [
        *((f"stage 1, seconds of audio = {seconds:g}", shape) for seconds, shape in longer),
        *((f"stage 1, batch = {batch}", replace(base, batch=batch)) for batch in sizes.batch),
        *((f"stage 1, queries = {queries}", replace(base, queries=queries)) for queries in sizes.queries),
    ]


def calls(options: argparse.Namespace, sizes: Sizes) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is timed, by case; made one at a time."""
    for case, shape in steps(options, sizes):
        yield case, make_step(OURS, shape, "cpu")
    yield from rankings(options, sizes)
    texts = embeddings(SEARCHES, 1, seed=1)[:, 0]
    for clips in sizes.search:
        collection = embeddings(clips, SHARED_QUERIES, seed=0)
        yield f"search for {SEARCHES} texts, clips = {clips}", partial(maximum, collection, texts)
    for clips in sizes.evaluation:
        collection, captions = embeddings(clips, SHARED_QUERIES, seed=0), embeddings(clips, 1, seed=1)[:, 0]
        yield f"retrieval evaluation, clips = {clips}", partial(retrieve, collection, captions, torch.arange(clips))


def rankings(options: argparse.Namespace, sizes: Sizes) -> list[tuple[str, Callable[[], object]]]:
    """Vocabulary ranking of one clip by number of candidates: AudioSet's labels, then pairs of them."""
    language: Any = build_language(LanguageConfig(family="tiny") if options.quick else LanguageConfig())
    labels = ["dog", "rain", "piano", "drum"] if options.quick else audioset_labels()
    candidates = [*labels, *(f"{a}, {b}" for a in labels for b in labels if a != b)]
    soft = soft_prompts(language, 1, QUERIES)
    return [
        (f"ranking, candidates = {count}", partial(language.score, soft, [PROMPT], candidates[:count]))
        for count in sizes.candidates
    ]


def peaks(options: argparse.Namespace, sizes: Sizes) -> dict[str, int | None]:
    """Peak memory by case, of steps and of ranking."""
    found = {case: memory_of(make_step(OURS, shape, "cpu")) for case, shape in steps(options, sizes)}
    for case, call in rankings(options, sizes):
        call()
        found[case] = peak_memory(call)
    return found


def over_ranks(options: argparse.Namespace) -> list[Row]:
    """A step of the same global batch on one and on several ranks, one thread each."""
    rows = []
    ranks = 1
    while ranks <= max(2, os.cpu_count() or 1):
        with tempfile.TemporaryDirectory() as folder:
            spawn(_rank, (ranks, folder, options.quick, options.rounds), nprocs=ranks)
            seconds = json.loads((Path(folder) / "seconds.json").read_text(encoding="utf-8"))
        rows.append(Row(f"stage 1, ranks = {ranks}", "time", "s", statistics.median(seconds), rounds=(tuple(seconds),)))
        ranks *= 2
    return rows


def _rank(rank: int, ranks: int, folder: str, quick: bool, rounds: int) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    shape = TINY if quick else QUICKSTART
    model = DistributedDataParallel(shape.stage1())
    own = slice(rank * shape.batch // ranks, (rank + 1) * shape.batch // ranks)
    batch = on_device({name: tensor[own] for name, tensor in shape.pairs().items()}, "cpu")

    def step() -> None:
        model.zero_grad(set_to_none=True)
        model(**batch)["loss"].backward()
        distributed.barrier()

    (seconds,) = alternate({OURS: step}, rounds).values()
    if rank == 0:
        (Path(folder) / "seconds.json").write_text(json.dumps(seconds), encoding="utf-8")
    distributed.destroy_process_group()


def embeddings(count: int, queries: int, seed: int) -> Tensor:
    """Random points of the shared space [N, Q, E]."""
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(count, queries, SHARED_WIDTH, generator=generator), dim=-1)


def extrapolated(rows: Sequence[Row], what: str, power: int) -> list[Row]:
    """The time for a million clips from the largest collection that was measured."""
    last = max((row for row in rows if row.case.startswith(what)), key=lambda row: _size(row.case))
    factor = (MILLION / _size(last.case)) ** power
    return [
        dataclasses.replace(
            last, case=f"{what}, clips = {MILLION}", measure="time, extrapolated", ours=last.ours * factor, rounds=()
        )
    ]


def _size(case: str) -> float:
    return float(case.rpartition("= ")[2])


def draw(rows: Sequence[Row], path: Path) -> None:
    """One panel for each size that is varied: time, and memory where it was measured."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.case.rpartition(" = ")[0], []).append(row)
    columns = 4
    figure, axes = pyplot.subplots(-(-len(groups) // columns), columns, figsize=(15, 6), layout="constrained")
    for axis, (name, members) in zip(axes.flat, groups.items(), strict=False):
        _panel(axis, name, members)
    for axis in axes.flat[len(groups) :]:
        axis.remove()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _panel(axis: Any, name: str, members: Sequence[Row]) -> None:
    """Time on the left axis, memory on the right one, from 0; what is extrapolated is hollow, on logarithmic scales."""
    series = {
        measure: sorted((_size(row.case), row.ours) for row in members if row.measure == measure and row.ours)
        for measure in ("time", "time, extrapolated", "peak memory")
    }
    axis.plot(*zip(*series["time"], strict=True), "o-", color="tab:blue")
    axis.set_ylabel("seconds", color="tab:blue")
    title, _, varied = name.rpartition(", ")
    axis.set(title=title, xlabel=varied)
    if series["time, extrapolated"]:
        ends = [series["time"][-1], *series["time, extrapolated"]]
        axis.loglog(*zip(*ends, strict=True), "o--", mfc="none", color="tab:blue")
        return
    axis.set_ylim(bottom=0)
    axis.xaxis.get_major_locator().set_params(integer=True)
    if series["peak memory"]:
        other = axis.twinx()
        sizes, peaks = zip(*series["peak memory"], strict=True)
        other.plot(sizes, [peak / 2**20 for peak in peaks], "s-", color="tab:red")
        other.set_ylabel("MiB", color="tab:red")
        other.set_ylim(bottom=0)


if __name__ == "__main__":
    main()
