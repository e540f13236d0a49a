"""`mint search RUN QUERY AUDIO...`: rank audio files by how well they fit a description."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mint.cli._clips import EachClip, add_audio, add_run, audio_below, load, print_json
from mint.cli._parser import positive

if TYPE_CHECKING:
    from argparse import Namespace

    from mint.cli import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("search", description="Rank audio files by how well they fit a description.")
    add_run(parser)
    parser.add_argument("query", metavar="QUERY", help="The description, such as 'a plucked string'.")
    add_audio(parser, "The audio files, or folders, which stand for all audio files below them.")
    parser.add_argument("--top", type=positive, default=10, metavar="K", help="Print the K best files (default: 10).")
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Print the best files with their scores, the best first."""
    paths = audio_below(arguments.audio)
    mint = load(arguments.folder)
    query = mint.embed_text([arguments.query])  # [1, E]

    from tqdm import tqdm

    from mint.evaluation.metrics.similarity import similarity

    # A score does not depend on the other clips, so that one bad file need not spoil the rest.
    clips = EachClip(paths)
    scored = clips.apply(lambda path: similarity(mint.embed_audio([path]), query).item())
    scores = list(tqdm(scored, total=len(paths), unit="clip", leave=False, disable=None))
    ranked = sorted(scores, key=lambda scored: -scored[1])[: arguments.top]

    if arguments.json:
        print_json([{"audio": path, "score": score} for path, score in ranked])
    else:
        for path, score in ranked:
            print(f"{score:8.3f}  {path}")
    return clips.exit_code
