"""The cache of frozen features: what is kept on disk, and under which key.

The encoder is frozen, so its output for a clip never changes: it is written once and read in every epoch. A clip's key
is made of the SHA-256 of its file's bytes (remembered: see `mint.data.features.file_digests`) and of where the clip
starts and ends in the file; the encoder's identity (weights, revision, preprocessing) names the folder. So a changed
file or encoder is a miss, never a wrong hit. Shards are safetensors files that are written whole or not at all: a
reader sees whole shards only, and two writers never meet. Each holds the checksum of its features, for
`mint cache --verify`.

Features have the precision of the encoder's `cache_dtype`, from the disk and straight from the encoder alike: a hit, a
miss and use without a cache give the same tensor. A clip that is longer than a window is kept as several windows.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from mint.data.audio.members import digest
from mint.data.features.file_digests import Digests
from mint.data.features.shard_index import ShardIndex, window_name
from mint.data.id_tables import Ids
from mint.files import clear_abandoned, write_whole
from mint.types import Example, MintError

CHECKSUM = "sha256"
"""Name of the checksum in a shard's metadata."""
_ALL_BITS = (1 << 64) - 1


class FeatureCache:
    """The features of one encoder below `root`. A complete cache may lie where nothing can be written.

    Args:
        root: the folder of all caches.
        identity: the encoder's identity.
        dtype: the precision that features are written in.

    Raises:
        MintError: the folder cannot be made.
    """

    def __init__(self, root: Path, identity: str, dtype: torch.dtype = torch.float16) -> None:
        self.root = root
        self.identity = identity
        self.dtype = dtype
        self.folder = root / hashlib.sha256(identity.encode()).hexdigest()[:16]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_if_other(self.folder / "encoder.txt", f"{identity}\n".encode())
        except OSError as error:
            raise MintError(
                f"cannot keep features in {self.folder}: {error}; set MINT_CACHE to a folder with space"
            ) from None

        clear_abandoned(self.folder)
        # Digests belong to files, whatever the encoder, so that all caches below `root` share them.
        self.digests = Digests(root / "digests")
        self._index = ShardIndex(self.folder)

    def refresh(self) -> None:
        """Look for shards that were written since; a damaged one is set aside and its clips count as missing."""
        self._index.refresh()

    def __contains__(self, key: bytes) -> bool:
        return self._index.find(key) is not None

    def __iter__(self) -> Iterator[bytes]:
        return self._index.keys()

    def have(self, keys: Ids) -> NDArray[np.bool_]:
        """Return which clips are in the cache, [N], by their keys [N, 2]."""
        return self._index.have(keys)

    def read(self, key: bytes) -> list[Tensor]:
        """Return the windows of a clip, each [T, D] float32; errors as `read_window`."""
        shard, count = self._open(key)
        return [shard.get_tensor(window_name(key, index, count)).float() for index in range(count)]

    def read_window(self, key: bytes, choice: int) -> Tensor:
        """Return one window [T, D] float32 of a clip, chosen by a number: the random crop of training.

        Raises:
            MintError: the clip's features were removed while they were in use.
        """
        shard, count = self._open(key)
        tensor: Tensor = shard.get_tensor(window_name(key, choice % count, count))
        return tensor.float()

    def _open(self, key: bytes) -> tuple[Any, int]:
        """Return the open shard of a clip, and its number of windows."""
        index = self._index
        for _ in range(2):
            location = index.find(key)
            if location is not None:
                with suppress(OSError, SafetensorError):
                    return index.shard(location.shard), location.num_windows

            # Another process may have moved the clip into another shard, as pruning does.
            index = self._index = ShardIndex(self.folder)
        raise MintError(f"features in {self.folder} were removed during the run; run the command again to rebuild them")

    def write(self, clips: Mapping[bytes, Sequence[Tensor]]) -> None:
        """Write clips, windows [T, D] by key, into a shard of their own.

        Raises:
            MintError: the disk is full or the folder cannot be written to; earlier shards are untouched.
        """
        tensors: dict[str, Tensor] = {}
        for key, windows in clips.items():
            for index, window in enumerate(windows):
                tensors[window_name(key, index, len(windows))] = window.to(self.dtype).contiguous()

        # A name that no other writer gives, so that a shard is never replaced by another one.
        try:
            write_whole(
                self.folder / f"{uuid.uuid4().hex}.safetensors", save(tensors, metadata={CHECKSUM: checksum(tensors)})
            )
        except OSError as error:
            raise MintError(
                f"cannot write features to {self.folder}: {error.strerror or error}; "
                "free some space, or set MINT_CACHE to another folder, and start again"
            ) from None
        self.refresh()


def write_if_other(path: Path, content: bytes) -> None:
    """Write a small file whole, unless it has this content already: the folder may be read-only then."""
    with suppress(FileNotFoundError):
        if path.read_bytes() == content:
            return

    write_whole(path, content)


def clip_key(example: Example, digests: Digests | None = None) -> bytes:
    """Return the key of a clip, 16 bytes: what its features are kept under.

    Args:
        example: the clip.
        digests: known digests of files; None: the file is read.

    Raises:
        MintError: the file is missing or cannot be read.
    """
    return part_key(file_digest(example.audio, digests), example.start, example.duration)


def file_digest(path: Path, digests: Digests | None) -> bytes:
    """Return the digest of a file, 16 bytes; errors as `clip_key`."""
    try:
        return bytes.fromhex(digest(path)) if digests is None else digests.of(path)
    except OSError as error:
        reason = error.strerror or error  # without the number of the error
        raise MintError(f"cannot read {path}: {reason}; check the path in the manifest") from None


def part_key(whole: bytes, start: float, duration: float | None) -> bytes:
    """Return the key of a part of a file by the digest of the file, which is the key of the whole file.

    The digest is combined, by exclusive or, with a one-to-one function of start and duration. So parts of one file
    never share a key, and those of different files as rarely as the files share a digest.
    """
    digest_bits = struct.unpack("<2Q", whole)
    # Adding 0.0 makes 0.0 of -0.0, whose bits differ. No clip has a duration of 0, which can stand for the whole file.
    part_bits = _part_bits(*struct.unpack("<2Q", struct.pack("<2d", start + 0.0, duration or 0.0)))
    return struct.pack("<2Q", digest_bits[0] ^ part_bits[0], digest_bits[1] ^ part_bits[1])


def part_keys(wholes: Ids, starts: NDArray[np.float64], durations: NDArray[np.float64]) -> Ids:
    """Return the keys of many parts, [N, 2], as `part_key`.

    Args:
        wholes: digests of their files, [N, 2].
        starts: seconds, [N].
        durations: seconds, [N]; NaN: to the end of the file.
    """
    # As above, for all parts at once.
    start_bits = (starts + 0.0).astype("<f8").view("<u8")
    duration_bits = np.where(np.isnan(durations), 0.0, durations).astype("<f8").view("<u8")
    part_bits = np.stack(_part_bits(start_bits, duration_bits), axis=1)  # [N, 2]
    return wholes ^ part_bits.view(np.int64)


def _part_bits(start: Any, duration: Any) -> tuple[Any, Any]:
    """Return 128 bits for the bits of two times; none is set for a whole file, whose times are 0.

    Each pair of times has bits of its own: the second half tells the duration, and then the first half tells the
    start. The halves are well mixed, because tables are searched by the first half alone.
    """
    second = _mixed(duration)
    # 0 stays 0, and so the bits of a whole file.
    return _mixed(start ^ second), second


def _mixed(bits: Any) -> Any:
    """Mix 64 bits, a number or an array of them, one to one: the last step of the generator SplitMix64."""
    # Each line can be undone, so that no two numbers become one. Python's numbers must be cut to 64 bits.
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 & _ALL_BITS
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB & _ALL_BITS
    return bits ^ (bits >> 31)


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, shapes and values, in the order of the names."""
    state = hashlib.sha256()
    for name in sorted(tensors):
        state.update(f"{name} {tuple(tensors[name].shape)} ".encode())
        # Viewed as bytes, as NumPy has no bfloat16.
        state.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return state.hexdigest()
