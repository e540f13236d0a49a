"""Care of the feature cache: `verify` reads everything that is in it, `prune` removes what is no longer wanted.

Both may run beside writers and readers: shards are never changed, only set aside, or replaced by new ones first.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mint.data.features.cache import CHECKSUM, FeatureCache, checksum, clip_key, decode, encode_batch
from mint.data.features.file_digests import Digests
from mint.data.features.shard_index import set_aside
from mint.types import AudioEncoder, Example, MintError

SAMPLE = 8
"""Clips that are encoded again."""
TOLERANCE = 0.01
"""Share of the largest feature by which a clip that is encoded again, perhaps on another machine, may differ."""


@dataclass
class Verified:
    """What verifying a cache came to."""

    shards: int = 0
    clips: int = 0
    """Clips of the manifests that are in the cache."""
    missing: list[str] = field(default_factory=list)
    """Ids of those that are not, or that cannot be read."""
    damaged: list[str] = field(default_factory=list)
    """Shards with the reason; those that were set aside have left their clips missing."""
    without_checksum: int = 0
    """Shards of earlier versions: only their shape and that they are finite was checked."""
    wrong: list[str] = field(default_factory=list)
    """Ids of clips whose features are not what the encoder gives."""

    def sound(self) -> bool:
        """Whether what is in the cache is right; clips may be missing."""
        return not self.damaged and not self.wrong


@dataclass
class Pruned:
    """What pruning a cache came to."""

    kept: int = 0
    removed: int = 0
    """Clips."""
    freed_bytes: int = 0


def verify_cache(
    cache: FeatureCache, encoder: AudioEncoder, examples: Sequence[Example], max_seconds: float
) -> Verified:
    """Read all shards, look for the clips of some examples, and encode a few of them again.

    A shard that is damaged is set aside, so that the next filling encodes its clips anew.
    """
    result = Verified()
    for path in sorted(cache.folder.glob("*.safetensors")):
        result.shards += 1
        problem = _check_shard(path, encoder.width, result)
        if problem:
            done = "set aside" if set_aside(path) else "it cannot be set aside here"
            result.damaged.append(f"{path.name}: {problem}; {done}")
    opened = FeatureCache(cache.root, cache.identity)
    there: list[Example] = []
    for example in examples:
        key = _key(example, cache.digests)
        if key is None or key not in opened:
            result.missing.append(example.id)
        else:
            there.append(example)
    result.clips = len(there)
    for example in random.Random(0).sample(there, min(SAMPLE, len(there))):
        key = clip_key(example)  # of the bytes as they are now, whatever is remembered of them
        if key not in opened or not _same_features(opened.read(key), encoder, example, max_seconds):
            result.wrong.append(example.id)
    cache.digests.save()
    return result


def prune_cache(cache: FeatureCache, examples: Sequence[Example]) -> Pruned:
    """Remove the features of all clips but those of some examples, and what was set aside.

    Raises:
        MintError: a file cannot be read, so that nobody knows which features are its; nothing is removed then.
    """
    wanted = {clip_key(example, cache.digests) for example in examples}
    cache.digests.save()
    result = Pruned()
    placed: set[str] = set()
    for path in sorted(cache.folder.glob("*.safetensors")):
        with suppress(FileNotFoundError):  # another process prunes too
            _prune_shard(cache, path, wanted, placed, result)
    for path in cache.folder.glob("*.damaged"):
        with suppress(FileNotFoundError):
            result.freed_bytes += path.stat().st_size
            path.unlink()
    return result


def _prune_shard(cache: FeatureCache, path: Path, wanted: Collection[str], placed: set[str], result: Pruned) -> None:
    """Keep, rewrite or remove one shard; `placed` are the clips that other shards hold already."""
    size = path.stat().st_size
    tensors = _read_shard(path)
    clips: dict[str, list[Tensor]] = {}
    for key, window in _windows(tensors):
        clips.setdefault(key, []).append(window)
    kept = {key: windows for key, windows in clips.items() if key in wanted and key not in placed}
    placed.update(kept)
    result.kept += len(kept)
    result.removed += len(clips) - len(kept)
    if len(kept) == len(clips):
        return
    if kept:
        cache.write(kept)
        size -= sum(window.numel() * window.element_size() for windows in kept.values() for window in windows)
    path.unlink()
    result.freed_bytes += size


def _read_shard(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as shard:
        return {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118


def _windows(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Key and features of each window, in the order of the windows."""

    def place(name: str) -> tuple[str, int]:
        key, _, window = name.partition("/")
        return key, int(window.partition("of")[0])

    for name in sorted(tensors, key=place):
        yield place(name)[0], tensors[name]


def _check_shard(path: Path, width: int, result: Verified) -> str:
    """What is wrong with a shard, or nothing."""
    try:
        tensors = _read_shard(path)
        with safe_open(path, framework="pt") as shard:
            stated = (shard.metadata() or {}).get(CHECKSUM)
    except (OSError, SafetensorError) as error:
        return f"it cannot be read ({error})"
    if stated is None:
        result.without_checksum += 1
    elif stated != checksum(tensors):
        return "its features are not those that were written"
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or tensor.shape[1] != width or not torch.isfinite(tensor).all():
            return f"{name} has the shape {tuple(tensor.shape)} or values that are not finite"
    return ""


def _same_features(windows: Sequence[Tensor], encoder: AudioEncoder, example: Example, max_seconds: float) -> bool:
    """Whether features are what the encoder gives, up to rounding."""
    expected = encode_batch(encoder, decode(example, encoder.sample_rate, max_seconds))
    return len(windows) == len(expected) and all(
        ours.shape == other.shape and bool((ours - other).abs().max() <= TOLERANCE * (1e-3 + other.abs().max()))
        for ours, other in zip(windows, expected, strict=True)
    )


def _key(example: Example, digests: Digests) -> str | None:
    try:
        return clip_key(example, digests)
    except MintError:
        return None
