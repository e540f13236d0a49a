"""How much of the machine do the two stages use, and where does the rest go?

The peak is the best square matrix product measured in the same run (float32 on CPU, bfloat16 on an accelerator). The
achieved rate of a step is what torch's counter finds in matrix products and attention, forward and backward, over the
time of the step; everything else a step does counts as time and not as work. The profile lists where the time goes by
operator. The optimiser is timed apart.

    python benchmarks/roofline.py [--stage 1 2] [--batch 64] [--device cuda]
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import stage1_step
import stage2_step
from common import Row, add_device, alternate, parser, report
from shapes import PAPER, QUICKSTART, TINY, Shape
from steps import Step

MATRIX = {"cpu": (1024, 2048, 3072), "cuda": (4096, 8192, 16384)}
"""Sizes of the square products of which the fastest is the peak."""
ACCELERATOR_AIM = 0.4
"""Share of the peak that is wanted of stage 1 at the paper's shape on an accelerator."""
ACCELERATOR_BATCH = 64
SHOWN = 12
"""Operators listed."""


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--stage", nargs="+", type=int, choices=(1, 2), default=(1, 2), help="(both)")
    options.add_argument("--batch", type=int, help="pairs (the shape's; 64 on an accelerator)")
    add_device(options)
    chosen = options.parse_args()
    peak = matrix_peak(chosen)
    rows = [Row("square matrix products", "peak", "FLOP/s", peak, more_is_better=True)]
    profiles = {}
    for case, step in make_steps(chosen).items():
        rows += measure(case, step, peak, chosen)
        profiles[case] = by_operator(step)
    report("roofline", rows, chosen, device=chosen.device, profiles=profiles)
    for case, shares in profiles.items():
        print(f"\n{case}, share of the time by operator:")
        print("".join(f"  {share:6.1%}  {name}\n" for name, share in shares.items()), end="")


def matrix_peak(options: argparse.Namespace) -> float:
    """FLOP/s of the fastest square matrix product."""
    kind = "cpu" if options.device == "cpu" else "cuda"
    best = 0.0
    for size in MATRIX[kind][:1] if options.quick else MATRIX[kind]:
        dtype = torch.float32 if kind == "cpu" else torch.bfloat16
        left, right = (torch.randn(size, size, dtype=dtype, device=options.device) for _ in range(2))
        (seconds,) = alternate({"product": lambda a=left, b=right: a @ b}, options.rounds).values()  # type: ignore[misc]
        best = max(best, 2 * size**3 / min(seconds))
    return best


def make_steps(options: argparse.Namespace) -> dict[str, Step]:
    """Our steps by case."""
    shapes = [TINY] if options.quick else [QUICKSTART, *([PAPER] if options.all or options.device != "cpu" else [])]
    batch = options.batch or (ACCELERATOR_BATCH if options.device != "cpu" and not options.quick else None)
    scripts: dict[int, Any] = {1: stage1_step, 2: stage2_step}
    steps = {}
    for stage in options.stage:
        for shape in shapes:
            sized: Shape = replace(shape, batch=batch or shape.batch)
            steps[f"stage {stage}, {sized.case}"] = scripts[stage].make_step("MINT", sized, options.device)
    return steps


def measure(case: str, step: Step, peak: float, options: argparse.Namespace) -> list[Row]:
    optimiser = torch.optim.AdamW([p for p in step.model.parameters() if p.requires_grad], fused=True)
    step()
    seconds = alternate({"step": step, "optimiser": optimiser.step}, options.rounds)
    rate = step.flops() / statistics.median(seconds["step"])
    aimed = options.device != "cpu" and case.startswith("stage 1, paper")
    return [
        Row(case, "time of a step", "s", statistics.median(seconds["step"]), rounds=(seconds["step"],)),
        Row(case, "achieved", "FLOP/s", rate, more_is_better=True),
        Row(case, "share of the peak", "%", rate / peak, aim=ACCELERATOR_AIM if aimed else None, more_is_better=True),
        Row(case, "optimiser", "s", statistics.median(seconds["optimiser"]), rounds=(seconds["optimiser"],)),
    ]


def by_operator(step: Step) -> dict[str, float]:
    """Share of the time of one step by operator, the largest first."""
    on_accelerator = next(step.model.parameters()).is_cuda
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_accelerator else [])]
    step()
    with profile(activities=activities) as profiler:
        step()
    times: Counter[str] = Counter()
    for event in profiler.key_averages():
        times[event.key] += event.self_device_time_total if on_accelerator else event.self_cpu_time_total
    total = sum(times.values())
    return {name: time / total for name, time in times.most_common(SHOWN)}


if __name__ == "__main__":
    main()
