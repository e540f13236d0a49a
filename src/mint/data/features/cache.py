"""Frozen features, computed once and kept on disk.

The encoder is frozen, so its output for a clip never changes: it is written once and read in every epoch. A clip is
keyed by the SHA-256 of its file's bytes (remembered: see `mint.data.features.file_digests`) and by where it starts and
ends in the file; the
encoder's identity (weights, revision, preprocessing) names the folder. So a changed file or encoder is a miss, never a
wrong hit. Shards are safetensors files that are written beside their place and renamed: a reader sees whole shards
only, and two writers never meet. Each holds the checksum of its features, for `mint cache --verify`.

Features have the precision of the encoder's `cache_dtype`, from the disk and straight from the encoder alike: a hit, a
miss and use without a cache give the same tensor. A clip longer than a window is kept as several windows.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mint.data.audio.decode import load_parts, probe, windows
from mint.data.audio.members import clear_abandoned, digest
from mint.data.features.file_digests import Digests
from mint.data.features.shard_index import Places
from mint.data.id_tables import Ids
from mint.data.manifests.manifest import to_json
from mint.types import AudioEncoder, Example, MintError

CLIPS_PER_SHARD = 256
SECONDS_AT_ONCE = 60
"""Audio that is encoded in one batch."""
NUMBERS_PER_SHARD = 1 << 25
"""64 MiB in half precision: bounds the memory where clips are long."""
CHECKSUM = "sha256"
"""Key of a shard's metadata."""
NOT_FINITE = (
    "its features are not finite in {}; check the recording, "
    "or set encoder.cache_dtype to bfloat16, as float16 ends at 65504"
)


@dataclass(frozen=True)
class Skipped:
    """A clip that could not be used, and why."""

    id: str
    audio: str
    reason: str


@dataclass
class Filled:
    """What filling a cache came to."""

    files: dict[str, str]
    """Digest of each file that has a usable clip, by its path."""
    skipped: list[Skipped]
    encoded: int
    """Clips that were not in the cache before."""

    def skip(self, example: Example, reason: str) -> None:
        """Note a clip that cannot be used."""
        self.skipped.append(Skipped(example.id, str(example.audio), reason))


@dataclass
class _Decoded:
    """A clip that is to be encoded: its windows [S], and the examples that it is of."""

    parts: list[Any]
    examples: list[Example] = field(default_factory=list)


class FeatureCache:
    """The features of one encoder below `root`. One that is complete may lie where nothing can be written.

    Args:
        root: folder of all caches.
        identity: the encoder's.
        dtype: what is written.

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
            _keep(self.folder / "encoder.txt", f"{identity}\n".encode())
        except OSError as error:
            raise MintError(
                f"cannot keep features in {self.folder}: {error}; set MINT_CACHE to a folder with space"
            ) from None
        clear_abandoned(self.folder)
        self.digests = Digests(root / "digests")
        self._places = Places(self.folder)

    def refresh(self) -> None:
        """Look for shards that were written since; a damaged one is set aside and its clips count as missing."""
        self._places.refresh()

    def __contains__(self, key: str) -> bool:
        return self._places.find(key) is not None

    def __iter__(self) -> Iterator[str]:
        return self._places.keys()

    def have(self, ids: Ids) -> NDArray[np.bool_]:
        """Which of some clips, by `mint.data.features.shard_index.clip_id` [N, 2], are there: [N]."""
        return self._places.have(ids)

    def read(self, key: str) -> list[Tensor]:
        """The windows of a clip, each [T, D] float32; errors as `read_window`."""
        shard, count = self._find(key)
        return [shard.get_tensor(_window_name(key, index, count)).float() for index in range(count)]

    def read_window(self, key: str, choice: int) -> Tensor:
        """One window [T, D] float32 of a clip, chosen by a number: the random crop of training.

        Raises:
            MintError: the clip's features were removed while they were in use.
        """
        shard, count = self._find(key)
        tensor: Tensor = shard.get_tensor(_window_name(key, choice % count, count))
        return tensor.float()

    def _find(self, key: str) -> tuple[Any, int]:
        """The open shard of a clip, and its number of windows; looked for anew where another process moved it."""
        for places in (self._places, None):
            if places is None:
                places = self._places = Places(self.folder)
            place = places.find(key)
            with suppress(OSError, SafetensorError):
                if place is not None:
                    return places.shard(place[0]), place[1]
        raise MintError(f"features that were in {self.folder} are gone; start again, they are made anew")

    def write(self, clips: Mapping[str, Sequence[Tensor]]) -> None:
        """Write clips, windows [T, D] by key, into a shard of their own.

        Raises:
            MintError: the disk is full or the folder cannot be written to; earlier shards are untouched.
        """
        tensors = {
            _window_name(key, index, len(parts)): part.to(self.dtype).contiguous()
            for key, parts in clips.items()
            for index, part in enumerate(parts)
        }
        place = self.folder / f"{uuid.uuid4().hex}.safetensors"
        half_written = place.with_suffix(".tmp")
        try:
            save_file(tensors, half_written, metadata={CHECKSUM: checksum(tensors)})
            half_written.replace(place)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                half_written.unlink()
            raise MintError(
                f"cannot write features to {self.folder}: {error}; "
                "free some space, or set MINT_CACHE to another folder, and start again"
            ) from None
        self.refresh()


def write_skipped(place: Path, skipped: Sequence[Skipped]) -> None:
    """List clips that could not be used, one a line, in place of an earlier list; of none there is no file."""
    if skipped:
        _keep(place, b"".join(to_json(asdict(one)) + b"\n" for one in skipped))
    elif place.exists():
        place.unlink()


def _keep(place: Path, content: bytes) -> None:
    """Write a small file beside its place and rename it, unless it is there already."""
    with suppress(FileNotFoundError):
        if place.read_bytes() == content:
            return
    half_written = place.with_name(f"{uuid.uuid4().hex}.tmp")
    half_written.write_bytes(content)
    half_written.replace(place)


def clip_key(example: Example, digests: Digests | None = None) -> str:
    """What identifies a clip: its file's bytes and its place in the file.

    Args:
        example: the clip.
        digests: those that are known already; None: the file is read.

    Raises:
        MintError: the file is missing or cannot be read.
    """
    return part_key(_file_digest(example.audio, digests), example.start, example.duration)


def _file_digest(path: Path, digests: Digests | None) -> str:
    try:
        return digest(path) if digests is None else digests.of(path)
    except OSError as error:
        reason = error.strerror or error
        raise MintError(f"cannot read {path}: {reason}; check the path in the manifest") from None


def part_key(whole: str, start: float, duration: float | None) -> str:
    """The key of a part of a file, by the key of the whole."""
    if not start and duration is None:
        return whole
    return f"{whole}@{_seconds(start)}+{'' if duration is None else _seconds(duration)}"


def _seconds(value: float) -> str:
    """As many digits as tell a time from every other: three, as first versions had, where they are enough."""
    short = f"{value:.3f}"
    return short if float(short) == value else repr(value)


def fill_cache(cache: FeatureCache, encoder: AudioEncoder, examples: Iterable[Example], max_seconds: float) -> Filled:
    """Encode the clips that are not in the cache yet.

    Args:
        cache: of this encoder.
        encoder: the frozen encoder.
        examples: clips; those that cannot be decoded, or whose features are not finite, are skipped.
        max_seconds: longest window.

    Raises:
        MintError: the features cannot be written.
    """
    filled = Filled({}, [], 0)
    decoded: dict[str, _Decoded] = {}
    pending: dict[str, list[Tensor]] = {}
    for example, found in _read_ahead(cache, examples, encoder.sample_rate, max_seconds):
        if isinstance(found, MintError):
            filled.skip(example, str(found))
            continue
        whole, parts = found
        filled.files[str(example.audio)] = whole
        key = part_key(whole, example.start, example.duration)
        if parts is not None and not (key in cache or key in pending):
            decoded.setdefault(key, _Decoded(parts)).examples.append(example)
        if sum(len(part) for clip in decoded.values() for part in clip.parts) >= SECONDS_AT_ONCE * encoder.sample_rate:
            pending |= _encode(encoder, decoded, filled)
            decoded = {}
        if len(pending) >= CLIPS_PER_SHARD or _numbers(pending) > NUMBERS_PER_SHARD:
            cache.write(pending)
            pending = {}
    pending |= _encode(encoder, decoded, filled)
    if pending:
        cache.write(pending)
    cache.digests.save()
    return filled


Found = tuple[str, list[Any] | None] | MintError
"""Digest of a clip's file, and its windows unless they are in the cache; or why it cannot be used."""


def _read_ahead(
    cache: FeatureCache, examples: Iterable[Example], rate: int, max_seconds: float
) -> Iterator[tuple[Example, Found]]:
    """Decode in threads, in the order of the examples, a few clips before they are wanted."""

    def look(example: Example) -> Found:
        try:
            whole = _file_digest(example.audio, cache.digests)
            is_there = part_key(whole, example.start, example.duration) in cache
            return whole, None if is_there else decode(example, rate, max_seconds)
        except MintError as error:
            return error

    threads = read_threads()
    waiting: deque[tuple[Example, Future[Found]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for example in examples:
            waiting.append((example, pool.submit(look, example)))
            if len(waiting) > 2 * threads:
                first, job = waiting.popleft()
                yield first, job.result()
        while waiting:
            first, job = waiting.popleft()
            yield first, job.result()


def read_threads() -> int:
    """Threads that read audio: the cores of this process, shared by the ranks on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def decode(example: Example, rate: int, max_seconds: float) -> list[Any]:
    """The windows of a clip, waveforms [S] at `rate`; errors as `load_parts`."""
    length = probe(example.audio)[0] - example.start
    if example.duration is not None:
        length = min(length, example.duration)
    parts = windows(length, max_seconds) if length > max_seconds else [(0.0, example.duration)]
    return list(load_parts(example.audio, rate, [(example.start + start, seconds) for start, seconds in parts]))


def _encode(encoder: AudioEncoder, clips: Mapping[str, _Decoded], filled: Filled) -> dict[str, list[Tensor]]:
    """Encode the windows of some clips in one padded batch; clips whose features cannot be kept are skipped."""
    parts = [part for clip in clips.values() for part in clip.parts]
    features = iter(encode_batch(encoder, parts) if parts else [])
    good: dict[str, list[Tensor]] = {}
    for key, clip in clips.items():
        encoded = [next(features) for _ in clip.parts]
        if all(map(_is_finite, encoded)):
            good[key] = encoded
        else:
            for example in clip.examples:
                filled.skip(example, f"{example.audio}: {NOT_FINITE.format(encoder.cache_dtype)}")
    filled.encoded += len(good)
    return good


def _is_finite(features: Tensor) -> bool:
    return bool(features.isfinite().all())


def _numbers(clips: Mapping[str, Sequence[Tensor]]) -> int:
    return sum(part.numel() for parts in clips.values() for part in parts)


def encode_samples(encoder: AudioEncoder, samples: Any) -> Tensor:
    """Encode one waveform [S] (NumPy, the encoder's rate): its real tokens [T, D], float32 as the cache holds them.

    Raises:
        MintError: it does not hold them.
    """
    (features,) = encode_batch(encoder, [samples])
    if not _is_finite(features):
        raise MintError(NOT_FINITE.format(encoder.cache_dtype))
    return features


def encode_batch(encoder: AudioEncoder, parts: Sequence[Any]) -> list[Tensor]:
    """Encode waveforms [S] of any lengths together: the real tokens [T, D] of each, as `encode_samples`."""
    device = _device(encoder)
    waveforms = pad_sequence([torch.from_numpy(part) for part in parts], batch_first=True).to(device)
    features, mask = encoder.encode(waveforms, torch.tensor([len(part) for part in parts], device=device))
    return [row[real].cpu().to(encoder.cache_dtype).float() for row, real in zip(features, mask, strict=True)]


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names and values, in the order of the names."""
    state = hashlib.sha256()
    for name in sorted(tensors):
        state.update(f"{name} {tuple(tensors[name].shape)} ".encode())
        state.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def _window_name(key: str, index: int, count: int) -> str:
    return f"{key}/{index}of{count}"


def _device(encoder: AudioEncoder) -> torch.device:
    """Where an encoder's weights are."""
    tensors = itertools.chain(encoder.parameters(), encoder.buffers()) if isinstance(encoder, nn.Module) else iter(())
    return next(tensors, torch.empty(0)).device
