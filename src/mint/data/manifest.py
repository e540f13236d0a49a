"""Manifests: JSON Lines, one `Example` a line, audio paths relative to the manifest's folder.

    {"id", "audio", "start"?, "duration"?, "task", "prompt"?, "answer"?, "labels"?, "captions"?, "split", "corpus",
     "metadata"?}

Lines are read one at a time and checked by hand rather than by pydantic: a corpus has millions of them.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from mint.types import Example, MintError

SPLITS = ("train", "validation", "test", "unseen")


def read_manifest(path: str | Path) -> Iterator[Example]:
    """Stream the examples of a manifest; blank lines are passed over.

    Raises:
        MintError: no such file, or a broken line (the message names file, line and problem).
    """
    path = Path(path)
    folder = path.absolute().parent
    for number, line in manifest_lines(path):
        try:
            example = parse_line(line, folder)
        except MintError as error:
            raise MintError(f"{path}, line {number}: {error}") from None
        yield example


def manifest_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a manifest that are not blank, with their numbers from 1.

    Raises:
        MintError: no such file.
    """
    if not path.is_file():
        raise MintError(f"{path}: no such manifest; make one with `mint data prepare`")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.isspace():
                yield number, line


def parse_line(line: bytes, folder: Path) -> Example:
    """Read one line.

    Args:
        line: JSON in UTF-8.
        folder: what the audio path is relative to.

    Raises:
        MintError: invalid JSON, missing or unknown key, wrong type, or unknown split.
    """
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise MintError(f"not valid JSON ({error.msg}, column {error.colno}); write one object a line") from None
    except UnicodeDecodeError as error:
        raise MintError(f"not valid UTF-8 (byte {error.start}); save the file as UTF-8") from None
    if not isinstance(record, dict):
        raise MintError(f"{type(record).__name__} in place of an object; write one object a line")
    for key, value in record.items():
        if key not in CHECKS:
            near = difflib.get_close_matches(key, CHECKS, n=1)
            cure = f"did you mean {near[0]!r}?" if near else "put further facts under 'metadata'"
            raise MintError(f"unknown key {key!r}; {cure}")
        expected, holds = CHECKS[key]
        if not holds(value):
            raise MintError(f"{key} is {value!r}; it must be {expected}")
    if not record.keys() >= REQUIRED:
        missing = sorted(REQUIRED - record.keys())
        raise MintError(f"key {missing[0]!r} is missing; every line needs {', '.join(sorted(REQUIRED))}")
    record["audio"] = folder / record["audio"]
    record["labels"] = tuple(record.get("labels", ()))
    record["captions"] = tuple(record.get("captions", ()))
    return Example(**record)


def write_manifest(path: str | Path, examples: Iterable[Example]) -> None:
    """Write a manifest in one step: either the whole file is there or what was there before.

    Raises:
        MintError: the folder does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise MintError(f"{path.parent}: no such folder; create it before writing {path.name}")
    folder = path.absolute().parent
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for example in examples:
                file.write(json.dumps(_record(example, folder), ensure_ascii=False) + "\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _record(example: Example, folder: Path) -> dict[str, Any]:
    """The fields that say something, as JSON values."""
    values = {field.name: getattr(example, field.name) for field in fields(example)}
    values["audio"] = Path(os.path.relpath(example.audio.absolute(), folder)).as_posix()
    return {key: value for key, value in values.items() if key in REQUIRED or value not in (None, (), {}, 0.0)}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_seconds(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < float("inf")


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


REQUIRED = frozenset(("id", "audio", "task", "split", "corpus"))

CHECKS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "id": ("text, not empty", _is_name),
    "audio": ("the path of a file", _is_name),
    "start": ("seconds, 0 or more", _is_seconds),
    "duration": ("seconds, above 0, or absent", lambda value: value is None or (_is_seconds(value) and value > 0)),
    "task": ("text, not empty", _is_name),
    "prompt": ("text, or absent", lambda value: value is None or _is_text(value)),
    "answer": ("text, or absent", lambda value: value is None or _is_text(value)),
    "labels": ("a list of texts", _is_texts),
    "captions": ("a list of texts", _is_texts),
    "split": (f"one of {', '.join(SPLITS)}", SPLITS.__contains__),
    "corpus": ("text, not empty", _is_name),
    "metadata": ("an object", lambda value: isinstance(value, dict)),
}
"""Key -> what its value must be, in words and as a test."""
