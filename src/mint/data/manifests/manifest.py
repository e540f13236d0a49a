"""Manifests: JSON Lines, one `Example` a line, audio paths relative to the manifest's folder.

    {"id", "audio", "start"?, "duration"?, "task", "prompt"?, "answer"?, "labels"?, "unknown"?, "captions"?, "split",
     "corpus", "metadata"?}

A Parquet file with these columns is read as well (`metadata` a struct or JSON text; null: absent), where pyarrow is
installed. Lines are read one at a time and checked by hand rather than by pydantic: a corpus has millions of them.
"""

from __future__ import annotations

import difflib
import importlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from mint.files import writing
from mint.types import Example, MintError

SPLITS = ("train", "validation", "test", "unseen")
PARQUET = ".parquet"
PARQUET_ROWS = 4096
"""Rows that are in memory at a time."""


def read_manifest(path: str | Path) -> Iterator[Example]:
    """Stream the examples of a manifest; blank lines are passed over.

    Raises:
        MintError: no such file, or a broken line (the message names file, line and problem); Parquet without pyarrow.
    """
    path = Path(path)
    folder = path.absolute().parent
    for number, line in manifest_rows(path):
        try:
            example = parse_line(line, folder)
        except MintError as error:
            raise MintError(f"{path}, line {number}: {error}") from None
        yield example


def manifest_rows(path: Path) -> Iterator[tuple[int, bytes | dict[str, Any]]]:
    """The lines of a JSON Lines manifest or the rows of a Parquet one, with their numbers from 1, for `parse_line`.

    Raises:
        MintError: as `read_manifest`.
    """
    if path.suffix.lower() == PARQUET and path.is_file():
        yield from enumerate(_parquet_rows(path), start=1)
    else:
        yield from manifest_lines(path)


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


def parse_line(line: bytes | dict[str, Any], folder: Path) -> Example:
    """Read one line.

    Args:
        line: JSON in UTF-8, or what was read from it.
        folder: what the audio path is relative to.

    Raises:
        MintError: invalid JSON, missing or unknown key, wrong type, or unknown split.
    """
    record = parse_record(line)
    record["audio"] = folder / record["audio"]
    for key in ("labels", "unknown", "captions"):
        record[key] = tuple(record.get(key, ()))
    return Example(**record)


def parse_record(line: bytes | dict[str, Any]) -> dict[str, Any]:
    """The checked values of one line; errors as `parse_line`."""
    record = _decoded(line) if isinstance(line, bytes) else line
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
    return record


def _decoded(line: bytes) -> Any:
    """JSON in UTF-8; what pydantic's fast reader refuses is left to Python's, which says why."""
    try:
        return from_json(line)
    except ValueError:
        pass
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise MintError(f"not valid JSON ({error.msg}, column {error.colno}); write one object a line") from None
    except UnicodeDecodeError as error:
        raise MintError(f"not valid UTF-8 (byte {error.start}); save the file as UTF-8") from None


def write_manifest(path: str | Path, examples: Iterable[Example]) -> None:
    """Write a manifest in one step: either the whole file is there or what was there before.

    Raises:
        MintError: the folder does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise MintError(f"{path.parent}: no such folder; create it before writing {path.name}")

    folder = path.absolute().parent
    with writing(path) as file:
        for example in examples:
            file.write(to_json(to_record(example, folder)) + b"\n")


def to_record(example: Example, folder: Path) -> dict[str, Any]:
    """The fields that say something, as JSON values, the audio path relative to `folder`."""
    values = {field.name: getattr(example, field.name) for field in fields(example)}
    values["audio"] = Path(os.path.relpath(example.audio.absolute(), folder)).as_posix()
    return {key: value for key, value in values.items() if key in REQUIRED or value not in (None, (), {}, 0.0)}


def to_json(record: dict[str, Any]) -> bytes:
    """One line of JSON in UTF-8; a file name that is not valid Unicode is escaped."""
    try:
        return json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(record).encode()


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file without their nulls, some thousands in memory at a time."""
    try:
        pyarrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise MintError(
            f"{path}: Parquet needs pyarrow; `pip install mint-audio[parquet]`, or give JSON Lines"
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(PARQUET_ROWS):
                for row in batch.to_pylist():
                    yield _without_nulls(row)
    except pyarrow.ArrowException as error:
        reason = " ".join(str(error).split())
        raise MintError(f"{path}: not a Parquet file that can be read ({reason}); write it again") from None


def _without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    record = {key: value for key, value in row.items() if value is not None}
    metadata = record.get("metadata")
    if isinstance(metadata, str):
        with suppress(ValueError):  # left as text, which `parse_line` names
            record["metadata"] = json.loads(metadata)
    elif isinstance(metadata, dict):
        record["metadata"] = {key: value for key, value in metadata.items() if value is not None}
    return record


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
    "unknown": ("a list of texts", _is_texts),
    "captions": ("a list of texts", _is_texts),
    "split": (f"one of {', '.join(SPLITS)}", SPLITS.__contains__),
    "corpus": ("text, not empty", _is_name),
    "metadata": ("an object", lambda value: isinstance(value, dict)),
}
"""Key -> what its value must be, in words and as a test."""
