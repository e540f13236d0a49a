"""What the verbs share that ask a model about clips one by one: which clips, and where the answers go."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mint.cli import describe
from mint.cli._clips import load, print_json
from mint.types import Example, MintError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Iterable, Iterator

    from mint.data.features.stream import Source
    from mint.inference import Answer, Mint


@dataclass(frozen=True)
class ClipVerb:
    """A verb that answers clip by clip."""

    verb: str
    options: dict[str, Any]
    """What answers depend on besides the run and the clip; JSON values."""
    answers: Callable[[Mint, Iterable[Source]], Iterator[Answer[Any]]]
    """Asks the model about clips, in order."""
    columns: Callable[[Any], dict[str, Any]]
    """The columns of an answer beside those that name the clip."""
    show: Callable[[dict[str, Any]], str]
    """What is printed for a person of a row."""


def add_clips(parser: ArgumentParser, formats: str) -> None:
    """Add the arguments AUDIO... and the option --output; `formats` says what its file may be."""
    parser.add_argument(
        "audio",
        metavar="AUDIO",
        nargs="+",
        help="Audio files (wav, flac, ogg, opus, mp3, aiff, ...), folders, manifests (.jsonl, .parquet), or lists of "
        "paths (.txt, one path a line, relative to the list).",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=f"Write the results to this file ({formats}) in place of printing them. The same command goes on where "
        "it was stopped; torchrun and accelerate launch share the work among processes.",
    )


def run_each(arguments: Namespace, asked: ClipVerb) -> int:
    """Answer for each clip, on standard output or in a file, and return the exit code: 2 if a clip failed."""
    from mint.batches.formats import check_format
    from mint.batches.sources import gather
    from mint.files import check_writable

    # All is checked before the model is loaded, which may take minutes.
    sources = gather(arguments.audio)
    if arguments.output is None:
        return _print_each(load(arguments.folder), sources, asked, arguments.json)

    if arguments.json:
        raise MintError("--json belongs to results that are printed; with --output, the name of the file says its form")
    check_format(arguments.output, asked.verb)
    check_writable(arguments.output)
    return _write_each(load(arguments.folder), sources, asked, arguments.output)


def _print_each(mint: Mint, sources: list[Source], asked: ClipVerb, as_json: bool) -> int:
    """Print each answer as soon as it is there, or all as one JSON array; a bad clip is told on standard error."""
    from mint.batches.sources import row_of

    # All rows have the same keys, whether their clips are files or parts of files.
    with_parts = any(isinstance(source, Example) for source in sources)
    rows, num_failed = [], 0
    for answer in asked.answers(mint, sources):
        row = row_of(answer.audio, with_parts)
        if answer.error is not None:
            # Of a single clip the error is the result of the command.
            if len(sources) == 1:
                raise answer.error
            line, _ = describe(answer.error)
            named = Path(row["audio"]).name in line
            print(f"mint: {line}" if named else f"mint: {row['audio']}: {line}", file=sys.stderr)
            num_failed += 1
            continue

        row |= asked.columns(answer.value)
        if as_json:
            rows.append(row)
        else:
            # Flushed, so that whoever reads along sees each answer when it is there.
            print(asked.show(row), flush=True)

    if as_json:
        print_json(rows)
    return 2 if num_failed else 0


def _write_each(mint: Mint, sources: list[Source], asked: ClipVerb, output: Path) -> int:
    """Write the answers to a file, and say on standard error how far it came."""
    from mint.batches.job import Job
    from mint.files import sha256

    runs = {f"stage{stage}": sha256(folder / "model.safetensors") for stage, folder in mint.folders.items()}
    # The weights say which run it is, wherever its folder lies.
    job = Job(output, {"verb": asked.verb, "run": runs, **asked.options})
    try:
        outcome = job.run(sources, lambda clips: asked.answers(mint, clips), asked.columns)
    except KeyboardInterrupt:
        print("mint: what is done is kept; the same command goes on from there", file=sys.stderr)
        raise

    # One of the processes speaks for all.
    if outcome.is_first_rank:
        print(f"Written to {output}: {outcome.done} of {len(sources)} clips")
        if outcome.failed:
            failed = f"{outcome.failed} of {len(sources)} clips could not be used"
            print(f"mint: {failed}; {job.errors} says why", file=sys.stderr)
    return 2 if outcome.failed else 0
