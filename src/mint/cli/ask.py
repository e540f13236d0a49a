"""`mint ask RUN AUDIO... --prompt TEXT`: answer an instruction about audio files."""

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
    parser = subparsers.add_parser("ask", description="Answer an instruction about audio files.")
    add_run(parser)
    add_audio(parser)
    parser.add_argument(
        "--prompt", required=True, metavar="TEXT", help="The instruction, such as 'The genre of this music is'."
    )
    add_decoding(parser, 40)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Print the answer for each file."""
    options = generate_options(arguments)
    mint = load(arguments.folder)

    clips = EachClip(arguments.audio)
    answers = []
    for path, [answer] in clips.apply(lambda path: mint.ask([path], arguments.prompt, **options)):
        answers.append({"audio": path, "prompt": arguments.prompt, "answer": answer})
        if not arguments.json:
            # Flushed, so that whoever reads along sees each answer when it is there.
            print(f"{path}: {one_line(answer)}", flush=True)

    if arguments.json:
        print_json(answers)
    return clips.exit_code
