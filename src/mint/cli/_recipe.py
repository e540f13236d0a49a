"""The arguments that the verbs which read a recipe share: RECIPE and key=value."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser


def add_recipe(parser: ArgumentParser) -> None:
    """Add the arguments RECIPE and key=value."""
    parser.add_argument(
        "recipe", metavar="RECIPE", help="A YAML file, or the name of a shipped recipe, such as quickstart/stage1."
    )
    add_overrides(parser)


def add_overrides(parser: ArgumentParser) -> None:
    """Add the arguments key=value."""
    parser.add_argument(
        "overrides",
        metavar="key=value",
        nargs="*",
        default=[],
        help="Values that replace those of the recipe, such as training.max_steps=10.",
    )
