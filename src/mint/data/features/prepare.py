"""The examples of some manifests with their frozen features, read from the cache that is filled where needed."""

from __future__ import annotations

import hashlib
import math
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
from mint.data.features.cache import FeatureCache, Filled, Skipped, fill_cache, part_key
from mint.data.features.shard_index import clip_id
from mint.data.id_tables import ID_BYTES, SUFFIX, Ids, as_ids, find, id_of, latest, read_table, write_table
from mint.data.manifests.index import Lines, can_be_indexed, of_splits, read_lines
from mint.data.manifests.manifest import SPLITS, read_manifest
from mint.data.manifests.parquet import json_lines_of
from mint.types import AudioEncoder, Example, MintError

PART = ("file", "start", "duration")
"""Fields of `Lines.rows` that say which part of which file a clip is."""
ROWS_AT_ONCE = 1 << 16
"""Rows whose keys are Python's strings at a time. Ids of so many parts take 0.2 s; those of more are kept on disk."""
FORM = b"2"
"""Of the keys of parts; ids that are kept on disk for another one are made anew."""


@dataclass(frozen=True)
class Features:
    """The frozen features of a set of examples, on disk."""

    cache: FeatureCache
    files: Mapping[str, str]
    """Digests of the files by path; one that cannot be read has none."""
    skipped: list[Skipped]
    encoded: int = 0
    """Clips that were not in the cache before."""
    indexed: tuple[Lines, NDArray[np.bool_]] | None = None
    """The examples where they are indexed, and which of them could be decoded, [N]."""

    def has(self, example: Example) -> bool:
        """Whether the example could be decoded."""
        return str(example.audio) in self.files and self._key(example) in self.cache

    def usable(self, examples: Sequence[Example]) -> Sequence[Example]:
        """Those that could be decoded."""
        if self.indexed is not None and examples is self.indexed[0]:
            return self.indexed[0].chosen(self.indexed[1])
        return [example for example in examples if self.has(example)]

    def draw(self, example: Example, number: int) -> Tensor:
        """One window [T, D], chosen by a number: the random crop of training."""
        return self.cache.read_window(self._key(example), number)

    def windows(self, example: Example) -> list[Tensor]:
        """All windows of a clip, [T, D] each."""
        return self.cache.read(self._key(example))

    def mean(self, example: Example) -> Tensor:
        """Mean over all frames of a clip, [D]: what the linear probe sees."""
        return torch.cat(self.windows(example)).mean(dim=0)

    def _key(self, example: Example) -> str:
        """What a clip is known by: its file and its place in it, whatever it is called."""
        return part_key(self.files[str(example.audio)], example.start, example.duration)


class FileDigests(Mapping[str, str]):
    """The digests of many files by path, 32 bytes each.

    Args:
        ids: of the paths, [F, 2]; of equal ones the last counts.
        digests: [F, 2].
    """

    def __init__(self, ids: Ids, digests: Ids) -> None:
        rows = latest(ids)
        self._ids, self._digests = np.asfortranarray(ids[rows]), digests[rows]

    def __getitem__(self, path: str) -> str:
        digests, known = self.of(as_ids(id_of(path)))
        if not known[0]:
            raise KeyError(path)
        return digests.tobytes().hex()

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        raise TypeError("the paths of indexed examples are not kept; read the manifests")

    def of(self, ids: Ids) -> tuple[Ids, NDArray[np.bool_]]:
        """Digests [N, 2] of files by the ids of their paths [N, 2], and which are known [N]."""
        places = find(self._ids, ids)
        known = places >= 0
        return self._digests[places] if known.any() else np.zeros_like(ids), known

    def with_others(self, files: Mapping[str, str]) -> FileDigests:
        """These, and those of some files by path."""
        ids = as_ids(b"".join(map(id_of, files)))
        digests = as_ids(bytes.fromhex("".join(files.values())))
        return FileDigests(np.concatenate([self._ids, ids]), np.concatenate([self._digests, digests]))


def read_examples(manifests: Sequence[str | Path]) -> list[Example]:
    """All examples of the manifests."""
    if not manifests:
        raise MintError("data.manifests is empty; name at least one manifest (JSON Lines)")
    return [example for manifest in manifests for example in read_manifest(manifest)]


def open_examples(manifests: Sequence[str | Path], splits: Sequence[str] = SPLITS) -> Sequence[Example]:
    """The examples of some splits, read where they are drawn; errors as `read_examples`."""
    manifests = [json_lines_of(manifest) for manifest in manifests]
    if manifests and can_be_indexed(manifests):
        return read_lines(manifests).of_splits(splits)
    return of_splits(read_examples(manifests), splits)


def prepare_features(encoder: AudioEncoder, examples: Sequence[Example], max_seconds: float = 30.0) -> Features:
    """Encode what is not in the cache yet, with a progress bar; what cannot be decoded is skipped and counted.

    Of several ranks each begins with its own part and then looks after those of the others from their ends, where
    little is done yet: all are ready at about the same time, and none waits for a rank that is slow or gone.
    """
    features = _prepare(open_cache(encoder, max_seconds), encoder, examples, max_seconds)
    if features.skipped:
        first = features.skipped[0].reason
        tqdm.write(f"{len(features.skipped)} of {len(examples)} clips skipped; the first: {first}", file=sys.stderr)
    return features


def _prepare(cache: FeatureCache, encoder: AudioEncoder, examples: Sequence[Example], max_seconds: float) -> Features:
    if not isinstance(examples, Lines):
        filled = _fill(cache, encoder, examples, max_seconds)
        return Features(cache, filled.files, filled.skipped, filled.encoded)
    files, there = known_features(cache, examples)
    filled = _fill(cache, encoder, examples.chosen(~there), max_seconds)
    if filled.files:
        files = files.with_others(filled.files)
        there = _there(cache, examples, *files.of(examples.file_ids))
    return Features(cache, files, filled.skipped, filled.encoded, (examples, there))


def _fill(cache: FeatureCache, encoder: AudioEncoder, examples: Sequence[Example], max_seconds: float) -> Filled:
    """Encode what is not in the cache: first this rank's part, then those of the others from their ends."""
    if not examples:
        return Filled({}, [], 0)
    rank, ranks = launched_rank()
    parts = [own_part(examples, (rank + step) % ranks, ranks) for step in range(ranks)]
    order = chain(parts[0], *(reversed(part) for part in parts[1:]))
    return fill_cache(cache, encoder, progress(order, len(examples)), max_seconds)


def known_features(cache: FeatureCache, lines: Lines) -> tuple[FileDigests, NDArray[np.bool_]]:
    """The files that need not be read, and which examples are parts of them and have features, [N]."""
    digests, known = cache.digests.known(lines.file_paths(), lines.file_ids)
    there = _there(cache, lines, digests, known)
    return FileDigests(lines.file_ids[known], digests[known]), there


def _there(cache: FeatureCache, lines: Lines, digests: Ids, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which examples have features, [N].

    Args:
        cache: where they are.
        lines: the examples.
        digests: of their files, [F, 2].
        known: which of these are known, [F].
    """
    files = lines.rows["file"]
    ids = digests[files]
    parts = np.flatnonzero((lines.rows["start"] != 0) | ~np.isnan(lines.rows["duration"]))
    if len(parts):
        ids[parts] = _part_ids(lines, parts, digests)
    return known[files] & cache.have(ids)


def _part_ids(lines: Lines, parts: NDArray[np.int64], digests: Ids) -> Ids:
    """The ids of the clips that are parts of files, [P, 2]; those of a large manifest are kept for the next start.

    Args:
        lines: of the manifests.
        parts: rows of the clips, [P].
        digests: of the files, [F, 2].
    """
    if len(parts) <= ROWS_AT_ONCE:
        return _make_part_ids(lines, parts, digests)
    manifests = " ".join(str(path.absolute()) for path in lines.manifests)
    place = cache_folder() / "manifests" / f"parts-{id_of(manifests).hex()}{SUFFIX}"
    stamp = hashlib.blake2b(FORM + digests[lines.rows["file"][parts]].tobytes(), digest_size=ID_BYTES)
    for field in ("start", "duration"):
        stamp.update(lines.rows[field][parts].tobytes())
    kept = read_table(place, ("stamp", "ids"))
    if kept is not None and kept["stamp"].tobytes() == stamp.digest():
        return kept["ids"]
    ids = _make_part_ids(lines, parts, digests)
    write_table(place, {"stamp": np.frombuffer(stamp.digest(), np.uint8), "ids": ids})
    return ids


def _make_part_ids(lines: Lines, parts: NDArray[np.int64], digests: Ids) -> Ids:
    ids = np.empty((len(parts), 2), np.int64)
    digits = digests.tobytes().hex()  # 32 of each file
    for first in range(0, len(parts), ROWS_AT_ONCE):
        rows = parts[first : first + ROWS_AT_ONCE]
        keys = (
            part_key(digits[32 * file : 32 * file + 32], start, None if math.isnan(duration) else duration)
            for file, start, duration in zip(*(lines.rows[field][rows].tolist() for field in PART), strict=True)
        )
        ids[first : first + ROWS_AT_ONCE] = as_ids(b"".join(map(clip_id, keys)))
    return ids


def open_cache(encoder: AudioEncoder, max_seconds: float) -> FeatureCache:
    """The features of an encoder in windows of a length."""
    identity = f"{encoder.identity}; windows of {max_seconds:g} s"
    return FeatureCache(cache_folder() / "features", identity, encoder.cache_dtype)


def launched_rank() -> tuple[int, int]:
    """This process's rank, and the number of ranks, as `torchrun` and `accelerate launch` say; alone: 0 of 1."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def own_part(examples: Sequence[Example], rank: int, ranks: int) -> Sequence[Example]:
    """The stretch of the examples that is a rank's: neighbours in a tar shard stay together."""
    return examples[len(examples) * rank // ranks : len(examples) * (rank + 1) // ranks]


def progress(examples: Iterable[Example], total: int | None = None) -> Iterable[Example]:
    """The examples with a bar on standard error."""
    interval = 1.0 if sys.stderr.isatty() else 30.0
    return tqdm(examples, desc="features", unit="clip", total=total, mininterval=interval)
