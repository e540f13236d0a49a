"""The keys of a recipe, as `mint train RECIPE --help-keys` prints them from the fields of `mint.config`."""

from __future__ import annotations

import dataclasses
import json
import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from mint.config import Recipe, recipe_to_dict

NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", types.NoneType: "null"}
"""What the types are called."""
WIDTH = 100
"""Characters of a line."""
SECTION = "section"
"""The kind of a key that holds others."""


class Key(NamedTuple):
    """One key of a recipe."""

    name: str
    """Dotted, such as `bridge.num_layers`."""
    kind: str
    """The type in words."""
    default: str | None
    """The default in YAML; None: the key must be given, or is a section."""
    text: str
    """The docstring of the field, in one line."""


def describe_keys(recipe: Recipe) -> str:
    """Return every key with its type, its default, the recipe's own value where that is another, and its docstring."""
    values = recipe_to_dict(recipe)
    paragraphs = []
    for key in recipe_keys():
        line = f"{key.name}: {key.kind}"
        if key.kind != SECTION:
            # A section has no value of its own.
            line += ", required" if key.default is None else f", default {key.default}"
            value = _value_of(values, key.name)
            if value not in (None, key.default):
                line += f"; here {value}"
        indent = "    "
        paragraphs.append(textwrap.fill(line, WIDTH, subsequent_indent=indent, break_on_hyphens=False))
        paragraphs.append(textwrap.fill(key.text, WIDTH, initial_indent=indent, subsequent_indent=indent))
    return "\n".join(paragraphs)


def recipe_keys(section: Any = Recipe, prefix: str = "") -> Iterator[Key]:
    """Yield the keys of a section of a recipe, each section followed by its own keys."""
    for name, field in section.__pydantic_fields__.items():
        text = " ".join((field.description or "").split())
        # A section may be absent, as `LoraConfig | None`: its keys are listed all the same.
        alternatives = typing.get_args(field.annotation) or (field.annotation,)
        inner = next((one for one in alternatives if dataclasses.is_dataclass(one)), None)
        if inner is None:
            default = None if field.is_required() else _yaml(field.get_default(call_default_factory=True))
            yield Key(f"{prefix}{name}", describe_type(field.annotation), default, text)
        else:
            yield Key(f"{prefix}{name}", SECTION, None, text)
            yield from recipe_keys(inner, f"{prefix}{name}.")


def describe_type(kind: Any) -> str:
    """Return a type in words, such as `list of text` or `number or null`."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return " | ".join(map(str, inner))
    if origin is tuple:
        return f"list of {describe_type(inner[0])}"
    if origin is dict:
        return f"mapping to {describe_type(inner[1])}"
    if origin is types.UnionType:
        return " or ".join(map(describe_type, inner))
    return NAMES.get(kind, "any value")


def _value_of(values: Any, name: str) -> str | None:
    """Return the value of a dotted key in YAML; None if the recipe does not have its section."""
    for step in name.split("."):
        if not isinstance(values, dict):
            return None
        values = values[step]
    return _yaml(values)


def _yaml(value: Any) -> str:
    """Return a value as it is written in YAML, of which JSON is a part."""
    # Text is shown without quotes, as recipes are written, where it can be seen without them.
    is_plain = isinstance(value, str) and value.isprintable() and value.strip() != ""
    return str(value) if is_plain else json.dumps(value, ensure_ascii=False)
