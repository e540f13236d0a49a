"""`mint caption RUN AUDIO...`: describe audio files in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mint.cli._clips import EachClip, add_audio, add_run, load, one_line, positive, print_json

if TYPE_CHECKING:
    from argparse import Namespace

    from mint.cli import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("caption", description="Describe audio files in words.")
    add_run(parser)
    add_audio(parser)
    parser.add_argument("--beams", type=positive, metavar="N", help="width of the beam search")
    parser.add_argument("--max-tokens", type=positive, metavar="N", help="longest caption, in tokens")
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Print a caption for each file."""
    given = {"num_beams": arguments.beams, "max_new_tokens": arguments.max_tokens}
    options = {name: value for name, value in given.items() if value is not None}
    mint = load(arguments.folder)
    clips = EachClip(arguments.audio)
    captions = []
    for path, [caption] in clips.apply(lambda path: mint.caption([path], **options)):
        captions.append({"audio": path, "caption": caption})
        if not arguments.json:
            print(f"{path}: {one_line(caption)}", flush=True)
    if arguments.json:
        print_json(captions)
    return clips.exit_code
