"""The text of a recipe: its YAML, the values that replace some of it, and its keys, which must be known ones."""

from __future__ import annotations

import dataclasses
import difflib
import re
import textwrap
import types
import typing
from typing import Any

import yaml

from mint.text_files import one_line
from mint.types import MintError


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number, as in version 1.2 and for everyone who writes learning rates; PyYAML has 1.1."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(text: str, source: str) -> Any:
    """Return the value of a YAML text; `source` opens the error message."""
    try:
        return yaml.load(text, Loader=_Loader)  # a safe one
    except yaml.YAMLError as error:
        raise MintError(f"{source} is not valid YAML: {one_line(str(error))}") from None
    except RecursionError:
        raise MintError(f"{source} is nested too deeply; a recipe has sections, keys and values") from None


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set the value that `key=value` names, in place; sections that are missing are made."""
    key, separator, text = override.partition("=")
    if not separator:
        raise MintError(f"override {override!r} has no value; write key=value, such as training.max_steps=10")
    # A dotted key names its sections from the outside in.
    *parents, last = key.split(".")
    section = values
    for parent in parents:  # `language.lora.rank=4` makes the sections that the file does not have
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise MintError(f"override {override!r}: {parent!r} is a value, not a section")
    section[last] = read_yaml(text, f"override {textwrap.shorten(override, 60)!r}")


def refuse_unknown_keys(config: Any, values: dict[str, Any], source: str, prefix: str) -> None:
    """Refuse keys that a section does not have, at any depth; `prefix` is the section's own dotted key."""
    hints = typing.get_type_hints(config)
    for key, value in values.items():
        if key not in hints:  # pydantic refuses it too, but knows of no similar key
            near = difflib.get_close_matches(str(key), hints, n=1)
            cure = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(hints)}"
            raise MintError(f"{source}: unknown key {prefix + str(key)!r}; {cure}")
        # A section may be optional: its keys are those of the type that is not None.
        for inner in _alternatives(hints[key]):
            if dataclasses.is_dataclass(inner) and isinstance(value, dict):
                refuse_unknown_keys(inner, value, source, f"{prefix}{key}.")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the one type."""
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
