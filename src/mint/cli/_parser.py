"""The parser of every verb, whose mistakes become one line, and the types of its arguments."""

from __future__ import annotations

import math
from argparse import ArgumentParser, ArgumentTypeError, _AppendAction
from typing import TYPE_CHECKING, Any, NoReturn

from mint.types import MintError

if TYPE_CHECKING:
    from argparse import Action, Namespace, _SubParsersAction
    from collections.abc import Sequence

DIGITS = 18
"""Most digits of a whole number: so many are held by torch and by the system."""


class Parser(ArgumentParser):
    """An `ArgumentParser` that raises `MintError`, and takes the last positional arguments wherever they stand."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._actions[0].help = "Show this help message and exit."  # a sentence like all others

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            MintError: always.
        """
        raise MintError(f"{message}; `{self.prog} --help` shows the arguments")

    def parse_known_args(  # type: ignore[override]  # argparse has overloads for other namespaces
        self, args: Sequence[str] | None = None, namespace: Namespace | None = None
    ) -> tuple[Namespace, list[str]]:
        """Parse as argparse does, which takes AUDIO... or key=value... up to the next option; then take the rest.

        Raises:
            MintError: an argument is missing, unknown or out of its range.
        """
        given = list(args or ())
        chosen, rest = super().parse_known_args(given, namespace)

        action = self._last_positional()
        if action is not None and rest:
            late, rest = _split(rest, given)
            convert: Any = action.type or str
            taken = getattr(chosen, action.dest) or []
            setattr(chosen, action.dest, [*taken, *map(convert, late)])

        # argparse would leave this to the parser above, which knows neither the verb nor its options.
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}{self._cure(rest, given)}")
        return chosen, rest

    def _last_positional(self) -> Action | None:
        """Return the positional argument that may be repeated, if the parser has one."""
        positional = self._get_positional_actions()
        return positional[-1] if positional and positional[-1].nargs in ("+", "*") else None

    def _cure(self, rest: Sequence[str], given: Sequence[str]) -> str:
        """Return what to do where several values follow an option that takes one at a time."""
        if all(argument.startswith("-") for argument in rest):
            return ""
        for action in self._actions:
            for option in action.option_strings:
                if isinstance(action, _AppendAction) and option in given:
                    return f" (give {option} once for each value)"
        return ""


def add_action(actions: _SubParsersAction[Parser], name: str, text: str) -> Parser:
    """Add the parser of an action of a verb; the text says what it does."""
    return actions.add_parser(name, help=text, description=text)


def _split(rest: Sequence[str], given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the positional arguments and the options among those that argparse left, in the order of both."""
    # Whatever stands after `--` is positional, even with a hyphen in front.
    tail = list(given[given.index("--") + 1 :]) if "--" in given else []
    if not tail or list(rest[-len(tail) :]) != tail:
        tail = []

    before = rest[: len(rest) - len(tail)]

    positional = [argument for argument in before if argument == "-" or not argument.startswith("-")]
    options = [argument for argument in before if argument not in positional and argument != "--"]
    return positional + tail, options


def whole_number(text: str, smallest: int = 0) -> int:
    """Return an argument that must be a whole number, and not below the smallest."""
    # Digits alone: int() would also take "1_000", " 7 " and "+7".
    if not text.isdecimal() or len(text) > DIGITS or int(text) < smallest:
        most = f" and at most {DIGITS} digits" if text.isdecimal() and len(text) > DIGITS else ""
        raise ArgumentTypeError(f"{text[:40]!r} is not a whole number of at least {smallest}{most}")
    return int(text)


def positive(text: str) -> int:
    """Return an argument that must be a whole number of at least 1."""
    return whole_number(text, 1)


def number(text: str) -> float:
    """Return an argument that must be a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan

    # "nan" and "inf" are numbers to Python, but no answer to any option.
    if not math.isfinite(value):
        raise ArgumentTypeError(f"{text[:40]!r} is not a number")
    return value


def positive_number(text: str) -> float:
    """Return an argument that must be a finite number above 0."""
    value = number(text)
    if value <= 0:
        raise ArgumentTypeError(f"{text[:40]!r} is not a number above 0")
    return value
