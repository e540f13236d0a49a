"""`mint data list | prepare CORPUS | validate FILE... | leakage TRAIN... | shard MANIFEST`: corpora and manifests."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mint.cli._parser import add_action, positive_number, whole_number
from mint.types import MintError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from mint.cli import Subparsers
    from mint.data.manifests.leakage import Leakage
    from mint.data.manifests.validate import Report

SHOWN = 10
"""Lines of a list that are printed."""
SHOWN_PROBLEMS = 200


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "data", description="List, prepare, validate, compare or copy corpora and manifests."
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    _add_list(actions)
    _add_prepare(actions)
    _add_leakage(actions)
    _add_shard(actions)
    _add_validate(actions)


def _add_list(actions: Subparsers) -> None:
    """Add the action that shows the corpora."""
    action = add_action(actions, "list", "Show the corpora that can be prepared.")
    action.add_argument("--json", action="store_true", help="Print JSON.")
    action.set_defaults(run=run_list)


def _add_prepare(actions: Subparsers) -> None:
    """Add the action that makes manifests."""
    action = add_action(actions, "prepare", "Make the manifests of a corpus.")
    action.add_argument("corpus", metavar="CORPUS", help="The name of a corpus, as `mint data list` shows it.")
    action.add_argument(
        "--source", type=Path, metavar="PATH", help="The folder of the official files, or your own folder or table."
    )
    action.add_argument(
        "--audio", type=Path, metavar="DIR", help="The folder of the recordings, if they are not below --source."
    )
    action.add_argument("--metadata-only", action="store_true", help="Keep clips whose recording is not there yet.")
    action.add_argument(
        "--columns",
        metavar="NAME=COLUMN,...",
        help="The columns of your own table that stand for audio, caption, ...: audio=file_name,caption=text.",
    )
    action.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        required=True,
        help="The folder of the manifests, or the file of the only one.",
    )
    action.add_argument(
        "--seed",
        type=whole_number,
        default=0,
        metavar="N",
        help="The seed from which splits, captions and renderings are drawn (default: 0).",
    )
    action.set_defaults(run=run_prepare)


def _add_leakage(actions: Subparsers) -> None:
    """Add the action that compares training and test clips."""
    action = add_action(
        actions, "leakage", "Find what training and test clips share; the exit code is 1 if they share recordings."
    )
    action.add_argument("training", type=Path, nargs="+", metavar="TRAIN", help="The manifests that are trained on.")
    action.add_argument(
        "--against", type=Path, nargs="+", metavar="TEST", help="The manifests that are tested on (default: TRAIN)."
    )
    action.add_argument(
        "--blacklist",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="Lists of forbidden recordings, JSON files in the format of WavCaps.",
    )
    action.add_argument(
        "--sound",
        action="store_true",
        help="Decode all clips too, and find copies that are shifted, cut or re-encoded.",
    )
    action.add_argument("--json", action="store_true", help="Print JSON in place of the table.")
    action.set_defaults(run=run_leakage)


def _add_shard(actions: Subparsers) -> None:
    """Add the action that copies clips into shards."""
    action = add_action(actions, "shard", "Copy the clips of a manifest into tar shards, as WebDataset reads them.")
    action.add_argument("manifest", type=Path, metavar="MANIFEST", help="The manifest whose clips are copied.")
    action.add_argument(
        "--output", type=Path, metavar="DIR", required=True, help="The folder for the shards and their manifest."
    )
    action.add_argument(
        "--megabytes",
        type=positive_number,
        default=1000.0,
        metavar="N",
        help="The size of the largest shard (default: 1000).",
    )
    action.set_defaults(run=run_shard)


def _add_validate(actions: Subparsers) -> None:
    """Add the action that checks manifests."""
    action = add_action(
        actions, "validate", "Check manifests and their audio; the exit code is 1 if anything is wrong."
    )
    action.add_argument(
        "manifests", type=Path, nargs="+", metavar="FILE", help="The manifests, which are checked together."
    )
    action.add_argument(
        "--audio",
        default="all",
        metavar="all|N|headers|none",
        help="The clips that are decoded. all (default): every clip; N: so many, drawn at random; headers: none, but "
        "every header is read; none: no file is opened.",
    )
    action.add_argument("--labels", type=Path, metavar="FILE", help="A text file with all valid labels, one a line.")
    action.add_argument(
        "--workers", type=whole_number, metavar="N", help="The number of threads (default: one for each core)."
    )
    action.add_argument("--output", type=Path, metavar="FILE", help="Write JSON to a file as well.")
    action.add_argument("--json", action="store_true", help="Print JSON in place of the table.")
    action.set_defaults(run=run_validate)


def run_list(args: argparse.Namespace) -> int:
    """Print the table of corpora."""
    from dataclasses import asdict

    from mint.data.corpora import CORPORA

    if args.json:
        # Corpora that are rendered or one's own have no entry in the catalogue.
        rows = []
        for name, corpus in CORPORA.items():
            row = {"name": name, "about": corpus.about, "needs_source": corpus.needs_source}
            rows.append(row if corpus.entry is None else row | asdict(corpus.entry))
        print(json.dumps(rows, indent=2))
        return 0

    for name, corpus in CORPORA.items():
        print(f"{name:<16} {corpus.about}{' (needs --source)' if corpus.needs_source else ''}")
        entry = corpus.entry
        if entry is not None:
            print(f"{'':<16} {entry.title}: {entry.clips:,} clips, {entry.hours:,g} h; licence: {entry.licence}")
            print(f"{'':<16} get: {entry.where}")
    return 0


def run_prepare(args: argparse.Namespace) -> int:
    """Make the manifests and print where they are and what they hold."""
    from tqdm import tqdm

    from mint.data.corpora import Request, prepare_corpus
    from mint.data.corpora.own.rows import read_columns

    request = Request(
        args.source,
        args.output,
        args.seed,
        args.audio,
        args.metadata_only,
        # Printed above the progress bar, which a plain print would break.
        lambda line: tqdm.write(f"note: {line}"),
        None if args.columns is None else read_columns(args.columns),
    )
    for manifest in prepare_corpus(args.corpus, request):
        print_prepared(manifest)
    return 0


def print_prepared(manifest: Path) -> None:
    """Print what a manifest holds and what was left out of it."""
    from collections import Counter

    from mint.data.corpora.outputs import read_skipped, skipped_file
    from mint.data.manifests.manifest import read_manifest

    sizes = Counter(example.split for example in read_manifest(manifest))
    print(f"{manifest}: {', '.join(f'{count} {split}' for split, count in sizes.items())}")

    # By reason, since a thousand recordings may be missing for one.
    skipped = Counter(clip["reason"] for clip in read_skipped(manifest))
    for reason, count in skipped.most_common(SHOWN):
        print(f"  skipped{f' {count}' if count > 1 else ''}: {reason}")
    if skipped:
        print(f"  {skipped.total()} skipped in all, listed in {skipped_file(manifest)}")


def run_leakage(args: argparse.Namespace) -> int:
    """Print what training and test clips share."""
    from dataclasses import asdict
    from itertools import chain

    from mint.data.manifests.leakage import find_leakage
    from mint.data.manifests.manifest import read_manifest

    # Streamed: a training manifest may have millions of lines.
    training = chain.from_iterable(map(read_manifest, args.training))
    tests = chain.from_iterable(map(read_manifest, args.against or args.training))
    report = find_leakage(training, tests, args.blacklist, args.sound)
    # The exit code, so that a script may stop before it trains.
    code = 0 if report.clean() else 1
    if args.json:
        print(json.dumps(asdict(report), indent=2))
    else:
        print_leakage(report, args.sound)
    return code


def print_leakage(report: Leakage, sound: bool) -> None:
    """Print how many test clips of each split are shared, some pairs of them, and the clips on blacklists."""
    kinds = ["id", "file", "sound", "caption"] if sound else ["id", "file", "caption"]
    rows = []

    for split in report.splits:
        row = [split.corpus, split.task, split.split, f"{split.clips}"]
        for kind in kinds:
            shared, comparable = getattr(split, f"by_{kind}"), getattr(split, f"with_{kind}")
            row.append(f"{shared} of {comparable}")
        rows.append(row)
    print(f"{report.training_clips} training clips; test clips that are shared, of those that can be compared:")
    print_table(["corpus", "task", "split", "clips", *(f"by {kind}" for kind in kinds)], rows)

    for split in report.splits:
        for kind, trained, tested in split.pairs[:SHOWN]:
            print(f"  same {kind}: {trained} (training), {tested} ({split.split})")
    for kind, reason in report.not_compared().items():
        print(f"note: nothing was compared by {kind}: {reason}")
    for path, counts in report.blacklists.items():
        unread = f"; {counts['unread']} entries unread" if counts["unread"] else ""
        print(f"{path}: {counts['clips']} training clips are on it ({counts['ids']} recordings{unread})")


def run_shard(args: argparse.Namespace) -> int:
    """Write the shards and print what they hold."""
    from mint.data.manifests.tar_shards import write_shards

    # A megabyte is a million bytes, as disks are sold.
    result = write_shards(args.manifest, args.output, round(args.megabytes * 1e6))

    skipped = len(result.skipped)
    print(f"{result.manifest}: {result.clips} clips in {result.shards} shards, {skipped} skipped")
    for name, reason in result.skipped[:SHOWN]:
        print(f"  skipped {name}: {reason}")
    if skipped > SHOWN:
        print(f"  and {skipped - SHOWN} more")
    return 0


def run_validate(args: argparse.Namespace) -> int:
    """Print what manifests hold and what is wrong with them."""
    from dataclasses import asdict

    from mint.data.manifests.validate import validate
    from mint.files import write_whole
    from mint.text_files import one_line, text_lines

    audio = int(args.audio) if args.audio.isdecimal() else args.audio
    if audio not in ("all", "headers", "none") and not isinstance(audio, int):
        raise MintError(f"--audio {audio!r}; give all, headers, none or a number of clips")
    # Refused now: decoding a corpus may take hours.
    if args.output is not None and args.output.is_dir():
        raise MintError(f"--output {args.output} is a folder; give the name of a file")

    labels = None
    if args.labels is not None:
        labels = set(filter(None, map(one_line, text_lines(args.labels))))
    report = validate(args.manifests, audio, labels, args.workers, progress=sys.stderr.isatty())

    # One record for both, so that the file holds what is printed with --json.
    record = json.dumps(asdict(report), indent=2)
    if args.json:
        print(record)
    else:
        print_report(report)
    if args.output is not None:
        write_whole(args.output, record + "\n")
    return 1 if report.problems else 0


def print_report(report: Report) -> None:
    """Print the table of what manifests hold, the first problems and how many there are of each kind."""
    from mint.data.manifests.validate import count_kinds

    rows = []
    for group in report.groups:
        hours = f"{group.seconds / 3600:.2f}"
        counts = [f"{group.clips}", hours, f"{group.labels}", f"{group.captions}"]
        rows.append([group.corpus, group.task, group.split, *counts])
    print_table(["corpus", "task", "split", "clips", "hours", "labels", "captions"], rows)

    for problem in report.problems[:SHOWN_PROBLEMS]:
        print(f"{problem.file}:{problem.line}  {problem.message}")
    if len(report.problems) > SHOWN_PROBLEMS:
        print(f"and {len(report.problems) - SHOWN_PROBLEMS} more; --output FILE lists them all")
    for note in report.notes[:SHOWN]:
        print(f"note: {note.file}:{note.line}  {note.message}")

    kinds = ", ".join(f"{count} {kind}" for kind, count in count_kinds(report.problems).items())
    count = len(report.problems)
    summary = f"{count or 'no'} problem{'s' * (count != 1)}{f' ({kinds})' if count else ''}"
    print(f"{report.clips} clips, {report.decoded} decoded: {summary}")


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns as wide as their longest cell; numbers begin at the right."""
    # The head has a cell in each column, so that an empty table has widths too.
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    print("  ".join(map(str.ljust, head, widths)).rstrip())
    for row in rows:
        cells = []
        for cell, width in zip(row, widths, strict=True):
            cells.append(cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width))
        print("  ".join(cells).rstrip())
