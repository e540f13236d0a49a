"""`mint ablate quickstart`: what each part of the method is worth, by training without it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mint.cli._recipe import add_overrides
from mint.types import MintError

if TYPE_CHECKING:
    from argparse import Namespace

    from mint.cli import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "ablate",
        description="Trains the quickstart once for each cell and seed and writes tables and a plot with error bars: "
        "the four sums of losses (Table 5), stage 1 against both stages (Table 6), the instruction in Bridge-Net, the "
        "number of queries, and how often they cross-attend. Interrupted and started again, it goes on where it was.",
    )
    parser.add_argument("what", choices=["quickstart"], help="what is ablated")
    add_overrides(parser)  # `stage1.` or `stage2.` before a key changes that stage alone
    parser.add_argument("--seeds", default="0,1,2", metavar="N,...", help="default: 0,1,2")
    parser.add_argument(
        "--only", metavar="AXIS,...", help="of objectives, stages, instruction, queries, cross_attention (default: all)"
    )
    parser.add_argument(
        "--task", action="append", metavar="TASK", help="measure this task; may be repeated (default: four of them)"
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="share of the quickstart's clips to render (default: 1)"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", default=Path("runs/ablation"), help="runs/ablation")
    parser.add_argument("--dry-run", action="store_true", help="say what is missing, and run nothing")
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Run what is missing and print the tables."""
    from mint.ablation.cells import AXIS_NAMES, TASKS, Ablation, describe, missing
    from mint.ablation.cells import run as run_ablation

    ablation = Ablation(
        arguments.output,
        parse_seeds(arguments.seeds),
        tuple(arguments.only.split(",")) if arguments.only else AXIS_NAMES,
        tuple(arguments.overrides),
        tuple(arguments.task or TASKS),
        arguments.scale,
    )
    if arguments.dry_run:
        left = missing(ablation)
        print(describe(left) if left else "nothing is missing")
        return 0
    run_ablation(ablation)
    print((ablation.output / "ablation.md").read_text(encoding="utf-8"))
    print(f"Written to {ablation.output}: ablation.md, ablation.png, ablation.svg, tables/")
    return 0


def parse_seeds(text: str) -> tuple[int, ...]:
    """`0,1,2` as numbers."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise MintError(f"--seeds is {text!r}; give whole numbers with commas between, such as 0,1,2") from None
