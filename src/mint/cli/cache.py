"""`mint cache RECIPE [key=value ...] [--verify [--all] | --prune]`: encode the clips of a recipe before training.

Under `torchrun` or `accelerate launch` each rank, on any number of machines, fills its part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mint.cli._recipe import add_recipe
from mint.types import MintError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence
    from pathlib import Path

    from mint.cli import Subparsers
    from mint.data.features.cache import FeatureCache
    from mint.data.features.encode import Skipped
    from mint.types import AudioEncoder, Example

SHOWN = 10
"""Lines that are printed of a list."""


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("cache", description="Encode the clips of a recipe's manifests before training.")
    add_recipe(parser)
    care = parser.add_mutually_exclusive_group()
    care.add_argument(
        "--verify",
        action="store_true",
        help="Read all features and encode a few clips again. Wrong features are removed, and the exit code is 1.",
    )
    care.add_argument(
        "--prune",
        action="store_true",
        help="Remove the features that this encoder made of clips that are not in the recipe.",
    )
    parser.add_argument("--all", action="store_true", help="With --verify: encode every clip of the recipe again.")
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Fill the cache, or verify or prune it, and print the result."""
    from mint.builders.encoder import build_encoder
    from mint.config import load_recipe
    from mint.data.features.encode import fill_cache
    from mint.data.features.prepare import launched_rank, open_cache, open_examples, part_of_rank, progress

    if arguments.all and not arguments.verify:
        raise MintError("--all says how much --verify checks; give both")
    # All splits: training reads some of them, evaluation the others.
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    examples = open_examples(recipe.data.manifests)
    encoder = build_encoder(recipe.encoder)
    cache = open_cache(encoder, recipe.data.max_seconds)
    if arguments.verify:
        return verify(cache, encoder, examples, recipe.data.max_seconds, arguments.all)
    if arguments.prune:
        return prune(cache, examples)

    # Ranks share the clips; each writes shards, and a list of what it skipped, of its own.
    rank, ranks = launched_rank()
    part = part_of_rank(examples, rank, ranks)
    filled = fill_cache(cache, encoder, progress(part), recipe.data.max_seconds)

    num_hits = len(part) - len(filled.skipped) - filled.encoded
    whose = f"rank {rank} of {ranks}: " if ranks > 1 else ""
    print(f"{whose}{filled.encoded} encoded, {num_hits} already there, {len(filled.skipped)} skipped: {cache.folder}")
    list_skipped(filled.skipped, cache.folder / (f"skipped-{rank}-of-{ranks}.jsonl" if ranks > 1 else "skipped.jsonl"))
    return 0


def list_skipped(skipped: Sequence[Skipped], path: Path) -> None:
    """Print the first clips that could not be used, and list all of them in a file."""
    from mint.data.features.encode import write_skipped

    print_some("skipped", [f"{one.id}: {one.reason}" for one in skipped])
    try:
        write_skipped(path, skipped)
    except OSError as error:
        # The features are there; a list that is missing must not make hours of encoding look like a failure.
        print(f"  no list of them could be written: {error}")
    else:
        if skipped:
            print(f"  all that were skipped are listed in {path}")


def verify(
    cache: FeatureCache, encoder: AudioEncoder, examples: Sequence[Example], max_seconds: float, check_all: bool
) -> int:
    """Print what is wrong with the cache; return 1 if anything is."""
    from mint.data.features.prepare import progress
    from mint.data.features.upkeep import verify_cache

    result = verify_cache(cache, encoder, examples, max_seconds, check_all, progress)
    print_some("damaged", result.damaged)
    print_some("wrong features", result.wrong)
    print_some("digest of another file", result.wrong_digests)
    print_some("missing", result.missing)

    # What is to be done about it.
    if result.not_removed:
        print(f"  wrong features could not be removed: {result.not_removed}")
    elif result.wrong:
        print("  wrong features are removed")
    if not result.sound():
        rest = "" if check_all else "; --verify --all checks every clip"
        print(f"  `mint cache` without --verify encodes again what is missing{rest}")

    print(f"{result.shards} shards, {len(result.damaged)} damaged; ", end="")
    print(f"{result.clips} clips of the recipe there, {len(result.missing)} missing; ", end="")
    print(f"{result.checked} encoded again, {len(result.wrong)} wrong; ", end="")
    print(f"{result.others} clips of others: {cache.folder}")
    return 0 if result.sound() else 1


def prune(cache: FeatureCache, examples: Sequence[Example]) -> int:
    """Print what was removed."""
    from mint.data.features.upkeep import prune_cache

    result = prune_cache(cache, examples)
    freed = f"{result.freed_bytes / 1e6:.1f} MB freed"
    print(f"{result.removed} clips removed, {result.kept} kept, {freed}: {cache.folder}")
    return 0


def print_some(what: str, lines: Sequence[str]) -> None:
    """Print the first lines of a list and how many more there are."""
    for line in lines[:SHOWN]:
        print(f"  {what} {line}")
    if len(lines) > SHOWN:
        print(f"  and {len(lines) - SHOWN} more")
