"""Files of results, written from rows that come one by one: JSON Lines, CSV, Parquet and safetensors."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import io
import json
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mint.batches.log import with_lists
from mint.data.manifests.manifest import to_json
from mint.files import safetensors_head, writing
from mint.types import MintError

ROWS_AT_ONCE = 1024
"""Rows of a Parquet file that are in memory at a time, and make one row group."""
EMBEDDING = "embedding"
"""The column that holds a tensor."""
OPTIONAL = {"id": "string", "start": "float64", "duration": "float64"}
"""Columns that may be null, with their types in Arrow."""
Rows = Iterable[dict[str, Any]]


def check_format(path: Path, verb: str) -> None:
    """Refuse a file whose suffix names no format that a verb can write.

    Raises:
        MintError: it says which formats there are, or what is to be installed.
    """
    # Embeddings are no cells of a table for people; of the other verbs nothing is a tensor.
    suffixes = [suffix for suffix in WRITERS if suffix != (".csv" if verb == "embed" else ".safetensors")]
    if path.suffix.lower() not in suffixes:
        raise MintError(f"--output {str(path)!r}: give a name that ends with {', '.join(suffixes)}")
    if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MintError(
            f"--output {str(path)!r}: Parquet needs pyarrow; `pip install 'mint-audio[parquet]'`, or give .jsonl"
        )


def write_results(path: Path, rows: Rows, count: int) -> None:
    """Write a file of results, whole or not at all, in the format that its suffix names.

    Args:
        path: the file.
        rows: its rows, which are read once; tensors are NumPy arrays.
        count: the number of rows.
    """
    WRITERS[path.suffix.lower()](path, rows, count)


def _write_jsonl(path: Path, rows: Rows, _: int) -> None:
    with writing(path) as file:
        for row in rows:
            file.write(to_json(with_lists(row)) + b"\n")


def _write_csv(path: Path, rows: Rows, _: int) -> None:
    """Write a table with a column for each key; what is no text or number is JSON in its cell."""
    with writing(path) as file:
        # The name of a file may be any bytes; those that are no UTF-8 are escaped.
        text = io.TextIOWrapper(file, "utf-8", errors="backslashreplace", newline="", write_through=True)
        writer: Any = None

        for row in rows:
            if writer is None:
                writer = csv.DictWriter(text, list(row), restval="", extrasaction="ignore")
                writer.writeheader()
            writer.writerow({key: _cell(value) for key, value in row.items()})
        # The file is closed, and renamed, by `writing`.
        text.detach()


def _write_parquet(path: Path, rows: Rows, _: int) -> None:
    pyarrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    remaining = iter(rows)
    with writing(path) as file:
        writer: Any = None

        while batch := [_valid(row) for row in islice(remaining, ROWS_AT_ONCE)]:
            # The types are those of the first row, as all rows are of one verb.
            if writer is None:
                schema = _schema(pyarrow, batch[0])
                writer = parquet.ParquetWriter(file, schema)
            table = pyarrow.Table.from_pylist([with_lists(row) for row in batch], schema)
            writer.write_table(table)

        if writer is None:  # no clip could be used
            writer = parquet.ParquetWriter(file, pyarrow.schema([("audio", pyarrow.string())]))
        writer.close()


def _schema(pyarrow: Any, row: dict[str, Any]) -> Any:
    """Return the types of the columns by the first row."""
    columns = []
    for key, value in row.items():
        if isinstance(value, np.ndarray):
            kind = pyarrow.float32()

            for size in reversed(value.shape):
                kind = pyarrow.list_(kind, size)
        elif key in OPTIONAL:
            kind = getattr(pyarrow, OPTIONAL[key])()
        else:
            kind = pyarrow.array([value]).type
        columns.append((key, kind))
    return pyarrow.schema(columns)


def _write_safetensors(path: Path, rows: Rows, count: int) -> None:
    """Write the tensor `embeddings` [N, ...], and the rows that belong to it as JSON Lines beside it.

    The tensor goes to the file row by row: that of a million clips has no room in memory.
    """
    with writing(path) as file, writing(rows_path(path)) as names:
        shape: tuple[int, ...] | None = None
        for row in rows:
            numbers = row.pop(EMBEDDING)
            names.write(to_json(row) + b"\n")
            # The head says how large the tensor is, and stands before it.
            if shape is None:
                shape = numbers.shape
                file.write(safetensors_head({"embeddings": ("F32", (count, *shape))}))
            assert numbers.shape == shape
            file.write(numbers.astype("<f4").tobytes())

        if shape is None:
            file.write(safetensors_head({"embeddings": ("F32", (0,))}))


def rows_path(path: Path) -> Path:
    """Return the file beside a safetensors file that says which clip each row of its tensor is of."""
    return path.with_suffix(".rows.jsonl")


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _valid(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose texts are valid Unicode, as Parquet wants them; other bytes of a file's name are escaped."""
    valid = dict(row)
    for key, value in row.items():
        if isinstance(value, str):
            valid[key] = value.encode(errors="backslashreplace").decode()
    return valid


WRITERS: dict[str, Callable[[Path, Rows, int], None]] = {
    ".jsonl": _write_jsonl,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".safetensors": _write_safetensors,
}
"""How each format is written, by suffix."""
