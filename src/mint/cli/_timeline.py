"""The options of the verbs that tell what is heard where in a recording, and what they print and write."""

from __future__ import annotations

import heapq
import sys
from typing import TYPE_CHECKING

from mint.cli import describe
from mint.cli._clips import load
from mint.cli._parser import positive_number
from mint.types import MintError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Iterator, Sequence

    from mint.inference import Mint, Stretch

FORMATS = ("table", "json", "audacity", "raven")


def add_timeline(parser: ArgumentParser) -> None:
    """Add the options --every, --hop and --format."""
    group = parser.add_argument_group("timeline")
    group.add_argument(
        "--every",
        type=positive_number,
        metavar="SECONDS",
        help="Tell what is heard where in recordings of any length: an answer for each piece of so many seconds. "
        "Neighbours with the same answer are one line.",
    )
    group.add_argument(
        "--hop",
        type=positive_number,
        metavar="SECONDS",
        help="From the beginning of one piece to that of the next (default: --every, so that pieces do not overlap).",
    )
    group.add_argument(
        "--format",
        choices=FORMATS,
        help="A table (in a file, CSV), JSON, Audacity's label track, or a selection table of Raven (default: by the "
        "end of the name of --output: .csv, .json, .txt, .selections.txt; else a table).",
    )


def refuse_stray_options(arguments: Namespace) -> None:
    """Refuse options of a timeline where none is asked for."""
    if arguments.every is None:
        for name in ("hop", "format"):
            if getattr(arguments, name) is not None:
                raise MintError(f"--{name} belongs to a timeline; give --every SECONDS as well")


def run_timeline(
    arguments: Namespace,
    audio: Sequence[str],
    stretches: Callable[[Mint, str], Iterator[Stretch]],
    top: int | None = None,
) -> int:
    """Print or write what is heard where in each recording, and return the exit code.

    Args:
        arguments: those of the verb.
        audio: recordings, or folders of them.
        stretches: asks the model about one recording.
        top: how many stretches are kept, those of the highest scores, the best first; None: all, in their order.
    """
    from mint.batches.label_files import as_text, format_of
    from mint.batches.sources import gather
    from mint.data.audio.pieces import check_times
    from mint.files import check_writable, write_whole

    # All is checked before the model is loaded.
    check_times(arguments.every, arguments.every if arguments.hop is None else arguments.hop)
    output = getattr(arguments, "output", None)
    name = "json" if arguments.json and arguments.format is None else format_of(output, arguments.format)
    paths = [str(source) for source in gather(audio) if isinstance(source, str)]
    if not paths:
        raise MintError("a timeline is that of whole recordings; give audio files or folders")
    if name == "audacity" and len(paths) > 1:
        raise MintError("a label track belongs to one recording; give one file, or another --format")
    if output is not None:
        check_writable(output)

    # Lines for people come as they are heard; all other forms are whole.
    prints_lines = output is None and name == "table"
    timelines, num_failed = [], 0
    mint = load(arguments.folder)
    for path in paths:
        if prints_lines and len(paths) > 1:
            print(path, flush=True)
        try:
            timelines.append((path, *_heard_in(path, stretches(mint, path), top, prints_lines)))
        except (MintError, OSError) as error:
            # Of a single recording the error is the result of the command.
            if len(paths) == 1:
                raise
            print(f"mint: {describe(error)[0]}", file=sys.stderr)
            num_failed += 1

    if output is not None:
        write_whole(output, as_text(name, timelines))
        print(f"Written to {output}: {sum(len(found) for _, _, found in timelines)} stretches")
    elif not prints_lines:
        print(as_text(name, timelines), end="")
    return 2 if num_failed else 0


def _heard_in(
    path: str, stretches: Iterator[Stretch], top: int | None, prints_lines: bool
) -> tuple[float, list[Stretch]]:
    """Return the highest frequency of a recording and its stretches, with a bar on standard error."""
    from tqdm.auto import tqdm

    from mint.batches.label_files import table_line
    from mint.data.audio.decode import probe

    # The header says how far the bar goes; what is decoded counts for the times.
    length, rate, _ = probe(path)
    with tqdm(total=round(length), unit="s", desc="heard", leave=False, disable=None) as bar:

        def noticed() -> Iterator[Stretch]:
            for stretch in stretches:
                bar.update(round(stretch.end) - bar.n)
                if prints_lines and top is None:
                    # Each line when it is there; the bar is drawn again below it.
                    bar.clear()
                    print(table_line(stretch), flush=True)
                yield stretch

        if top is None:
            return rate / 2, list(noticed())
        # Of a long recording only the best are kept.
        best = heapq.nlargest(top, noticed(), key=lambda stretch: stretch.score or 0.0)

    if prints_lines:
        for stretch in best:
            print(table_line(stretch), flush=True)
    return rate / 2, best
