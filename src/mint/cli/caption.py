"""`mint caption RUN AUDIO...`: describe audio files in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mint.cli._clips import add_run
from mint.cli._decoding import add_decoding, generate_options
from mint.cli._each import ClipVerb, add_clips, run_each
from mint.cli._timeline import add_timeline, refuse_stray_options, run_timeline
from mint.text_files import one_line

if TYPE_CHECKING:
    from argparse import Namespace

    from mint.cli import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("caption", description="Describe audio files in words.")
    add_run(parser)
    add_clips(parser, ".jsonl, .csv or .parquet")
    add_decoding(parser, 40)
    add_timeline(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Print or write a caption for each clip, or for each stretch of recordings."""
    options = generate_options(arguments)
    # A timeline answers for stretches of whole recordings, not for clips.
    refuse_stray_options(arguments)
    if arguments.every is not None:
        every, hop = arguments.every, arguments.hop
        return run_timeline(arguments, arguments.audio, lambda mint, path: mint.timeline(path, every, hop, **options))

    asked = ClipVerb(
        "caption",
        {"decoding": options},
        lambda mint, clips: mint.caption_each(clips, **options),
        lambda caption: {"caption": caption},
        lambda row: f"{row['audio']}: {one_line(row['caption'])}",
    )
    return run_each(arguments, asked)
