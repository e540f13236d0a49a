"""`mint cache RECIPE [key=value ...] [--verify | --prune]`: encode the clips of a recipe's manifests before training.

Under `torchrun` or `accelerate launch` each rank, on any number of machines, fills its part.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mint.cli._recipe import add_recipe

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence
    from pathlib import Path

    from mint.cli import Subparsers
    from mint.data.features.cache import FeatureCache, Skipped
    from mint.types import AudioEncoder, Example

SHOWN = 10
"""Skipped clips that are printed."""


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("cache", description="Encode the clips of a recipe's manifests before training.")
    add_recipe(parser)
    care = parser.add_mutually_exclusive_group()
    care.add_argument(
        "--verify", action="store_true", help="read all features and encode some again; exit code 1 if bad"
    )
    care.add_argument("--prune", action="store_true", help="remove this encoder's features of all other clips")
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Fill the cache, or look after it, and print what that came to."""
    import torch

    from mint.builders.encoder import build_encoder
    from mint.config import load_recipe
    from mint.data.features.cache import fill_cache
    from mint.data.features.prepare import launched_rank, open_cache, open_examples, own_part, progress

    recipe = load_recipe(arguments.recipe, arguments.overrides)
    examples = open_examples(recipe.data.manifests)
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    encoder = build_encoder(recipe.encoder, device)
    cache = open_cache(encoder, recipe.data.max_seconds)
    if arguments.verify:
        return verify(cache, encoder, examples, recipe.data.max_seconds)
    if arguments.prune:
        return prune(cache, examples)
    rank, ranks = launched_rank()
    part = own_part(examples, rank, ranks)
    filled = fill_cache(cache, encoder, progress(part), recipe.data.max_seconds)
    there = len(part) - len(filled.skipped) - filled.encoded
    whose = f"rank {rank} of {ranks}: " if ranks > 1 else ""
    print(f"{whose}{filled.encoded} encoded, {there} already there, {len(filled.skipped)} skipped: {cache.folder}")
    list_skipped(filled.skipped, cache.folder / (f"skipped-{rank}-of-{ranks}.jsonl" if ranks > 1 else "skipped.jsonl"))
    return 0


def list_skipped(skipped: Sequence[Skipped], place: Path) -> None:
    """Print the first clips that could not be used, and list all of them in a file."""
    from mint.data.features.cache import write_skipped

    print_some("skipped", [f"{one.id}: {one.reason}" for one in skipped])
    try:
        write_skipped(place, skipped)
    except OSError as error:
        print(f"  no list of them could be written: {error}")
    else:
        if skipped:
            print(f"  all that were skipped are listed in {place}")


def verify(cache: FeatureCache, encoder: AudioEncoder, examples: Sequence[Example], max_seconds: float) -> int:
    """Print what is wrong with the cache; exit code 1 if anything is."""
    from mint.data.features.upkeep import verify_cache

    found = verify_cache(cache, encoder, examples, max_seconds)
    print_some("damaged", found.damaged)
    print_some("wrong features", found.wrong)
    print_some("missing", found.missing)
    shards = f"{found.shards} shards, {len(found.damaged)} damaged, {found.without_checksum} without a checksum"
    clips = f"{found.clips} clips of the recipe there, {len(found.missing)} missing, {len(found.wrong)} wrong"
    print(f"{shards}; {clips}: {cache.folder}")
    return 0 if found.sound() else 1


def prune(cache: FeatureCache, examples: Sequence[Example]) -> int:
    """Print what was removed."""
    from mint.data.features.upkeep import prune_cache

    done = prune_cache(cache, examples)
    print(f"{done.removed} clips removed, {done.kept} kept, {done.freed_bytes / 1e6:.1f} MB freed: {cache.folder}")
    return 0


def print_some(what: str, lines: Sequence[str]) -> None:
    """Print the first lines of a list and how many more there are."""
    for line in lines[:SHOWN]:
        print(f"  {what} {line}")
    if len(lines) > SHOWN:
        print(f"  and {len(lines) - SHOWN} more")
