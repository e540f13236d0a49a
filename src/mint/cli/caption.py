"""`mint caption RUN AUDIO...`: describe audio files in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mint.cli._clips import EachClip, add_audio, add_run, load, print_json
from mint.cli._decoding import add_decoding, generate_options
from mint.text_files import one_line

if TYPE_CHECKING:
    from argparse import Namespace

    from mint.cli import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("caption", description="Describe audio files in words.")
    add_run(parser)
    add_audio(parser)
    add_decoding(parser, 40)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Print a caption for each file."""
    options = generate_options(arguments)
    mint = load(arguments.folder)

    clips = EachClip(arguments.audio)
    captions = []
    for path, [caption] in clips.apply(lambda path: mint.caption([path], **options)):
        captions.append({"audio": path, "caption": caption})
        if not arguments.json:
            # Flushed, so that whoever reads along sees each answer when it is there.
            print(f"{path}: {one_line(caption)}", flush=True)

    if arguments.json:
        print_json(captions)
    return clips.exit_code
