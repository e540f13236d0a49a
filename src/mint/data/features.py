"""The examples of some manifests with their frozen features, read from the cache that is filled where needed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from mint.assets import cache_folder
from mint.data.cache import FeatureCache, Skipped, fill_cache, unique_id
from mint.data.manifest import read_manifest
from mint.types import AudioEncoder, Example, MintError


@dataclass(frozen=True)
class Features:
    """The frozen features of a set of examples, on disk."""

    cache: FeatureCache
    keys: dict[str, str]
    """Key in the cache by `unique_id`; an example that could not be decoded has none."""
    skipped: list[Skipped]
    encoded: int = 0
    """Clips that were not in the cache before."""

    def has(self, example: Example) -> bool:
        """Whether the example could be decoded."""
        return unique_id(example) in self.keys

    def draw(self, example: Example, number: int) -> Tensor:
        """One window [T, D], chosen by a number: the random crop of training."""
        return self.cache.read_window(self.keys[unique_id(example)], number)

    def windows(self, example: Example) -> list[Tensor]:
        """All windows of a clip, [T, D] each."""
        return self.cache.read(self.keys[unique_id(example)])

    def mean(self, example: Example) -> Tensor:
        """Mean over all frames of a clip, [D]: what the linear probe sees."""
        return torch.cat(self.windows(example)).mean(dim=0)


def read_examples(manifests: Sequence[str | Path]) -> list[Example]:
    """All examples of the manifests."""
    if not manifests:
        raise MintError("data.manifests is empty; name at least one manifest (JSON Lines)")
    return [example for manifest in manifests for example in read_manifest(manifest)]


def prepare_features(encoder: AudioEncoder, examples: Sequence[Example], max_seconds: float = 30.0) -> Features:
    """Encode what is not in the cache yet, with a progress bar; what cannot be decoded is skipped and counted.

    Of several ranks each begins with its own part and then looks after those of the others from their ends, where
    little is done yet: all are ready at about the same time, and none waits for a rank that is slow or gone.
    """
    cache = open_cache(encoder, max_seconds)
    rank, ranks = launched_rank()
    parts = [own_part(examples, (rank + step) % ranks, ranks) for step in range(ranks)]
    order = [*parts[0], *(example for part in parts[1:] for example in reversed(part))]
    filled = fill_cache(cache, encoder, progress(order), max_seconds)
    if filled.skipped:
        first = filled.skipped[0].reason
        tqdm.write(f"{len(filled.skipped)} of {len(examples)} clips skipped; the first: {first}", file=sys.stderr)
    return Features(cache, filled.keys, filled.skipped, filled.encoded)


def open_cache(encoder: AudioEncoder, max_seconds: float) -> FeatureCache:
    """The features of an encoder in windows of a length."""
    return FeatureCache(cache_folder() / "features", f"{encoder.identity}; windows of {max_seconds:g} s")


def launched_rank() -> tuple[int, int]:
    """This process's rank, and the number of ranks, as `torchrun` and `accelerate launch` say; alone: 0 of 1."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def own_part(examples: Sequence[Example], rank: int, ranks: int) -> Sequence[Example]:
    """The stretch of the examples that is a rank's: neighbours in a tar shard stay together."""
    return examples[len(examples) * rank // ranks : len(examples) * (rank + 1) // ranks]


def progress(examples: Sequence[Example]) -> Iterable[Example]:
    """The examples with a bar on standard error."""
    return tqdm(examples, desc="features", unit="clip", mininterval=1.0 if sys.stderr.isatty() else 30.0)
