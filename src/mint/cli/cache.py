"""`mint cache RECIPE [key=value ...]`: encode the clips of a recipe's manifests before training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mint.cli._recipe import add_recipe

if TYPE_CHECKING:
    from argparse import Namespace

    from mint.cli import Subparsers

SHOWN = 10
"""Skipped clips that are listed."""


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("cache", description="Encode the clips of a recipe's manifests before training.")
    add_recipe(parser)
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Fill the cache and print what that came to."""
    from mint.builders import build_encoder
    from mint.config import load_recipe
    from mint.data.features import prepare_features, read_examples

    recipe = load_recipe(arguments.recipe, arguments.overrides)
    examples = read_examples(recipe.data.manifests)
    features = prepare_features(build_encoder(recipe.encoder), examples, recipe.data.max_seconds)
    there = len(examples) - len(features.skipped) - features.encoded
    print(
        f"{features.encoded} encoded, {there} already there, {len(features.skipped)} skipped: {features.cache.folder}"
    )
    for one in features.skipped[:SHOWN]:
        print(f"  skipped {one.id}: {one.reason}")
    if len(features.skipped) > SHOWN:
        print(f"  and {len(features.skipped) - SHOWN} more")
    return 0
