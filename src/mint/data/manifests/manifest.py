"""Manifests: JSON Lines, one `Example` a line, audio paths relative to the manifest's folder.

    {"id", "audio", "start"?, "duration"?, "task", "prompt"?, "answer"?, "labels"?, "unknown"?, "captions"?, "split",
     "corpus", "metadata"?}

A Parquet file with these columns is read as well (`metadata` a struct or JSON text; null: absent), where pyarrow is
installed. Lines are read one at a time and checked by hand rather than by pydantic: a corpus has millions of them.
"""

from __future__ import annotations

import codecs
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
from mint.text_files import one_line, refuse_binary, shown
from mint.types import Example, MintError

SPLITS = ("train", "validation", "test", "unseen")
PARQUET = ".parquet"
PARQUET_ROWS = 4096
"""Rows of a Parquet file that are in memory at a time."""
HEAD_BYTES = 512
"""Number of bytes at the beginning of a file that tell what it is; a tar archive says so at byte 257."""
OTHER_FILES = (
    (0, b"PAR1", "a Parquet file; name it so that it ends with .parquet"),
    (257, b"ustar", "a tar archive; give the manifest beside the shards"),
    (0, b"RIFF", "a recording; make a manifest of a folder of them with `mint data prepare folder`"),
    (0, b"FORM", "a recording; make a manifest of a folder of them with `mint data prepare folder`"),
    (0, b"fLaC", "a recording; make a manifest of a folder of them with `mint data prepare folder`"),
    (0, b"OggS", "a recording; make a manifest of a folder of them with `mint data prepare folder`"),
    (0, b"ID3", "a recording; make a manifest of a folder of them with `mint data prepare folder`"),
)
"""Position and content of the first bytes of files that are given in place of a manifest; what they are, and a cure."""
LONGEST_SECONDS = 1e9
"""No recording is as long: some thirty years."""


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
    """Yield the lines of a JSON Lines manifest or the rows of a Parquet one, numbered from 1, for `parse_line`.

    Raises:
        MintError: as `read_manifest`.
    """
    if path.suffix.lower() == PARQUET and path.is_file():
        yield from enumerate(_parquet_rows(path), start=1)
    else:
        yield from manifest_lines(path)


def manifest_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a manifest that are not blank, with their numbers from 1.

    Raises:
        MintError: no such file, or one that is known to be something else by its first bytes.
    """
    try:
        if path.is_dir():
            inside = sorted(path.glob("*.jsonl"))
            cure = f"give a manifest in it, such as {inside[0]}" if inside else "make one with `mint data prepare`"
            raise MintError(f"{path} is a folder; {cure}")
        if not path.is_file():  # a pipe, too: it could be read only once
            raise MintError(f"{path}: no such manifest; make one with `mint data prepare`")

        with path.open("rb") as file:
            _refuse_other_file(path, file.read(HEAD_BYTES))
            file.seek(0)
            # Blank lines keep their numbers, by which an editor finds a line.
            for number, line in enumerate(file, start=1):
                if not line.isspace():
                    yield number, line
    except OSError as error:
        raise MintError(f"{path}: it cannot be read ({error.strerror or error}); check its permissions") from None


def _refuse_other_file(path: Path, head: bytes) -> None:
    """Refuse a file that is no JSON Lines, by its first bytes.

    Raises:
        MintError: it says what the file is, and what reads it.
    """
    # A gzip or a FLAC file holds line ends too, and its "lines" would each be a fault of their own.
    for position, magic, name in OTHER_FILES:
        if head[position : position + len(magic)] == magic:
            raise MintError(f"{path} is no manifest but {name}")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise MintError(f"{path} is saved as UTF-16; save it as UTF-8")
    refuse_binary(path, head)


def parse_line(line: bytes | dict[str, Any], folder: Path) -> Example:
    """Return the example of one line.

    Args:
        line: JSON in UTF-8, or the value that was read from it.
        folder: the folder to which the audio path is relative.

    Raises:
        MintError: invalid JSON, missing or unknown key, wrong type, or unknown split.
    """
    # A tuple cannot be changed by whoever holds the example.
    record = parse_record(line)
    record["audio"] = folder / record["audio"]
    for key in ("labels", "unknown", "captions"):
        record[key] = tuple(record.get(key, ()))
    return Example(**record)


def parse_record(line: bytes | dict[str, Any]) -> dict[str, Any]:
    """Return the values of one line, which are checked; errors as `parse_line`."""
    record = _decoded(line) if isinstance(line, bytes) else line
    if not isinstance(record, dict):
        raise MintError(f"{type(record).__name__} in place of an object; write one object a line")

    for key, value in record.items():
        if key not in CHECKS:
            # A misspelt key would otherwise be lost without a word.
            near = difflib.get_close_matches(key[:50], CHECKS, n=1)
            cure = f"did you mean {near[0]!r}?" if near else "put further facts under 'metadata'"
            raise MintError(f"unknown key {shown(key)}; {cure}")

        expected, holds = CHECKS[key]
        if not holds(value):
            raise MintError(f"{key} is {shown(value)}; it must be {expected}")
        if key in TEXTS and not _is_whole(value):
            raise MintError(
                f"{key} is {shown(value)}, which holds half a character (half of a surrogate pair, as of an emoji that "
                "was cut in two); write it again"
            )

    if not record.keys() >= REQUIRED:
        missing = sorted(REQUIRED - record.keys())
        raise MintError(f"key {missing[0]!r} is missing; every line needs {', '.join(sorted(REQUIRED))}")
    return record


def _decoded(line: bytes) -> Any:
    """Return the value of a line; what pydantic's fast reader refuses is left to Python's, which says why."""
    # pydantic's reader is several times as fast, but does not say in which column a fault is.
    with suppress(ValueError):
        return from_json(line)

    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise MintError(f"not valid JSON ({error.msg}, column {error.colno}); write one object a line") from None
    except UnicodeDecodeError as error:
        raise MintError(f"not valid UTF-8 (byte {error.start}); save the file as UTF-8") from None
    except RecursionError:
        raise MintError("JSON that is nested too deeply; write one flat object a line") from None
    except ValueError as error:  # a number of thousands of digits
        raise MintError(f"not valid JSON ({shown(str(error))}); write one object a line") from None


def write_manifest(path: str | Path, examples: Iterable[Example]) -> None:
    """Write a manifest, whole or not at all.

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
    """Return the fields that say something as JSON values, with the audio path relative to `folder`."""
    record = {}
    for field in fields(example):
        value = getattr(example, field.name)
        # Millions of lines: what is empty or 0 is left out, and read as such.
        if field.name in REQUIRED or value not in (None, (), {}, 0.0):
            record[field.name] = value
    record["audio"] = Path(os.path.relpath(example.audio.absolute(), folder)).as_posix()
    return record


def to_json(record: dict[str, Any]) -> bytes:
    """Return one line of JSON in UTF-8; a file name that is not valid Unicode is escaped."""
    try:
        return json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(record).encode()


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file without their nulls, some thousands in memory at a time."""
    try:
        pyarrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise MintError(
            f"{path}: Parquet needs pyarrow; `pip install mint-audio[parquet]`, or give JSON Lines"
        ) from None

    try:
        with parquet.ParquetFile(path) as file:
            _refuse_other_table(path, file.schema_arrow)
            for batch in file.iter_batches(PARQUET_ROWS):
                for row in batch.to_pylist():
                    yield _without_nulls(row)
    except pyarrow.ArrowException as error:
        reason = one_line(str(error))[:200]
        raise MintError(f"{path}: not a Parquet file that can be read ({reason}); write it again") from None


def _refuse_other_table(path: Path, schema: Any) -> None:
    """Refuse a Parquet file whose columns are not those of a manifest.

    Raises:
        MintError: it says what the file is, and what reads it.
    """
    names = schema.names
    if any(field.name == "bytes" for name in names for field in _fields(schema.field(name).type)):
        raise MintError(
            f"{path} is no manifest but a shard of a Hugging Face dataset, which holds the recordings themselves; save "
            "them as files and make a manifest with `mint data prepare folder` or `csv`"
        )
    if not REQUIRED.issubset(names):
        raise MintError(
            f"{path} is no manifest: its columns are {shown(', '.join(names))}; a manifest has "
            f"{', '.join(sorted(REQUIRED))} and others; make one with `mint data prepare`"
        )


def _fields(kind: Any) -> list[Any]:
    """Return the fields of a column's type, those within lists included; none where it is no structure."""
    # A column may be a list of structures, or a list of lists.
    while hasattr(kind, "value_type"):
        kind = kind.value_type
    return [kind.field(index) for index in range(kind.num_fields)]


def _without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without the columns that it leaves empty, and with its metadata as an object."""
    record = {key: value for key, value in row.items() if value is not None}

    metadata = record.get("metadata")
    if isinstance(metadata, str):
        with suppress(ValueError, RecursionError):  # left as text, which `parse_line` names
            record["metadata"] = json.loads(metadata)
    elif isinstance(metadata, dict):
        record["metadata"] = {key: value for key, value in metadata.items() if value is not None}
    return record


def _is_text(value: Any) -> bool:
    """Return whether a value is text."""
    return isinstance(value, str)


def _is_name(value: Any) -> bool:
    """Return whether a value is text that is not empty."""
    return isinstance(value, str) and value != ""


def _is_seconds(value: Any) -> bool:
    """Return whether a value is a time in a recording; NaN compares as False."""
    return type(value) in (int, float) and 0 <= value <= LONGEST_SECONDS


def _is_texts(value: Any) -> bool:
    """Return whether a value is a list of texts."""
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_whole(value: str | list[str] | None) -> bool:
    """Return whether texts can be written as UTF-8, as no tokenizer takes half of a surrogate pair."""
    for text in [value] if isinstance(value, str) else value or ():
        if text.isascii():  # most are, and this is many times as fast
            continue
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
    return True


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
"""What the value of each key must be, in words and as a test."""
TEXTS = frozenset(("task", "prompt", "answer", "labels", "unknown", "captions", "corpus"))
"""Keys whose texts a model reads or a table shows. An id may come from a file name, which may be any bytes."""
