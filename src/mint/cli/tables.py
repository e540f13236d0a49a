"""`mint tables RESULTS.json ... --output DIR`: the paper's Tables 2 to 6, and ours beside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

    from mint.cli import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "tables",
        description="Write Tables 2 to 6 of the paper as Markdown, CSV and HTML: its published rows, marked as quoted, "
        "and rows from your results files. Files of one recipe with several seeds become mean and standard deviation.",
    )
    parser.add_argument("results", metavar="RESULTS.json", type=Path, nargs="+", help="The results files of your runs.")
    parser.add_argument("--output", type=Path, metavar="DIR", required=True, help="The folder of the tables.")
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Write the tables and print them."""
    from mint.evaluation.results.paper_tables import tables_of
    from mint.evaluation.results.render import markdown, write_tables

    tables = tables_of(arguments.results)
    written = write_tables(tables, arguments.output)
    print(markdown(tables))
    print(f"Written to {arguments.output}: {', '.join(path.name for path in written)}")
    return 0
