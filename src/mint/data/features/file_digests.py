"""Digests of files, kept on disk, so that a file is read for its digest once and not at each start.

A digest is recorded for a path together with the size, the time of modification and the time of change of its file
(for a shard's member: the shard's times and the member's size). If any of them differs, the file is read again. A file
that was touched within the last two seconds is not recorded: it could be written again within one tick of the clock.

Records are tables, each written once: two writers never meet, and one that is killed loses only what it had not
written yet. Where nothing can be written, files are read again.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mint.data.audio.members import digest, locate, states
from mint.data.id_tables import ID_BYTES, SUFFIX, Ids, as_ids, find, id_of, latest, read_table, write_table
from mint.files import clear_abandoned

COLUMNS = 7
"""Columns of a record: the path's id (2), size, time of modification, time of change, digest (2)."""
STATE = slice(ID_BYTES, 40)
"""Bytes of a record that hold the size and the times of its file."""
DIGEST = slice(40, 56)
"""Bytes of a record that hold the digest."""
UNSURE = 2_000_000_000
"""Nanoseconds after its last change in which a file may change again unseen: clocks of file systems are coarse."""
RECORDS_AT_ONCE = 8192
"""New records are written in batches of this many, or of an eighth of the known ones if that is more."""
TABLES = 32
"""If there are more tables than these, they are merged into one."""


class Digests:
    """The digests of files by path and state; several threads may use one object.

    Args:
        folder: the folder of the tables; it is created when the first one is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        # Records that are not on disk yet, by the id of their path.
        self._new: dict[bytes, bytes] = {}
        # A table is never changed, only replaced by another one. Look it up once for each question: a second look may
        # meet a table in which the same row is another file's.
        self._records: NDArray[np.int64] | None = None

    def __reduce__(self) -> tuple[type[Digests], tuple[Path]]:
        """Make a copy for another process, which has a lock of its own and reads what is on disk."""
        return Digests, (self.folder,)

    def of(self, path: Path) -> bytes:
        """Return the digest of a file or member: 16 bytes of `mint.data.audio.members.digest`; errors as `locate`."""
        location, path_id = locate(path), id_of(str(path))
        record = self._record(path_id)
        if record[STATE] == _state(location.size, location.modified, location.changed):
            return record[DIGEST]
        return self._read_file(path, path_id)

    def check(self, path: Path) -> tuple[bytes, bool]:
        """Read a file whatever is recorded of it, and correct its record.

        Returns:
            the digest of its bytes, and False if `of` would have given another one.
        """
        location, path_id = locate(path), id_of(str(path))
        record = self._record(path_id)
        is_current = record[STATE] == _state(location.size, location.modified, location.changed)
        value = self._read_file(path, path_id)
        return value, not is_current or record[DIGEST] == value

    def known(self, paths: Sequence[str], path_ids: Ids) -> tuple[Ids, NDArray[np.bool_]]:
        """Look up digests of files without reading any file.

        Args:
            paths: [N].
            path_ids: their ids, [N, 2].

        Returns:
            digests [N, 2], and which of them are known [N].
        """
        records = self.records()
        rows = find(records[:, :2], path_ids)
        recorded = np.flatnonzero(rows >= 0)
        rows = rows[recorded]

        # The common case, in which all files are recorded, needs no new list.
        chosen = paths if len(recorded) == len(paths) else [paths[index] for index in recorded.tolist()]
        is_current = (states(chosen) == records[rows, 2:5]).all(axis=1)

        digests, is_known = np.zeros((len(paths), 2), np.int64), np.zeros(len(paths), bool)
        digests[recorded], is_known[recorded] = records[rows, 5:], is_current
        return digests, is_known

    def records(self) -> NDArray[np.int64]:
        """Return what was on disk at first use and was written since, [N, 7], sorted by id, column by column."""
        with self._lock:
            if self._records is None:
                self._records = self._read_tables()
            return self._records

    def save(self) -> None:
        """Write the new records; where that is not possible they are dropped, and their files are read again."""
        with self._lock:
            new, self._new = self._new, {}
        if not new:
            return

        # Outside of the lock, as other threads need not wait for the disk.
        table = np.frombuffer(b"".join(new.values()), np.int64).reshape(-1, COLUMNS)
        if self._write(table):
            with self._lock:
                if self._records is not None:
                    both = np.concatenate([self._records, table])
                    self._records = np.asfortranarray(both[latest(both[:, :2])])

    def _record(self, path_id: bytes) -> bytes:
        """Return the record of a path, or nothing."""
        record = self._new.get(path_id)
        if record is None:
            records = self.records()
            row = int(find(records[:, :2], as_ids(path_id))[0])
            record = records[row].tobytes() if row >= 0 else b""

        # Another file's record would give a clip another clip's features without a word.
        return record if record[:ID_BYTES] == path_id else b""

    def _read_file(self, path: Path, path_id: bytes) -> bytes:
        """Read a file for its digest, and record it unless the file may be in the middle of a change."""
        before = locate(path)
        value = bytes.fromhex(digest(path))
        is_settled = max(before.modified, before.changed) < time.time_ns() - UNSURE
        if locate(path) != before or not is_settled:
            return value

        state = _state(before.size, before.modified, before.changed)
        with self._lock:
            self._new[path_id] = path_id + state + value
            num_known = 0 if self._records is None else len(self._records)
            is_full = len(self._new) >= max(RECORDS_AT_ONCE, num_known // 8)
        if is_full:
            self.save()
        return value

    def _read_tables(self) -> NDArray[np.int64]:
        """Read all tables, the older ones first; many small ones become one."""
        clear_abandoned(self.folder)
        paths = sorted(self.folder.glob(f"*{SUFFIX}"))  # names begin with the time
        tables = [np.zeros((0, COLUMNS), np.int64)]
        for path in paths:
            table = _load(path)
            if table is not None:
                tables.append(table)

        joined = np.concatenate(tables)
        joined = np.asfortranarray(joined[latest(joined[:, :2])])

        # The merged table is there before the others go: a process that is killed in between loses nothing.
        if len(paths) > TABLES and self._write(joined):
            for path in paths:
                with suppress(OSError):
                    path.unlink()
        return joined

    def _write(self, table: NDArray[np.int64]) -> bool:
        """Write a table; return False where that is not possible."""
        # Sorted by name, tables are sorted by time, and the last record of a path counts.
        path = self.folder / f"{time.time_ns():020d}-{uuid.uuid4().hex}{SUFFIX}"
        return write_table(path, {"records": table})


def _load(path: Path) -> NDArray[np.int64] | None:
    """Read one table; None for one that is damaged, of another form, or gone since."""
    arrays = read_table(path, ("records",))
    if arrays is None:
        return None
    table = arrays["records"]
    return table if table.ndim == 2 and table.shape[1] == COLUMNS and table.dtype == np.int64 else None


def _state(size: int, modified: int, changed: int) -> bytes:
    """Return the size and the times of a file as they stand in a record."""
    return np.array([size, modified, changed], np.int64).tobytes()
