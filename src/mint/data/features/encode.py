"""From audio to frozen features: encoding in batches, and filling the cache."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mint.data.audio.ahead import read_ahead
from mint.data.audio.decode import load_parts, probe, windows
from mint.data.features.cache import FeatureCache, file_digest, part_key, write_if_other
from mint.data.features.stored import is_stored, read_stored
from mint.data.manifests.manifest import to_json
from mint.types import AudioEncoder, Example, MintError

CLIPS_PER_SHARD = 256
"""A shard is written once so many clips are encoded."""
NUMBERS_PER_SHARD = 1 << 25
"""A shard is written once it would hold more numbers than these, 64 MiB in half precision: clips may be long."""
SECONDS_AT_ONCE = 60
"""Seconds of audio that are encoded in one batch."""
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
    """Result of filling a cache."""

    files: dict[str, bytes]
    """Digest of each file that has a usable clip, by its path."""
    skipped: list[Skipped]
    encoded: int
    """Number of clips that were not in the cache before."""

    def skip(self, example: Example, reason: str) -> None:
        """Note a clip that cannot be used."""
        self.skipped.append(Skipped(example.id, str(example.audio), reason))


@dataclass
class _Decoded:
    """A clip that waits to be encoded: its windows [S], and the examples that name it."""

    windows: list[Any]
    examples: list[Example] = field(default_factory=list)


class _Clip(NamedTuple):
    """An example as a thread has read it: digest and key, and windows or features unless the cache has them."""

    digest: bytes
    key: bytes
    windows: list[Any] | None = None
    """Audio [S] that is to be encoded."""
    features: Tensor | None = None
    """[T, D] of a file of features, which needs no encoder."""


def fill_cache(cache: FeatureCache, encoder: AudioEncoder, examples: Iterable[Example], max_seconds: float) -> Filled:
    """Encode the clips that are not in the cache yet.

    Args:
        cache: the cache of this encoder.
        encoder: the frozen encoder.
        examples: clips; those that cannot be decoded, or whose features are not finite, are skipped.
        max_seconds: longest window.

    Raises:
        MintError: the features cannot be written.
    """

    def read(example: Example) -> _Clip | MintError:
        # In a thread: hashing, reading and decoding release Python's lock.
        try:
            digest = file_digest(example.audio, cache.digests)
            key = part_key(digest, example.start, example.duration)
            if key in cache:
                return _Clip(digest, key)
            if is_stored(example.audio):
                return _Clip(digest, key, features=read_stored(example, encoder.identity))
            return _Clip(digest, key, decode(example, encoder.sample_rate, max_seconds))
        except MintError as error:
            return error

    filled = Filled({}, [], 0)
    decoded: dict[bytes, _Decoded] = {}  # clips that wait to be encoded, by key
    encoded: dict[bytes, list[Tensor]] = {}  # clips that wait to be written
    for example, clip in read_ahead(examples, read):
        if isinstance(clip, MintError):
            filled.skip(example, str(clip))
            continue
        filled.files[str(example.audio)] = clip.digest

        # Meanwhile an earlier example of the same clip may have been encoded.
        if clip.windows is not None and clip.key not in cache and clip.key not in encoded:
            decoded.setdefault(clip.key, _Decoded(clip.windows)).examples.append(example)

        if clip.features is not None and clip.key not in cache and clip.key not in encoded:
            encoded[clip.key] = [clip.features]
            filled.encoded += 1

        # Batches for the encoder, and shards for the disk, are gathered apart: clips differ in length.
        if num_samples(one.windows for one in decoded.values()) >= SECONDS_AT_ONCE * encoder.sample_rate:
            encoded |= _encode_decoded(encoder, decoded, filled)
            decoded = {}
        if len(encoded) >= CLIPS_PER_SHARD or _num_numbers(encoded) > NUMBERS_PER_SHARD:
            cache.write(encoded)
            encoded = {}

    encoded |= _encode_decoded(encoder, decoded, filled)
    if encoded:
        cache.write(encoded)
    cache.digests.save()
    return filled


def _encode_decoded(
    encoder: AudioEncoder, decoded: Mapping[bytes, _Decoded], filled: Filled
) -> dict[bytes, list[Tensor]]:
    """Return the features of decoded clips, windows [T, D] by key; clips whose features cannot be kept are skipped."""
    encoded: dict[bytes, list[Tensor]] = {}
    windows = {key: clip.windows for key, clip in decoded.items()}
    for key, features in encode_clips(encoder, windows).items():
        if all(map(is_finite, features)):
            encoded[key] = features
            continue
        # Every example that names the clip, since each would be missing from the run.
        for example in decoded[key].examples:
            filled.skip(example, f"{example.audio}: {NOT_FINITE.format(encoder.cache_dtype)}")
    filled.encoded += len(encoded)
    return encoded


def encode_clips(encoder: AudioEncoder, clips: Mapping[bytes, Sequence[Any]]) -> dict[bytes, list[Tensor]]:
    """Encode all windows [S] of some clips in one padded batch: windows [T, D] by key, as `encode_batch`."""
    samples = list(itertools.chain.from_iterable(clips.values()))
    # In the order of the windows, so that each clip takes as many as it has.
    features = iter(encode_batch(encoder, samples) if samples else [])
    return {key: list(itertools.islice(features, len(windows))) for key, windows in clips.items()}


def encode_samples(encoder: AudioEncoder, samples: Any) -> Tensor:
    """Encode one waveform [S] (NumPy, the encoder's rate): its real tokens [T, D], float32 as the cache holds them.

    Raises:
        MintError: the precision of the cache does not hold them.
    """
    (features,) = encode_batch(encoder, [samples])
    if not is_finite(features):
        raise MintError(NOT_FINITE.format(encoder.cache_dtype))
    return features


def encode_batch(encoder: AudioEncoder, samples: Sequence[Any]) -> list[Tensor]:
    """Encode waveforms [S] of any lengths together: the real tokens [T, D] of each, as `encode_samples`."""
    device = device_of(encoder)
    waveforms = pad_sequence([torch.from_numpy(one) for one in samples], batch_first=True).to(device)  # [B, S]
    lengths = torch.tensor([len(one) for one in samples], device=device)
    features, mask = encoder.encode(waveforms, lengths)  # [B, T, D], [B, T]

    # Rounded as on disk, so that a hit and a miss give the same numbers.
    return [row[is_real].cpu().to(encoder.cache_dtype).float() for row, is_real in zip(features, mask, strict=True)]


def decode(example: Example, rate: int, max_seconds: float) -> list[Any]:
    """Return the windows of a clip, waveforms [S] at `rate`; errors as `load_parts`."""
    length = probe(example.audio)[0] - example.start  # seconds
    if example.duration is not None:
        length = min(length, example.duration)

    # A clip that fits into one window is read to its end, whatever its header says of its length.
    parts = windows(length, max_seconds) if length > max_seconds else [(0.0, example.duration)]
    return list(load_parts(example.audio, rate, [(example.start + start, seconds) for start, seconds in parts]))


def write_skipped(path: Path, skipped: Sequence[Skipped]) -> None:
    """List clips that could not be used, one a line, in place of an earlier list; without any there is no file."""
    if skipped:
        write_if_other(path, b"".join(to_json(asdict(one)) + b"\n" for one in skipped))
    elif path.exists():
        path.unlink()


def num_samples(clips: Iterable[Sequence[Any]]) -> int:
    """Return the number of samples in the windows [S] of some clips."""
    return sum(len(window) for windows in clips for window in windows)


def _num_numbers(clips: Mapping[bytes, Sequence[Tensor]]) -> int:
    """Return how many numbers the features of some clips have."""
    return sum(window.numel() for windows in clips.values() for window in windows)


def is_finite(features: Tensor) -> bool:
    """Return whether all features are finite in the precision that they were rounded to."""
    return bool(features.isfinite().all())


def device_of(encoder: AudioEncoder) -> torch.device:
    """Return where the weights of an encoder are."""
    tensors = itertools.chain(encoder.parameters(), encoder.buffers()) if isinstance(encoder, nn.Module) else iter(())
    return next(tensors, torch.empty(0)).device
