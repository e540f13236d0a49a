"""What callers of MINT give by hand: texts, lists of them and seeds, checked before a model is loaded."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import Any

from mint.types import MintError

SEEDS = range(-(1 << 63), 1 << 64)
"""What torch takes as a seed."""


def checked_text(name: str, text: Any, example: str) -> str:
    """Return a text as a plain `str`.

    Args:
        name: what it is, in the message.
        text: the value that the caller gave.
        example: what should be given.

    Raises:
        MintError: it is no text, it is blank, or it holds half a character, which no tokenizer reads.
    """
    if not isinstance(text, str):
        raise MintError(f"{name} is {reprlib.repr(text)}; give {example}")
    if not text.strip():
        raise MintError(f"{name} is {text!r}; give {example}")

    # Bytes of the command line that are not UTF-8 arrive as halves of characters.
    try:
        text.encode()
    except UnicodeEncodeError:
        raise MintError(
            f"{name} {reprlib.repr(text)} is not valid Unicode; give it in UTF-8, as the terminal and its locale do"
        ) from None

    # NumPy's own kind of text would stay in results and pickles.
    return str(text)


def listed(name: str, values: Any, example: str) -> list[Any]:
    """Return the values of an iterable as a list.

    Args:
        name: what they are, in the message.
        values: a list, an array, a column of a table, a generator, ... but not a text.
        example: what should be given.

    Raises:
        MintError: it is a text or no iterable, or there is no value in it.
    """
    refused = MintError(f"{name} are {reprlib.repr(values)}; give a list, such as {example}")

    # A text is an iterable of its letters, which nobody means.
    if isinstance(values, str | bytes):
        raise refused
    try:
        found = list(values)
    except TypeError:
        raise refused from None

    if not found:
        raise MintError(f"the list of {name.removeprefix('the ')} is empty; give at least one")
    return found


def checked_labels(labels: Iterable[str]) -> list[str]:
    """Return labels without repetition; errors as `listed` and `checked_text`."""
    texts = [
        checked_text("the label", label, "a list of texts, such as ['dog', 'rain']")
        for label in listed("labels", labels, "['dog', 'rain']")
    ]
    return list(dict.fromkeys(texts))


def checked_seed(seed: Any) -> int | None:
    """Return a seed that torch takes; None stands for none.

    Raises:
        MintError: it is no whole number, or too large.
    """
    if seed is not None and (not isinstance(seed, int) or seed not in SEEDS):
        raise MintError(f"seed is {reprlib.repr(seed)}; give a whole number of at most 64 bits, such as 0")
    return seed
