"""Upkeep of the feature cache: `verify_cache` reads everything in it, `prune_cache` removes what is no longer wanted.

Both may run beside writers and readers: shards are never changed, only set aside, or replaced by new ones first.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mint.data.audio.ahead import read_ahead
from mint.data.features.cache import CHECKSUM, FeatureCache, checksum, clip_key, part_key
from mint.data.features.encode import SECONDS_AT_ONCE, decode, encode_clips, num_samples
from mint.data.features.shard_index import read_window_name, set_aside
from mint.data.features.stored import is_stored, read_stored
from mint.types import AudioEncoder, Example, MintError

SAMPLE = 8
"""Clips that are encoded again, unless all are."""
TOLERANCE = 0.01
"""Share of the largest feature by which a clip that is encoded again, perhaps on another machine, may differ."""


@dataclass
class Verified:
    """Result of verifying a cache."""

    shards: int = 0
    clips: int = 0
    """Clips of the examples that are in the cache."""
    missing: list[str] = field(default_factory=list)
    """Ids of those that are not, or that cannot be read."""
    others: int = 0
    """Clips in the cache that the examples do not name: of these only the checksums can be checked."""
    damaged: list[str] = field(default_factory=list)
    """Shards with the reason; those that were set aside have left their clips missing."""
    checked: int = 0
    """Clips whose file was read and encoded again."""
    wrong: list[str] = field(default_factory=list)
    """Ids of clips whose features are not what the encoder gives."""
    wrong_digests: list[str] = field(default_factory=list)
    """Ids of clips whose file was recorded with the digest of other bytes; the record is corrected."""
    not_removed: str = ""
    """Why wrong features could not be removed; empty if they were."""

    def sound(self) -> bool:
        """Return whether everything that was looked at in the cache is right; clips may be missing."""
        return not (self.damaged or self.wrong or self.wrong_digests)


@dataclass
class Pruned:
    """Result of pruning a cache."""

    kept: int = 0
    removed: int = 0
    """Clips."""
    freed_bytes: int = 0


def verify_cache(
    cache: FeatureCache,
    encoder: AudioEncoder,
    examples: Sequence[Example],
    max_seconds: float,
    check_all: bool = False,
    progress: Callable[[Sequence[Example]], Iterable[Example]] = iter,
) -> Verified:
    """Read all shards, look for the clips of some examples, and encode a few of them, or all, again.

    A checksum tells whether a shard is as it was written; only encoding tells whether the right features were written.
    What is wrong goes, so that the next filling of the cache encodes it again: a damaged shard is set aside, wrong
    features are removed, and the wrong digest of a file is corrected.

    Args:
        cache: the cache of this encoder.
        encoder: the frozen encoder.
        examples: the clips to look for.
        max_seconds: longest window.
        check_all: read and encode all clips of the examples again, not only a few.
        progress: wraps the clips that are encoded again, to show how far it is.
    """
    result = Verified()
    for path in sorted(cache.folder.glob("*.safetensors")):
        result.shards += 1
        problem = _check_shard(path, encoder.width)
        if problem:
            done = "set aside" if set_aside(path) else "it cannot be set aside here"
            result.damaged.append(f"{path.name}: {problem}; {done}")

    # Opened anew, as the shards that were set aside are gone.
    opened = FeatureCache(cache.root, cache.identity, cache.dtype)
    keys: set[bytes] = set()
    if check_all:
        wrong = _check_clips(opened, encoder, progress(examples), max_seconds, result, keys)
    else:
        present = _look_up(opened, examples, result, keys)
        # The same clips each time, so that what was mended can be seen to be mended.
        sample = random.Random(0).sample(present, min(SAMPLE, len(present)))
        result.clips -= len(sample)  # these are counted where they are encoded
        wrong = _check_clips(opened, encoder, progress(sample), max_seconds, result, keys)
    result.others = len(set(opened) - keys)
    opened.digests.save()

    if wrong:
        try:
            _remove(opened, lambda key: key not in wrong)
        except (MintError, OSError) as error:
            result.not_removed = str(error)
    return result


def prune_cache(cache: FeatureCache, examples: Sequence[Example]) -> Pruned:
    """Remove the features of all clips but those of some examples, and what was set aside.

    Raises:
        MintError: a file cannot be read, so that nobody knows which features are its; nothing is removed then.
    """
    # All keys are known before anything is removed.
    wanted = {clip_key(example, cache.digests) for example in examples}
    cache.digests.save()
    result = _remove(cache, wanted.__contains__)
    for path in cache.folder.glob("*.damaged"):
        with suppress(FileNotFoundError):  # another process prunes too
            result.freed_bytes += path.stat().st_size
            path.unlink()
    return result


def _look_up(cache: FeatureCache, examples: Iterable[Example], result: Verified, keys: set[bytes]) -> list[Example]:
    """Count which clips are in the cache by what is remembered of their files; return those, and add their keys."""
    present: list[Example] = []
    for example in examples:
        try:
            key = clip_key(example, cache.digests)
        except MintError:  # its file cannot be read
            result.missing.append(example.id)
            continue
        if key in cache:
            present.append(example)
            keys.add(key)
        else:
            result.missing.append(example.id)
    result.clips += len(present)
    return present


class _Clip(NamedTuple):
    """A clip as it is now: key, whether its file's digest was recorded rightly, and what should be in the cache.

    That is windows [S] to encode, or the features [T, D] of a file of features; nothing if the cache lacks the clip.
    """

    key: bytes
    is_recorded: bool
    windows: list[Any] | None = None
    features: Tensor | None = None


def _check_clips(
    cache: FeatureCache,
    encoder: AudioEncoder,
    examples: Iterable[Example],
    max_seconds: float,
    result: Verified,
    keys: set[bytes],
) -> set[bytes]:
    """Read and encode some clips again, whatever is remembered of their files.

    Returns:
        The keys of wrong features. The keys of all clips that are in the cache are added to `keys`.
    """

    def read(example: Example) -> _Clip | MintError:
        try:
            digest, is_recorded = cache.digests.check(example.audio)
            key = part_key(digest, example.start, example.duration)
            if key not in cache:
                return _Clip(key, is_recorded)
            if is_stored(example.audio):
                return _Clip(key, is_recorded, features=read_stored(example, encoder.identity))
            return _Clip(key, is_recorded, decode(example, encoder.sample_rate, max_seconds))
        except OSError as error:
            return MintError(str(error))
        except MintError as error:
            return error

    wrong: set[bytes] = set()
    ids: dict[bytes, list[str]] = {}  # ids of the examples of each clip
    waiting: dict[bytes, list[Any]] = {}  # windows [S] of clips that wait to be encoded

    def compare() -> None:
        for key, expected in encode_clips(encoder, waiting).items():
            if not _is_same(cache.read(key), expected):
                wrong.add(key)
        waiting.clear()

    for example, clip in read_ahead(examples, read):
        if isinstance(clip, MintError):
            result.missing.append(example.id)
            continue
        if not clip.is_recorded:
            result.wrong_digests.append(example.id)
        if clip.key not in cache:
            result.missing.append(example.id)
            continue

        # Several examples of one clip are compared once, and named together.
        if clip.key not in ids and clip.windows is not None:
            waiting[clip.key] = clip.windows
        elif clip.key not in ids and clip.features is not None and not _is_same(cache.read(clip.key), [clip.features]):
            wrong.add(clip.key)
        ids.setdefault(clip.key, []).append(example.id)
        result.clips += 1
        result.checked += 1
        if num_samples(waiting.values()) >= SECONDS_AT_ONCE * encoder.sample_rate:
            compare()
    compare()

    keys.update(ids)
    result.wrong += [name for key in ids if key in wrong for name in ids[key]]
    return wrong


def _check_shard(path: Path, width: int) -> str:
    """Return what is wrong with a shard, or nothing."""
    try:
        tensors = _read_shard(path)
        with safe_open(path, framework="pt") as shard:
            stated = (shard.metadata() or {}).get(CHECKSUM)
    except (OSError, SafetensorError) as error:
        return f"it cannot be read ({error})"

    if stated != checksum(tensors):
        return "its features are not those that were written"
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or tensor.shape[1] != width or not torch.isfinite(tensor).all():
            return f"{name} has the shape {tuple(tensor.shape)} or values that are not finite"
    return ""


def _is_same(windows: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Return whether the windows [T, D] of a clip are what the encoder gives, up to rounding."""
    if len(windows) != len(expected):
        return False
    for window, other in zip(windows, expected, strict=True):
        # Another machine, or other clips in the batch, may round differently; another clip differs by far more.
        if window.shape != other.shape:
            return False
        if bool((window - other).abs().max() > TOLERANCE * (1e-3 + other.abs().max())):
            return False
    return True


def _remove(cache: FeatureCache, is_wanted: Callable[[bytes], bool]) -> Pruned:
    """Remove the features of all clips that are not wanted; of clips that are in several shards, one stays."""
    result = Pruned()
    written: set[bytes] = set()  # clips that an earlier shard keeps
    for path in sorted(cache.folder.glob("*.safetensors")):
        with suppress(FileNotFoundError):  # another process prunes too
            _rewrite(cache, path, is_wanted, written, result)
    return result


def _rewrite(
    cache: FeatureCache, path: Path, is_wanted: Callable[[bytes], bool], written: set[bytes], result: Pruned
) -> None:
    """Keep, write again or remove one shard, and note the clips that stay in `written`."""
    size = path.stat().st_size
    tensors = _read_shard(path)
    clips = _clips(tensors)
    kept = {key: windows for key, windows in clips.items() if is_wanted(key) and key not in written}
    written.update(kept)
    result.kept += len(kept)
    result.removed += len(clips) - len(kept)
    if sum(map(len, kept.values())) == len(tensors):
        return

    # What stays is written first: no clip is missing in between.
    if kept:
        cache.write(kept)
        size -= sum(window.numel() * window.element_size() for windows in kept.values() for window in windows)
    path.unlink()
    result.freed_bytes += size


def _read_shard(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a shard by name."""
    with safe_open(path, framework="pt") as shard:
        return {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118  # it is no dictionary


def _clips(tensors: Mapping[str, Tensor]) -> dict[bytes, list[Tensor]]:
    """Return the windows of each clip of a shard, in their order."""
    windows: dict[bytes, dict[int, Tensor]] = {}
    for name, tensor in tensors.items():
        parsed = read_window_name(name)
        if parsed is not None:
            key, index, _ = parsed
            windows.setdefault(key, {})[index] = tensor

    in_order = {}
    for key, by_index in windows.items():
        in_order[key] = [by_index[index] for index in sorted(by_index)]
    return in_order
