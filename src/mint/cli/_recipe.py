"""What the verbs that read a recipe share: RECIPE and its overrides, which may also stand after options."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence


def add_recipe(parser: ArgumentParser) -> None:
    """Add the arguments RECIPE and key=value."""
    parser.add_argument("recipe", metavar="RECIPE", help="YAML file, or a shipped recipe such as quickstart/stage1")
    add_overrides(parser)


def add_overrides(parser: ArgumentParser) -> None:
    """Add the arguments key=value."""
    parser.add_argument(
        "overrides", metavar="key=value", nargs="*", help="changes to the recipe, such as training.max_steps=10"
    )
    _accept_anywhere(parser)


def _accept_anywhere(parser: ArgumentParser) -> None:
    """Let overrides stand after options too, where argparse takes no more positional arguments."""
    plain = parser.parse_known_args

    def parse(args: Sequence[str] | None = None, namespace: Namespace | None = None) -> tuple[Namespace, list[str]]:
        chosen, rest = plain(args, namespace)
        late = [argument for argument in rest if "=" in argument and not argument.startswith("-")]
        chosen.overrides = [*chosen.overrides, *late]
        return chosen, [argument for argument in rest if argument not in late]

    parser.parse_known_args = parse  # type: ignore[method-assign,assignment]
