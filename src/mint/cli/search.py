"""`mint search RUN QUERY AUDIO...` and `mint search INDEX QUERY`: rank audio by how well it fits a description."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mint.cli._clips import EachClip, add_run, audio_below, load, print_json
from mint.cli._parser import positive
from mint.cli._timeline import add_timeline, refuse_stray_options, run_timeline
from mint.types import MintError

if TYPE_CHECKING:
    from argparse import Namespace

    from mint.cli import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "search",
        usage="mint search RUN QUERY AUDIO... [--top K] [--json]\n"
        "       mint search INDEX (QUERY | --like FILE) [--top K] [--json]",
        description="Rank audio by how well it fits a description, or by how much it is like another recording.",
    )
    add_run(parser, "The folder of a finished run, or its name on the hub; or an index that `mint index` made.")
    parser.add_argument(
        "words",
        metavar="QUERY AUDIO",
        nargs="*",
        help="The description, such as 'a plucked string'. With a run, audio files follow, or folders, which stand for "
        "all audio files below them.",
    )
    parser.add_argument("--like", metavar="FILE", help="Search an index for what is like this recording.")
    parser.add_argument("--top", type=positive, default=10, metavar="K", help="Print the K best files (default: 10).")
    add_timeline(parser)
    parser.add_argument("--output", type=Path, metavar="FILE", help="Write the timeline to this file.")
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Print the best files with their scores, the best first."""
    refuse_stray_options(arguments)
    if arguments.output is not None and arguments.every is None:
        raise MintError("--output belongs to a timeline; give --every SECONDS as well")

    # As `mint.index.is_index` tells it, which would be imported with all of torch.
    if (Path(arguments.folder) / "index.json").is_file():
        return _search_index(arguments)
    return _search_files(arguments)


def _search_index(arguments: Namespace) -> int:
    """Search in an index, and print where in each file the best window is."""
    if arguments.every is not None:
        raise MintError(f"{arguments.folder} is an index, whose windows are as it was made; leave out --every")
    if bool(arguments.words) == bool(arguments.like):
        raise MintError(f"{arguments.folder} is an index; give a description, or --like FILE")
    if len(arguments.words) > 1:
        raise MintError(
            f"{arguments.folder} is an index, which knows its files; leave out {arguments.words[1]!r}, "
            "or put the description into quotes"
        )

    from mint.index import Index

    contents = Index.open(arguments.folder).contents
    if not contents.finished:
        print(
            f"mint: {arguments.folder} is not finished; `mint index RUN --output {arguments.folder}` continues it",
            file=sys.stderr,
        )
    try:
        mint = load(contents.run)
    except MintError as error:
        raise MintError(
            f"{error}. {arguments.folder} was made by the run {contents.run}; if it lies elsewhere now, "
            f"`mint index RUN --output {arguments.folder}` notes where"
        ) from None

    index = mint.open_index(arguments.folder)
    if arguments.like:
        hits = index.like(mint.embed_audio(arguments.like), arguments.top)
    else:
        hits = index.search(mint.embed_text(arguments.words[0]), arguments.top)

    if arguments.json:
        print_json([{"audio": hit.path, "score": hit.score, "start": hit.start, "end": hit.end} for hit in hits])
    else:
        for hit in hits:
            print(f"{hit.score:8.3f}  {hit.path}  {hit.start:.1f}-{hit.end:.1f} s")
    return 0


def _search_files(arguments: Namespace) -> int:
    """Rank files by a run; their features are kept, so that the second time is quick."""
    if arguments.like:
        raise MintError(
            f"--like searches an index; make one with `mint index {arguments.folder} FOLDER --output INDEX`"
        )
    if len(arguments.words) < 2:
        raise MintError(
            "give a description and audio files or folders; or an index in the place of the run; "
            "`mint search --help` shows the arguments"
        )

    query, *audio = arguments.words
    if arguments.every is not None:
        every, hop = arguments.every, arguments.hop
        return run_timeline(
            arguments, audio, lambda mint, path: mint.timeline(path, every, hop, query=query), arguments.top
        )
    paths = audio_below(audio)
    mint = load(arguments.folder)
    text = mint.embed_text([query])  # [1, E]

    from tqdm import tqdm

    from mint.evaluation.metrics.similarity import similarity

    # A score does not depend on the other clips, so that one bad file need not spoil the rest.
    clips = EachClip(paths)
    answers = iter(mint.embed_each(paths, cached=True))
    scored = clips.apply(lambda _: similarity(next(answers).get()[None], text).item())
    scores = list(tqdm(scored, total=len(paths), unit="clip", leave=False, disable=None))
    ranked = sorted(scores, key=lambda scored: -scored[1])[: arguments.top]

    if arguments.json:
        print_json([{"audio": path, "score": score} for path, score in ranked])
    else:
        for path, score in ranked:
            print(f"{score:8.3f}  {path}")
    return clips.exit_code
