"""Digests of files, kept on disk, so that a file is read for its digest once and not at each start.

A digest stands for a path together with the size, the time of modification and the time of change of its file (of a
shard's member: those of the shard, and the member's size). Any other value is a miss, and the file is read. A file
that was touched within the last two seconds is not remembered: it could be written again within one tick of the clock.

Records are tables, each written once: two writers never meet, and one that is killed loses what it had not written
yet. Where nothing can be written, files are read again.
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

from mint.data.audio.members import Place, clear_abandoned, digest, locate, states
from mint.data.id_tables import SUFFIX, Ids, as_ids, find, id_of, latest, read_table, write_table

COLUMNS = 7
"""Of a record: the path's id (2), size, time of modification, time of change, digest (2)."""
UNSURE = 2_000_000_000
"""Nanoseconds after its last change in which a file may change again unseen: clocks of file systems are coarse."""
RECORDS_AT_ONCE = 8192
"""Or an eighth of those that are known: so many are written together."""
TABLES = 32
"""More tables than these are made one."""


class Digests:
    """Digests of files by path and state.

    Args:
        folder: of the tables; made when the first is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._new: dict[bytes, bytes] = {}
        """Records by the path's id."""
        self._lock = threading.Lock()
        self._records: NDArray[np.int64] | None = None

    def __reduce__(self) -> tuple[type[Digests], tuple[Path]]:
        """For another process, which has a lock of its own and reads what is on disk."""
        return Digests, (self.folder,)

    def of(self, path: Path) -> str:
        """The digest of a file or member, as `mint.data.audio.members.digest`; errors as `locate`."""
        place, name = locate(path), id_of(str(path))
        state = _state(place)
        record = self._new.get(name)
        if record is None:
            row = int(find(self.records()[:, :2], as_ids(name))[0])
            record = self.records()[row].tobytes() if row >= 0 else b""
        if record[16:40] == state:
            return record[40:].hex()
        found = digest(path)
        if locate(path) == place and max(place.modified, place.changed) < time.time_ns() - UNSURE:
            with self._lock:
                self._new[name] = name + state + bytes.fromhex(found)
                full = len(self._new) >= max(RECORDS_AT_ONCE, (0 if self._records is None else len(self._records)) // 8)
            if full:
                self.save()
        return found

    def known(self, paths: Sequence[str], names: Ids) -> tuple[Ids, NDArray[np.bool_]]:
        """Digests of files that need not be read.

        Args:
            paths: [N].
            names: their ids, [N, 2].

        Returns:
            digests [N, 2], and where they are known [N].
        """
        rows = find(self.records()[:, :2], names)
        there = np.flatnonzero(rows >= 0)
        kept = self.records()[rows[there]]
        chosen = paths if len(there) == len(paths) else [paths[index] for index in there.tolist()]
        same = (states(chosen) == kept[:, 2:5]).all(axis=1)
        digests, found = np.zeros((len(paths), 2), np.int64), np.zeros(len(paths), bool)
        digests[there], found[there] = kept[:, 5:], same
        return digests, found

    def records(self) -> NDArray[np.int64]:
        """What was on disk when it was first asked for, [N, 7] in the order of the ids, column by column."""
        with self._lock:
            if self._records is None:
                self._records = self._read()
        return self._records

    def save(self) -> None:
        """Write what is new."""
        with self._lock:
            new, self._new = self._new, {}
        if not new:
            return
        table = np.frombuffer(b"".join(new.values()), np.int64).reshape(-1, COLUMNS)
        if self._write(table):
            with self._lock:
                if self._records is not None:
                    both = np.concatenate([self._records, table])
                    self._records = np.asfortranarray(both[latest(both[:, :2])])

    def _read(self) -> NDArray[np.int64]:
        """All tables, the older first; many small ones become one."""
        clear_abandoned(self.folder)
        paths = sorted(self.folder.glob(f"*{SUFFIX}"))  # names begin with the time
        tables = [table for path in paths if (table := _load(path)) is not None]
        joined = np.concatenate([np.zeros((0, COLUMNS), np.int64), *tables])
        joined = np.asfortranarray(joined[latest(joined[:, :2])])
        if len(paths) > TABLES and self._write(joined):
            for path in paths:
                with suppress(OSError):
                    path.unlink()
        return joined

    def _write(self, table: NDArray[np.int64]) -> bool:
        """Write a table; False where that is not possible."""
        place = self.folder / f"{time.time_ns():020d}-{uuid.uuid4().hex}{SUFFIX}"
        return write_table(place, {"records": table})


def _load(path: Path) -> NDArray[np.int64] | None:
    """One table; None for one that is damaged, of another form, or gone since."""
    kept = read_table(path, ("records",))
    if kept is None:
        return None
    table = kept["records"]
    return table if table.ndim == 2 and table.shape[1] == COLUMNS and table.dtype == np.int64 else None


def _state(place: Place) -> bytes:
    return np.array([place.size, place.modified, place.changed], np.int64).tobytes()
