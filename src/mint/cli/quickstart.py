"""`mint quickstart`: train, evaluate and report, on rendered clips or on recordings of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mint.cli._parser import whole_number

if TYPE_CHECKING:
    from argparse import Namespace

    from mint.cli import Subparsers

DEFAULT = "runs/quickstart"
"""The folder of a run on the rendered corpora."""


def add_parser(subparsers: Subparsers) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "quickstart",
        description="Train both stages on one machine in minutes, and write results.json and report.html at the end. "
        "If it is interrupted, the same command continues where it stopped.",
    )
    parser.add_argument(
        "--source",
        type=Path,
        metavar="PATH",
        help="Your own recordings: a folder with one sub-folder for each label, or a CSV or JSON Lines file with the "
        "columns audio, label and, if you have them, caption and split.",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help=f"The folder of the run (default: {DEFAULT}, or {DEFAULT}-NAME with --source).",
    )
    parser.add_argument(
        "--seed",
        type=whole_number,
        default=0,
        metavar="N",
        help="The seed of the data, of new weights and of the order of the clips (default: 0).",
    )
    parser.add_argument(
        "--smoke", action="store_true", help="Use fewer clips and steps, only to show that all parts work."
    )
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Run it and print the table."""
    from mint.quickstart import Quickstart, summary
    from mint.quickstart import run as run_quickstart

    output = arguments.output or default_output(arguments.source)
    quickstart = Quickstart(output, arguments.source, arguments.seed, arguments.smoke)
    results = run_quickstart(quickstart)
    print(summary(quickstart, results))
    return 0


def default_output(source: Path | None) -> Path:
    """Return the folder of a quickstart on a source: named after a folder, or a table without its suffix."""
    if source is None:
        return Path(DEFAULT)
    source = source.absolute()
    # A folder may have a dot in its name, which begins no suffix: `set.v2`.
    return Path(f"{DEFAULT}-{source.stem if source.is_file() else source.name}")
