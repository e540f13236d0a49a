"""`mint ablate quickstart`: what each part of the method is worth, by training without it."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING

from mint.cli._parser import positive_number, whole_number
from mint.cli._recipe import add_overrides
from mint.types import MintError

if TYPE_CHECKING:
    from argparse import Namespace

    from mint.cli import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "ablate",
        description="Train the quickstart once for each variant and seed, and write tables and a plot with error bars. "
        "The variants are the four sums of losses (Table 5), stage 1 against both stages (Table 6), the instruction in "
        "Bridge-Net, the number of queries, and how often they cross-attend. If it is interrupted, the same command "
        "continues where it stopped.",
    )
    parser.add_argument("what", choices=["quickstart"], help="The training that is varied.")
    add_overrides(parser)  # `stage1.` or `stage2.` before a key changes that stage alone
    parser.add_argument(
        "--seeds", default="0,1,2", metavar="N,...", help="The seeds, separated by commas (default: 0,1,2)."
    )
    parser.add_argument(
        "--only",
        metavar="AXIS,...",
        help="The axes that are varied, among objectives, stages, instruction, queries and cross_attention (default: "
        "all).",
    )
    parser.add_argument(
        "--task", action="append", metavar="TASK", help="Measure this task. May be repeated (default: four tasks)."
    )
    parser.add_argument(
        "--scale",
        type=positive_number,
        default=1.0,
        metavar="X",
        help="The share of the clips of the quickstart that is rendered (default: 1).",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        default=Path("runs/ablation"),
        help="The folder of the runs and tables (default: runs/ablation).",
    )
    parser.add_argument("--dry-run", action="store_true", help="Print what is missing, and run nothing.")
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
    """Return the seeds that `0,1,2` names."""
    try:
        return tuple(whole_number(part.strip()) for part in text.split(","))
    except ArgumentTypeError:
        raise MintError(f"--seeds is {text!r}; give whole numbers separated by commas, such as 0,1,2") from None
