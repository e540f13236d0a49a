"""Values of a row as people write them: numbers, seconds, true or false, splits, captions.

Each function returns the value or raises a MintError that says what is wrong with it, so that a reader can leave out
that row and go on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from mint.text_files import one_line
from mint.types import Example, MintError

TRUE = ("true", "1", "1.0", "yes", "y", "t")
FALSE = ("false", "0", "0.0", "no", "n", "f")
"""How programs and spreadsheets write the two, in lower case."""
NO_CAPTION = "it has no caption"


def filled(row: Mapping[str, str], key: str) -> str:
    """Return a text on one line that is not empty."""
    text = one_line(row[key])
    if not text:
        raise MintError(f"it has no {key}")
    return text


def number(row: Mapping[str, str], key: str) -> float:
    """Return a finite number."""
    try:
        value = float(row[key])
    except ValueError:
        value = math.nan

    # A number that is not finite passes for one, and would break what computes with it.
    if not math.isfinite(value):
        raise MintError(f"{key} is {row[key]!r}; it must be a number")
    return value


def seconds(row: Mapping[str, str], key: str) -> float:
    """Return a time in seconds, 0 or more."""
    value = number(row, key)

    if value < 0:
        raise MintError(f"{key} is {row[key]!r}; it must be 0 or more seconds")
    return value


def truth(row: Mapping[str, str], key: str) -> bool:
    """Return whether a value is true, as programs and spreadsheets write it."""
    word = row[key].strip().lower()

    # A word that is neither must not pass for false: a test clip would be trained on.
    if word not in TRUE and word not in FALSE:
        raise MintError(f"{key} is {row[key]!r}; it must be True or False")
    return word in TRUE


def choice(row: Mapping[str, str], key: str, choices: Mapping[str, str]) -> str:
    """Return what one of a few words stands for."""
    word = row[key].strip()

    if word not in choices:
        raise MintError(f"{key} is {row[key]!r}; it must be one of {', '.join(choices)}")
    return choices[word]


def caption(text: object) -> str:
    """Return a caption on one line; one without a letter or digit, such as ".", says nothing and is none."""
    if text is None:
        raise MintError(NO_CAPTION)
    if not isinstance(text, str):
        raise MintError(f"its caption is {text!r}; it must be a text")

    # A line break would end an answer in its middle.
    words = one_line(text)
    if not any(character.isalnum() for character in words):
        raise MintError(NO_CAPTION)
    return words


def captions(texts: Iterable[object]) -> tuple[str, ...]:
    """Return those of some texts that are captions; there must be one."""
    read = []
    for text in texts:
        try:
            read.append(caption(text))
        except MintError:
            continue

    if not read:
        raise MintError(NO_CAPTION)
    return tuple(read)


def check_texts(example: Example) -> None:
    """Refuse a clip without an id, or a text with half a character (half of a surrogate pair, as of a cut emoji).

    No tokenizer takes such a text, and no manifest with such a clip can be read.

    Raises:
        MintError: it says what is wrong.
    """
    if not example.id:
        raise MintError("it has no id")

    texts: tuple[Any, ...] = (example.prompt, example.answer, *example.labels, *example.captions)
    for text in texts:
        # Most texts are ASCII, which is known without reading them again.
        if text is None or text.isascii():
            continue

        try:
            text.encode()
        except UnicodeEncodeError as error:
            half = f"U+{ord(text[error.start]):04X}"
            raise MintError(f"a text holds half a character ({half} in {text!r}); write it again") from None
