"""The vectors of an index as a table of LanceDB, for collections that outgrow exact search on one machine.

Each row is a window with its Q vectors. LanceDB's similarity of such a row and one query vector is the greatest cosine,
as ours, so that both rank alike; its own indices then make search approximate and faster, on a disk or in the storage
of a cloud. Needs the extra `lance`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mint.index.folder import Index
from mint.index.segment import Segment
from mint.types import MintError

TABLE = "windows"
"""The name of the table."""
WINDOWS_AT_ONCE = 4096
"""Windows that are in memory together."""


def to_lance(index: Index, location: str | Path) -> int:
    """Write the clips of an index as the table `windows` of a LanceDB database; an earlier one is replaced.

    Args:
        index: the index.
        location: a folder, or what else `lancedb.connect` takes.

    Returns:
        The number of rows. Their columns are `path`, `start` and `end` (seconds into the file), and `vectors`, a list
        of Q vectors of width E.

    Raises:
        MintError: LanceDB is not installed, the index is empty, or the table cannot be written.
    """
    try:
        import lancedb
        import pyarrow
    except ImportError:
        raise MintError("LanceDB is not installed; `pip install 'mint-audio[lance]'` brings it") from None
    if not len(index):
        raise MintError(f"{index.folder} holds no clips; index some first")

    vectors = pyarrow.list_(pyarrow.list_(pyarrow.float32(), index.contents.width))
    fields = [
        ("path", pyarrow.string()),
        ("start", pyarrow.float64()),
        ("end", pyarrow.float64()),
        ("vectors", vectors),
    ]
    schema = pyarrow.schema(fields)

    # One batch at a time: the vectors of a large index do not fit into memory.
    def batches() -> Iterator[Any]:
        for segment in index.segments:
            for rows in _blocks(segment):
                yield _batch(segment, rows, schema)

    try:
        database = lancedb.connect(location)
        table = database.create_table(TABLE, data=batches(), schema=schema, mode="overwrite")
        return int(table.count_rows())
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MintError(
            f"cannot write a LanceDB table to {str(location)!r} ({reason}); choose another folder"
        ) from None


def _blocks(segment: Segment) -> Iterator[list[int]]:
    """Yield the rows of the clips that were not removed, some windows at a time."""
    rows: list[int] = []
    count = 0

    for row in np.flatnonzero(segment.is_live).tolist():
        rows.append(row)
        count += int(segment.clips["num_windows"][row])
        if count >= WINDOWS_AT_ONCE:
            yield rows
            rows, count = [], 0
    if rows:
        yield rows


def _batch(segment: Segment, rows: list[int], schema: Any) -> Any:
    """Return the windows of some clips as a record batch of Arrow."""
    import pyarrow

    paths: list[str] = []
    windows: list[int] = []
    for row in rows:
        span = segment.windows_of(row)
        # Arrow's texts are UTF-8; bytes of a name that are not become question marks.
        path = segment.entry(row).path.encode("utf-8", "replace").decode()
        paths += [path] * (span.stop - span.start)
        windows += range(span.start, span.stop)

    vectors = segment.columns["vectors"].numpy()[windows]  # [W, Q, E]
    num_windows, queries, width = vectors.shape
    flat = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.reshape(-1)), width)
    offsets = pyarrow.array(np.arange(0, num_windows * queries + 1, queries, dtype=np.int32))
    columns = [
        pyarrow.array(paths),
        pyarrow.array(segment.columns["window_start"].numpy()[windows]),
        pyarrow.array(segment.columns["window_end"].numpy()[windows]),
        pyarrow.ListArray.from_arrays(offsets, flat),
    ]
    return pyarrow.record_batch(columns, schema=schema)
