"""What the benchmarks share: options, alternating rounds, memory, the record of machine and versions, the table.

Whatever is compared runs in one process on the same data, in turn, so that a machine that slows down slows all of it.
A figure is the median of the rounds; all rounds stand in the JSON file. A ratio says how many times better MINT is: of
times and sizes, theirs over ours; of throughputs, ours over theirs.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mint.machine import git_commit

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PACKAGES = ("mint-audio", "torch", "transformers", "numpy", "soundfile", "soxr", "librosa")
"""Whose versions are recorded."""
HEAD = ("case", "measure", "MINT", "compared with", "theirs", "times better", "aim")
UNITS = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "B": ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB")),
    "FLOP": ((1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP")),
    "FLOP/s": ((1e12, "TFLOP/s"), (1e9, "GFLOP/s"), (1e6, "MFLOP/s")),
    "%": ((0.01, "%"),),
}
"""Units with the prefixes in which they are shown, the largest first; any other is shown as it is."""


@dataclass(frozen=True)
class Row:
    """One measured figure, alone or beside a peer's."""

    case: str
    """What it was measured on: shape, batch, format, ..."""
    measure: str
    unit: str
    """`s`, `B`, `FLOP`, `FLOP/s`, `%` (a share of 1), or anything else."""
    ours: float
    peer: str = ""
    theirs: float | None = None
    aim: float | None = None
    """Ratio that is wanted."""
    more_is_better: bool = False
    rounds: tuple[tuple[float, ...], ...] = ()
    """What the medians are of: ours, theirs."""

    @property
    def ratio(self) -> float | None:
        """How many times better ours is; None where there is nothing to compare with."""
        if not self.theirs or not self.ours:
            return None
        return self.ours / self.theirs if self.more_is_better else self.theirs / self.ours


def parser(description: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    options = argparse.ArgumentParser(description=description)
    level = options.add_mutually_exclusive_group()
    level.add_argument("--quick", action="store_true", help="the smallest sizes, to see that it works; no figures")
    level.add_argument("--all", action="store_true", help="the long cases too")
    options.add_argument("--rounds", type=int, default=5, help="rounds of which the median is taken (5)")
    options.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON file (benchmarks/results)")
    return options


def add_device(options: argparse.ArgumentParser) -> None:
    """`--device`, for benchmarks that also run on an accelerator."""
    default = "cuda" if torch.cuda.is_available() else "cpu"
    options.add_argument("--device", default=default, help="cpu or cuda (the accelerator where there is one)")


def alternate(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, tuple[float, ...]]:
    """Seconds of each round; each variant runs once unmeasured, then all in turn, every second round backwards."""
    for variant in variants.values():
        variant()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds):
        for name in list(variants) if number % 2 == 0 else reversed(list(variants)):
            seconds[name].append(stopwatch(variants[name]))
    return {name: tuple(values) for name, values in seconds.items()}


def stopwatch(call: Callable[[], object]) -> float:
    """Seconds of one call, what it left to an accelerator included."""
    _synchronise()
    start = time.perf_counter()
    call()
    _synchronise()
    return time.perf_counter() - start


def compare(
    case: str,
    measure: str,
    seconds: Mapping[str, tuple[float, ...]],
    aims: Mapping[str, float] | None = None,
    per: float = 1.0,
) -> list[Row]:
    """Rows of what `alternate` gave: the first variant is ours, each other one a peer.

    Args:
        case: of the rows.
        measure: of the rows.
        seconds: from `alternate`.
        aims: wanted ratios by peer.
        per: by how much work the seconds are divided.
    """
    rounds = {name: tuple(value / per for value in values) for name, values in seconds.items()}
    (_, ours), *peers = rounds.items()
    if not peers:
        return [Row(case, measure, "s", statistics.median(ours), rounds=(ours,))]
    return [
        Row(
            case,
            measure,
            "s",
            statistics.median(ours),
            peer,
            statistics.median(theirs),
            (aims or {}).get(peer),
            rounds=(ours, theirs),
        )
        for peer, theirs in peers
    ]


def peak_memory(step: Callable[[], object]) -> int | None:
    """Bytes that a call needs at its peak beyond what is held when it starts; None where that cannot be measured.

    On an accelerator the allocator's own count; on Linux the resident size, whose maximum the kernel resets on request.
    """
    if torch.cuda.is_available() and torch.cuda.memory_allocated():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    before = _status("VmRSS")
    step()
    return max(0, _status("VmHWM") - before)  # the kernel counts in batches of pages


def in_child(script: str, arguments: Sequence[str]) -> Any:
    """Run a script of this folder by itself and read the JSON in the last line that it prints.

    Blocks of memory go back to the system as soon as they are free, so that the resident size is what is in use.
    """
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    finished = subprocess.run(
        [sys.executable, str(HERE / script), *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(finished.stdout.splitlines()[-1])


def report(name: str, rows: Sequence[Row], options: argparse.Namespace, **extra: Any) -> Path:
    """Write the JSON file of a benchmark and print its table."""
    content = {
        "benchmark": name,
        "command": " ".join(["python", f"benchmarks/{name}.py", *sys.argv[1:]]),
        "quick": bool(options.quick),
        "commit": git_commit(),
        "machine": machine(),
        "versions": versions(),
        "rows": [{**dataclasses.asdict(row), "ratio": row.ratio} for row in rows],
        **extra,
    }
    options.output.mkdir(parents=True, exist_ok=True)
    path: Path = options.output / f"{name}.json"
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\n## {name}" + (" (smallest sizes: the figures say nothing)" if options.quick else "") + "\n")
    print(table(rows))
    return path


def read_rows(path: Path) -> list[Row]:
    """The rows of a JSON file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    names = {field.name for field in dataclasses.fields(Row)}
    return [Row(**{name: value for name, value in row.items() if name in names}) for row in content["rows"]]


def table(rows: Iterable[Row]) -> str:
    """Rows as a Markdown table."""
    lines = [HEAD, ("---",) * 2 + ("---:", "---", "---:", "---:", "---:")]
    for row in rows:
        times = "" if row.ratio is None else f"{row.ratio:.2f}"
        theirs = "" if row.theirs is None else show(row.theirs, row.unit)
        aim = "" if row.aim is None else f"{row.aim:.2f}"
        lines.append((row.case, row.measure, show(row.ours, row.unit), row.peer, theirs, times, aim))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def show(value: float, unit: str) -> str:
    """A figure with three digits and the prefix that suits it."""
    scale, name = next(
        ((scale, name) for scale, name in UNITS.get(unit, ()) if abs(value) >= scale),
        UNITS[unit][-1] if unit in UNITS else (1.0, unit),
    )
    shown = value / scale
    digits = f"{shown:,.0f}" if abs(shown) >= 100 else f"{shown:.3g}"
    return f"{digits} {name}"


def machine() -> dict[str, Any]:
    """What it runs on, and how busy that was."""
    processors = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in processors.splitlines() if line.startswith("model name")]
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None,
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that matter."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def _synchronise() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _status(key: str) -> int:
    """Bytes of an entry of this process's status."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return 1024 * int(lines[key].split()[0])
