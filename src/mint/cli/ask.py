"""`mint ask RUN AUDIO... --prompt TEXT`: answer an instruction about audio files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mint.cli._clips import add_run
from mint.cli._decoding import add_decoding, generate_options
from mint.cli._each import ClipVerb, add_clips, run_each
from mint.text_files import one_line

if TYPE_CHECKING:
    from argparse import Namespace

    from mint.cli import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("ask", description="Answer an instruction about audio files.")
    add_run(parser)
    add_clips(parser, ".jsonl, .csv or .parquet")
    parser.add_argument(
        "--prompt", required=True, metavar="TEXT", help="The instruction, such as 'The genre of this music is'."
    )
    add_decoding(parser, 40)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Print or write the answer for each clip."""
    options, prompt = generate_options(arguments), arguments.prompt
    asked = ClipVerb(
        "ask",
        {"prompt": prompt, "decoding": options},
        lambda mint, clips: mint.ask_each(clips, prompt, **options),
        lambda answer: {"prompt": prompt, "answer": answer},
        lambda row: f"{row['audio']}: {one_line(row['answer'])}",
    )
    return run_each(arguments, asked)
