"""`mint compare A.json B.json`: whether two runs differ by more than chance on the same clips."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

    from mint.cli import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "compare",
        description="Tell whether two runs differ by more than chance: a paired bootstrap over the clips that both "
        "results files measured, in every metric that both have.",
    )
    parser.add_argument("first", metavar="A.json", type=Path, help="The results file of one run.")
    parser.add_argument("second", metavar="B.json", type=Path, help="The results file of the other run.")
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Print the differences."""
    from mint.evaluation.results.compare import compare, comparison_table
    from mint.evaluation.results.file import read_results

    paths = (arguments.first, arguments.second)
    found = compare(*(read_results(path) for path in paths))
    print(comparison_table(found, (str(paths[0]), str(paths[1]))))
    return 0
