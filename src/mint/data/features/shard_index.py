"""The index of a cache's shards: in which shard the features of a clip are, and in how many windows.

Names of clips in shards that were written recently are read from the shards' headers. Once these are many, they are
merged into a table beside the shards, so that a cache of a million clips, in thousands of shards, opens at once and in
little memory. The table only saves time: a shard that it does not know, or that has another size than it says, is
read; what it says of a shard that is gone is passed over.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from mint.data.id_tables import Ids, as_ids, find, latest, read_table, write_table

INDEX = "index.npz"
"""The file that holds the table."""
MERGED_SHARDS = 64
"""The table is written again once more shards than these, and than a quarter of those in it, are missing in it."""
MERGED_CLIPS = 1 << 14
"""Clips, in shards of any size, that the table takes in when a cache is opened."""
OPEN_SHARDS = 256
"""Shards that are kept open: each needs some ten KiB."""
WINDOW = re.compile(r"(?P<key>[0-9a-f]{32})/(?P<index>\d+)of(?P<count>\d+)")
"""The form of a window's name in a shard."""


class Location(NamedTuple):
    """The shard that holds the features of a clip, by its number, and how many windows it has there."""

    shard: int
    num_windows: int


class ShardIndex:
    """The clips in the shards of a folder; several threads may use one object.

    Args:
        folder: the folder of the shards.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Guards all of the tables below: searching one while another thread replaces it would find another clip.
        self._lock = threading.RLock()
        # Shards, by their number. A number is never given to another shard.
        self._names: list[str] = []
        self._sizes: list[int] = []
        self._numbers: dict[str, int] = {}
        # The table: keys [N, 2], sorted, and shard and number of windows of each, [N, 2].
        self._keys: Ids = np.zeros((0, 2), np.int64)
        self._locations: NDArray[np.int32] = np.zeros((0, 2), np.int32)
        # The same for clips in shards that are not in the table yet.
        self._recent: dict[bytes, Location] = {}
        self._num_recent_shards = 0
        self._open: OrderedDict[int, Any] = OrderedDict()

        self._read_table()
        self.refresh()
        if self._num_recent_shards > MERGED_SHARDS or len(self._recent) > MERGED_CLIPS:
            self._merge()  # so that the next process opens it at once

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what another process must have of its own: the lock, and open shards."""
        state = {**self.__dict__, "_open": OrderedDict()}
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    def __len__(self) -> int:
        with self._lock:
            return len(self._keys) + len(self._recent)

    def find(self, key: bytes) -> Location | None:
        """Return where a clip is; None if it is in no shard."""
        with self._lock:
            if key in self._recent:
                return self._recent[key]
            row = int(find(self._keys, as_ids(key))[0])
            return Location(*self._locations[row].tolist()) if row >= 0 else None

    def have(self, keys: Ids) -> NDArray[np.bool_]:
        """Return which clips are in a shard, [N], by their keys [N, 2]."""
        with self._lock:
            is_there = find(self._keys, keys) >= 0
            if self._recent:
                # `find` wants a sorted table.
                recent = as_ids(b"".join(self._recent))
                is_there |= find(np.asfortranarray(recent[latest(recent)]), keys) >= 0
            return is_there

    def keys(self) -> Iterator[bytes]:
        """Yield the keys of all clips, read from the shards."""
        for number in range(len(self._names)):
            with suppress(OSError, SafetensorError):  # another process has removed the shard
                yield from _clips(self.shard(number))

    def shard(self, number: int) -> Any:
        """Return an open shard.

        Raises:
            OSError: it is gone, or cannot be read.
            SafetensorError: likewise.
        """
        with self._lock:
            if number not in self._open:
                self._open[number] = safe_open(self.folder / self._names[number], framework="pt")
                if len(self._open) > OPEN_SHARDS:  # the one that was used longest ago goes
                    self._open.popitem(last=False)
            self._open.move_to_end(number)
            return self._open[number]

    def refresh(self) -> None:
        """Look for shards that were written since; a damaged one is set aside."""
        with self._lock:
            for path in sorted(self.folder.glob("*.safetensors")):
                if path.name not in self._numbers:
                    self._add(path)
            if self._num_recent_shards > max(MERGED_SHARDS, len(self._names) // 4):
                self._merge()

    def _add(self, path: Path) -> None:
        """Take in one shard, or set it aside if it is damaged."""
        try:
            with safe_open(path, framework="pt") as shard:
                clips = _clips(shard)
            size = path.stat().st_size
        except FileNotFoundError:  # another process has removed it
            return
        except (OSError, SafetensorError):
            set_aside(path)
            return

        number = len(self._names)
        self._names.append(path.name)
        self._sizes.append(size)
        self._numbers[path.name] = number
        self._num_recent_shards += 1
        for key, num_windows in clips.items():
            self._recent[key] = Location(number, num_windows)

    def _merge(self) -> None:
        """Take the recent shards into the table, and write it."""
        keys = np.concatenate([self._keys, as_ids(b"".join(self._recent))])
        recent = np.array(list(self._recent.values()), np.int32).reshape(-1, 2)
        rows = latest(keys)  # a clip that two writers wrote is taken from the later shard
        self._keys = np.asfortranarray(keys[rows])
        self._locations = np.concatenate([self._locations, recent])[rows]
        self._recent, self._num_recent_shards = {}, 0

        table = {
            "names": np.array(self._names),
            "sizes": np.array(self._sizes),
            "keys": self._keys,
            "locations": self._locations,
        }
        write_table(self.folder / INDEX, table)

    def _read_table(self) -> None:
        """Read the table, without shards that are gone or have changed."""
        table = read_table(self.folder / INDEX, ("names", "sizes", "keys", "locations"))
        if table is None:
            return

        # A shard of the same name has the same content, unless it was cut off.
        names, sizes = table["names"].tolist(), table["sizes"].tolist()
        is_same = np.array([_size(self.folder / name) == size for name, size in zip(names, sizes, strict=True)], bool)
        keys, locations = table["keys"], table["locations"]
        if not is_same.all():
            rows = is_same[locations[:, 0]]
            keys, locations = np.asfortranarray(keys[rows]), locations[rows]
            # The shards that stay are numbered anew, without gaps.
            locations[:, 0] = (np.cumsum(is_same) - 1)[locations[:, 0]]

        for name, size, stays in zip(names, sizes, is_same, strict=True):
            if stays:
                self._numbers[name] = len(self._names)
                self._names.append(name)
                self._sizes.append(size)
        self._keys, self._locations = keys, locations


def window_name(key: bytes, index: int, count: int) -> str:
    """Return the name in a shard of one of the `count` windows of a clip."""
    return f"{key.hex()}/{index}of{count}"


def read_window_name(name: str) -> tuple[bytes, int, int] | None:
    """Return key, index and count, as they were given to `window_name`; None for a name of another form."""
    match = WINDOW.fullmatch(name)
    return (bytes.fromhex(match["key"]), int(match["index"]), int(match["count"])) if match else None


def set_aside(path: Path) -> bool:
    """Rename a damaged shard, so that its clips are encoded again; return False where nothing can be written."""
    try:
        path.rename(path.with_suffix(".damaged"))
    except FileNotFoundError:  # another process has set it aside
        return True
    except OSError:
        return False
    return True


def _clips(shard: Any) -> dict[bytes, int]:
    """Return the number of windows of each clip in an open shard."""
    clips: dict[bytes, int] = {}
    for name in shard.keys():  # noqa: SIM118  # it is no dictionary
        window = read_window_name(name)
        if window is not None:
            clips[window[0]] = window[2]
    return clips


def _size(path: Path) -> int:
    """Return the size of a file in bytes; -1 if it is gone."""
    try:
        return path.stat().st_size
    except OSError:
        return -1
