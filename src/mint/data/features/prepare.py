"""The examples of some manifests with their frozen features, read from the cache that is filled where needed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from mint.assets import cache_folder
from mint.data.features.cache import FeatureCache, part_key, part_keys
from mint.data.features.encode import Filled, Skipped, fill_cache
from mint.data.id_tables import Ids, as_ids, find, id_of, latest
from mint.data.manifests.index import Lines, can_be_indexed, of_splits, read_lines
from mint.data.manifests.manifest import SPLITS, read_manifest
from mint.data.manifests.parquet import json_lines_of
from mint.types import AudioEncoder, Example, MintError


@dataclass(frozen=True)
class Features:
    """The frozen features of a set of examples, on disk."""

    cache: FeatureCache
    files: Mapping[str, bytes]
    """Digests of the files by path; a file that cannot be read has none."""
    skipped: list[Skipped]
    encoded: int = 0
    """Number of clips that were not in the cache before."""
    indexed: tuple[Lines, NDArray[np.bool_]] | None = None
    """The examples where they are indexed, and which of them could be decoded, [N]."""

    def has(self, example: Example) -> bool:
        """Return whether the example could be decoded."""
        return str(example.audio) in self.files and self._key(example) in self.cache

    def usable(self, examples: Sequence[Example]) -> Sequence[Example]:
        """Return the examples that could be decoded."""
        # Known already, without a look at each.
        if self.indexed is not None and examples is self.indexed[0]:
            return self.indexed[0].chosen(self.indexed[1])
        return [example for example in examples if self.has(example)]

    def draw(self, example: Example, number: int) -> Tensor:
        """Return one window [T, D], chosen by a number: the random crop of training."""
        return self.cache.read_window(self._key(example), number)

    def windows(self, example: Example) -> list[Tensor]:
        """Return all windows of a clip, [T, D] each."""
        return self.cache.read(self._key(example))

    def mean(self, example: Example) -> Tensor:
        """Return the mean over all frames of a clip, [D]: what the linear probe sees."""
        return torch.cat(self.windows(example)).mean(dim=0)

    def _key(self, example: Example) -> bytes:
        """Return the key of a clip: of its file and its part of it, whatever its id is."""
        return part_key(self.files[str(example.audio)], example.start, example.duration)


class DigestTable(Mapping[str, bytes]):
    """The digests of many files by path, in 32 bytes each.

    Args:
        ids: ids of the paths, [F, 2]; of equal ones the last counts.
        digests: [F, 2].
    """

    def __init__(self, ids: Ids, digests: Ids) -> None:
        rows = latest(ids)
        # Column by column, as a search reads the first column alone.
        self._ids, self._digests = np.asfortranarray(ids[rows]), digests[rows]

    def __getitem__(self, path: str) -> bytes:
        digests, is_known = self.of(as_ids(id_of(path)))
        if not is_known[0]:
            raise KeyError(path)
        return digests.tobytes()

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        raise TypeError("the paths of indexed examples are not kept; read the manifests")

    def of(self, ids: Ids) -> tuple[Ids, NDArray[np.bool_]]:
        """Return digests [N, 2] of files by the ids of their paths [N, 2], and which of them are known [N]."""
        rows = find(self._ids, ids)
        is_known = rows >= 0
        # Rows of unknown files are -1: their digests mean nothing. An empty table has no row at all.
        return self._digests[rows] if is_known.any() else np.zeros_like(ids), is_known

    def with_others(self, files: Mapping[str, bytes]) -> DigestTable:
        """Return a table of these files and some others, by path."""
        ids = as_ids(b"".join(map(id_of, files)))
        digests = as_ids(b"".join(files.values()))
        return DigestTable(np.concatenate([self._ids, ids]), np.concatenate([self._digests, digests]))


def read_examples(manifests: Sequence[str | Path]) -> list[Example]:
    """Read all examples of the manifests."""
    if not manifests:
        raise MintError("data.manifests is empty; name at least one manifest (JSON Lines)")
    return list(chain.from_iterable(map(read_manifest, manifests)))


def open_examples(manifests: Sequence[str | Path], splits: Sequence[str] = SPLITS) -> Sequence[Example]:
    """Open the examples of some splits, each read when it is drawn; errors as `read_examples`."""
    manifests = [json_lines_of(manifest) for manifest in manifests]
    # A Parquet file of which no copy could be written is read into memory.
    if manifests and can_be_indexed(manifests):
        return read_lines(manifests).of_splits(splits)
    return of_splits(read_examples(manifests), splits)


def prepare_features(encoder: AudioEncoder, examples: Sequence[Example], max_seconds: float = 30.0) -> Features:
    """Encode what is not in the cache yet, with a progress bar; what cannot be decoded is skipped and counted.

    Each of several ranks begins with its own part of the examples. Then it goes through the parts of the others from
    their ends, where little is done yet: all are ready at about the same time, and none waits for a rank that is slow
    or gone.

    Args:
        encoder: the frozen encoder.
        examples: clips of any splits.
        max_seconds: longest window; longer clips are kept as several.

    Raises:
        MintError: the features cannot be written.
    """
    features = _prepare(open_cache(encoder, max_seconds), encoder, examples, max_seconds)
    if features.skipped:
        # One line; `mint cache` and the folder of a run list all of them.
        first = features.skipped[0].reason
        tqdm.write(f"{len(features.skipped)} of {len(examples)} clips skipped; the first: {first}", file=sys.stderr)
    return features


def _prepare(cache: FeatureCache, encoder: AudioEncoder, examples: Sequence[Example], max_seconds: float) -> Features:
    """Return the features of listed or indexed examples, without a word about what was skipped."""
    if not isinstance(examples, Lines):
        filled = _fill(cache, encoder, examples, max_seconds)
        return Features(cache, filled.files, filled.skipped, filled.encoded)

    # Of a large manifest only what is missing is looked at clip by clip.
    files, is_there = known_features(cache, examples)
    filled = _fill(cache, encoder, examples.chosen(~is_there), max_seconds)
    if filled.files:
        files = files.with_others(filled.files)
        is_there = _have(cache, examples, *files.of(examples.file_ids))
    return Features(cache, files, filled.skipped, filled.encoded, (examples, is_there))


def _fill(cache: FeatureCache, encoder: AudioEncoder, examples: Sequence[Example], max_seconds: float) -> Filled:
    """Encode what is not in the cache: first this rank's part, then those of the others from their ends."""
    if not examples:
        return Filled({}, [], 0)

    rank, ranks = launched_rank()
    this_part, *others = [part_of_rank(examples, (rank + step) % ranks, ranks) for step in range(ranks)]
    order = chain(this_part, *map(reversed, others))
    return fill_cache(cache, encoder, progress(order, len(examples)), max_seconds)


def known_features(cache: FeatureCache, lines: Lines) -> tuple[DigestTable, NDArray[np.bool_]]:
    """Return the files that need not be read, and which examples are parts of them and have features, [N]."""
    digests, is_known = cache.digests.known(lines.file_paths(), lines.file_ids)
    is_there = _have(cache, lines, digests, is_known)
    return DigestTable(lines.file_ids[is_known], digests[is_known]), is_there


def _have(cache: FeatureCache, lines: Lines, digests: Ids, is_known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which examples have features, [N].

    Args:
        cache: the features.
        lines: the examples.
        digests: digests of their files, [F, 2].
        is_known: which of these are known, [F].
    """
    files = lines.rows["file"]  # number of the file of each example, [N]
    keys = part_keys(digests[files], lines.rows["start"], lines.rows["duration"])
    return is_known[files] & cache.have(keys)


def open_cache(encoder: AudioEncoder, max_seconds: float) -> FeatureCache:
    """Open the cache of an encoder's features in windows of some length."""
    # Long clips are cut into windows before they are encoded, so that another length gives other features.
    identity = f"{encoder.identity}; windows of {max_seconds:g} s"
    return FeatureCache(cache_folder() / "features", identity, encoder.cache_dtype)


def launched_rank() -> tuple[int, int]:
    """Return this process's rank and the number of ranks, as `torchrun` and `accelerate launch` say; alone: 0 of 1."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def part_of_rank(examples: Sequence[Example], rank: int, ranks: int) -> Sequence[Example]:
    """Return the stretch of the examples that is a rank's: neighbours in a tar shard stay together."""
    return examples[len(examples) * rank // ranks : len(examples) * (rank + 1) // ranks]


def progress(examples: Iterable[Example], total: int | None = None) -> Iterable[Example]:
    """Yield the examples, with a progress bar on standard error."""
    # In a log file each update is a line.
    interval = 1.0 if sys.stderr.isatty() else 30.0
    return tqdm(examples, desc="features", unit="clip", total=total, mininterval=interval)
