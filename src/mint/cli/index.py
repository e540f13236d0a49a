"""`mint index RUN SOURCE... --output INDEX`: make an index of audio to search in, or bring one up to date."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mint.cli._clips import load, print_json
from mint.cli._parser import positive_number

if TYPE_CHECKING:
    from argparse import Namespace

    from mint.cli import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "index",
        description="Make an index of audio for `mint search INDEX`, or bring one up to date: what is new or changed "
        "is embedded, and what is gone is removed. After an interruption, the same command continues.",
    )
    parser.add_argument("folder", metavar="RUN", help="The folder of a finished run, or its name on the hub.")
    parser.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="*",
        help="Folders, which stand for all audio files below them, manifests, or audio files. Without any, those that "
        "the index knows.",
    )
    parser.add_argument("--output", metavar="INDEX", required=True, help="The folder of the index.")
    parser.add_argument(
        "--every",
        type=positive_number,
        metavar="SECONDS",
        help="The windows that longer recordings are heard through (default: those of the run, 30 s).",
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON object in place of a line of text.")
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Print how many clips are new, changed, removed, unchanged and skipped."""
    mint = load(arguments.folder)

    from functools import partial

    from tqdm import tqdm

    # In a log file each update of the bar is a line.
    interval = 0.5 if sys.stderr.isatty() else 30.0
    bar = partial(tqdm, desc="index", unit="clip", mininterval=interval)
    updated = mint.index(
        arguments.sources, arguments.output, arguments.every, lambda clips, count: bar(clips, total=count)
    )

    for skipped in updated.skipped:
        print(f"mint: {skipped.reason}", file=sys.stderr)
    counts = {
        "new": updated.new,
        "changed": updated.changed,
        "removed": updated.removed,
        "unchanged": updated.unchanged,
        "skipped": len(updated.skipped),
    }
    clips, windows = len(updated.index), updated.index.num_windows
    if arguments.json:
        files = [{"audio": one.audio, "reason": one.reason} for one in updated.skipped]
        print_json({"index": arguments.output, **counts, "clips": clips, "windows": windows, "skipped_files": files})
    else:
        done = ", ".join(f"{count} {name}" for name, count in counts.items())
        print(f"{arguments.output}: {done}; {clips} clips, {windows} windows")
    return 2 if updated.skipped else 0
