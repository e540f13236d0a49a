"""Where the features of each clip lie: in which shard, and in how many windows.

Of the shards that were written lately the names are read from their headers. Once these are many, what they hold goes
into an index beside them, so that a cache of a million clips, in thousands of shards, opens at once and in little
memory. The index only saves time: a shard that it does not know, or that has another size than it says, is read; what
it says of a shard that is gone is passed over.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from mint.data.id_tables import Ids, as_ids, find, id_of, latest, read_table, write_table

INDEX = "index.npz"
FOLDED = 64
"""Shards, and a share of those in the index, that are not yet in it when it is written again."""
CLIPS_FOLDED = 1 << 14
"""Clips, in shards of any size, that the index takes in when a cache is opened."""
OPEN = 256
"""Shards that are kept open: each needs some ten KiB."""
DIGEST = re.compile(r"[0-9a-f]{32}")


class Places:
    """What the shards of a folder hold.

    Args:
        folder: of the shards.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._sizes: list[int] = []
        self._ids: Ids = np.zeros((0, 2), np.int64)
        self._where: NDArray[np.int32] = np.zeros((0, 2), np.int32)
        """Shard and number of windows of each id."""
        self._lately: dict[bytes, tuple[int, int]] = {}
        """Likewise, of shards that are not in the index."""
        self._shards_lately = 0
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._read_index()
        self.refresh()
        if self._shards_lately > FOLDED or len(self._lately) > CLIPS_FOLDED:
            self._fold()  # so that the next process finds it

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which opens shards of its own."""
        return {**self.__dict__, "_open": OrderedDict()}

    def __len__(self) -> int:
        return len(self._ids) + len(self._lately)

    def find(self, key: str) -> tuple[int, int] | None:
        """Shard and number of windows of a clip."""
        name = clip_id(key)
        if name in self._lately:
            return self._lately[name]
        row = int(find(self._ids, as_ids(name))[0])
        return (int(self._where[row, 0]), int(self._where[row, 1])) if row >= 0 else None

    def have(self, ids: Ids) -> NDArray[np.bool_]:
        """Which of some clips, [N, 2], are there: [N]."""
        there = find(self._ids, ids) >= 0
        if self._lately:
            lately = as_ids(b"".join(self._lately))
            there |= find(np.asfortranarray(lately[latest(lately)]), ids) >= 0
        return there

    def keys(self) -> Iterator[str]:
        """The keys of all clips, read from the shards."""
        for number in range(len(self._names)):
            yield from dict.fromkeys(name.partition("/")[0] for name in self.shard(number).keys())  # noqa: SIM118

    def shard(self, number: int) -> Any:
        """An open shard.

        Raises:
            OSError: it is gone, or cannot be read.
            SafetensorError: likewise.
        """
        name = self._names[number]
        if name not in self._open:
            self._open[name] = safe_open(self.folder / name, framework="pt")
            if len(self._open) > OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(name)
        return self._open[name]

    def refresh(self) -> None:
        """Look for shards that were written since; a damaged one is set aside."""
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name not in self._numbers:
                self._add(path)
        if self._shards_lately > max(FOLDED, len(self._names) // 4):
            self._fold()

    def _add(self, path: Path) -> None:
        number = len(self._names)
        self._names.append(path.name)
        try:
            names, size = list(self.shard(number).keys()), path.stat().st_size
        except (OSError, SafetensorError):
            self._names.pop()
            self._open.pop(path.name, None)
            set_aside(path)
            return
        self._numbers[path.name] = number
        self._sizes.append(size)
        self._shards_lately += 1
        for name in names:
            key, _, place = name.partition("/")
            self._lately[clip_id(key)] = (number, int(place.partition("of")[2]))

    def _fold(self) -> None:
        """Take what was read lately into the index, and write it."""
        ids = np.concatenate([self._ids, as_ids(b"".join(self._lately))])
        lately = np.array(list(self._lately.values()), np.int32).reshape(-1, 2)
        rows = latest(ids)
        self._ids, self._where = np.asfortranarray(ids[rows]), np.concatenate([self._where, lately])[rows]
        self._lately, self._shards_lately = {}, 0
        names, sizes = np.array(self._names), np.array(self._sizes)
        write_table(self.folder / INDEX, {"names": names, "sizes": sizes, "ids": self._ids, "where": self._where})

    def _read_index(self) -> None:
        """What the index says of shards that are as they were."""
        index = read_table(self.folder / INDEX, ("names", "sizes", "ids", "where"))
        if index is None:
            return
        names, sizes, ids, where = index["names"].tolist(), index["sizes"].tolist(), index["ids"], index["where"]
        kept = [_size(self.folder / name) == size for name, size in zip(names, sizes, strict=True)]
        if not all(kept):
            rows = np.array(kept)[where[:, 0]]
            ids, where = np.asfortranarray(ids[rows]), where[rows]
            where[:, 0] = (np.cumsum(kept) - 1)[where[:, 0]]
        self._names = [name for name, there in zip(names, kept, strict=True) if there]
        self._sizes = [size for size, there in zip(sizes, kept, strict=True) if there]
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self._ids, self._where = ids, where


def set_aside(path: Path) -> bool:
    """Rename a damaged shard, so that its clips are encoded again; False where nothing can be written."""
    try:
        path.rename(path.with_suffix(".damaged"))
    except FileNotFoundError:  # another process has set it aside
        return True
    except OSError:
        return False
    return True


def clip_id(key: str) -> bytes:
    """The id of a clip's key: a whole file's is its digest itself."""
    return bytes.fromhex(key) if DIGEST.fullmatch(key) else id_of(key)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
