"""Frozen features, computed once and kept on disk.

The encoder is frozen, so its output for a clip never changes: it is written once and read in every epoch. A clip is
keyed by the SHA-256 of its file's bytes and by its place in the file; the encoder's identity (weights, revision,
preprocessing) names the folder. So a changed file or encoder is a miss, never a wrong hit. Shards are safetensors files
that are written beside their place and renamed: a reader sees whole shards only, and two writers never meet.

Features are kept in float16; a clip longer than a window is kept as several windows.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mint.data.audio import load_audio, probe, windows
from mint.types import AudioEncoder, Example, MintError

CLIPS_PER_SHARD = 256


@dataclass(frozen=True)
class Skipped:
    """A clip that could not be used, and why."""

    id: str
    audio: str
    reason: str


class FeatureCache:
    """The features of one encoder below `root`.

    Args:
        root: folder of all caches.
        identity: the encoder's.
    """

    def __init__(self, root: Path, identity: str) -> None:
        self.folder = root / hashlib.sha256(identity.encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "encoder.txt").write_text(identity + "\n", encoding="utf-8")
        self._shards: set[str] = set()
        self._places: dict[str, tuple[Any, int]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look for shards that were written since; a damaged one is set aside and its clips count as missing."""
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name not in self._shards:
                self._open(path)

    def _open(self, path: Path) -> None:
        try:
            shard: Any = safe_open(path, framework="pt")
            names = list(shard.keys())
        except Exception:  # what does not open, whatever the reason, is not a shard
            path.rename(path.with_suffix(".damaged"))
            return
        self._shards.add(path.name)
        for name in names:
            key, _, place = name.partition("/")
            self._places[key] = (shard, int(place.partition("of")[2]))

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def read(self, key: str) -> list[Tensor]:
        """The windows of a clip, each [T, D] float32."""
        shard, count = self._places[key]
        return [shard.get_tensor(_window_name(key, index, count)).float() for index in range(count)]

    def read_window(self, key: str, choice: int) -> Tensor:
        """One window [T, D] float32 of a clip, chosen by a number: the random crop of training."""
        shard, count = self._places[key]
        tensor: Tensor = shard.get_tensor(_window_name(key, choice % count, count))
        return tensor.float()

    def write(self, clips: Sequence[tuple[str, list[Tensor]]]) -> None:
        """Write clips, given as (key, windows), into a shard of their own."""
        tensors = {
            _window_name(key, index, len(parts)): part.to(torch.float16).contiguous()
            for key, parts in clips
            for index, part in enumerate(parts)
        }
        place = self.folder / f"{uuid.uuid4().hex}.safetensors"
        half_written = place.with_suffix(".tmp")
        try:
            save_file(tensors, half_written)
            half_written.replace(place)
        except OSError as error:
            half_written.unlink(missing_ok=True)
            raise MintError(
                f"cannot write features to {self.folder}: {error}; free some space and start again"
            ) from None
        self.refresh()


def clip_key(example: Example) -> str:
    """What identifies a clip: its file's bytes and its place in the file.

    Raises:
        MintError: the file is missing or cannot be read.
    """
    key = _file_digest(str(example.audio))
    if example.start or example.duration is not None:
        key += f"@{example.start:.3f}+{'' if example.duration is None else f'{example.duration:.3f}'}"
    return key


def fill_cache(
    cache: FeatureCache,
    encoder: AudioEncoder,
    examples: Iterable[Example],
    max_seconds: float,
) -> tuple[dict[str, str], list[Skipped]]:
    """Encode the clips that are not in the cache yet.

    Args:
        cache: of this encoder.
        encoder: the frozen encoder.
        examples: clips; those that cannot be decoded are skipped.
        max_seconds: longest window.

    Returns:
        Key of each usable clip by `unique_id`, and the skipped clips with the reason.
    """
    keys: dict[str, str] = {}
    skipped: list[Skipped] = []
    pending: list[tuple[str, list[Tensor]]] = []
    waiting: set[str] = set()
    for example in examples:
        try:
            key = clip_key(example)
            if key not in cache and key not in waiting:
                pending.append((key, encode_file(encoder, example, max_seconds)))
                waiting.add(key)
        except MintError as error:
            skipped.append(Skipped(example.id, str(example.audio), str(error)))
            continue
        keys[unique_id(example)] = key
        if len(pending) == CLIPS_PER_SHARD:
            cache.write(pending)
            pending, waiting = [], set()
    if pending:
        cache.write(pending)
    return keys, skipped


def encode_file(encoder: AudioEncoder, example: Example, max_seconds: float) -> list[Tensor]:
    """Decode a clip and encode it window by window: [T, D] each."""
    length = example.duration
    if length is None:
        length = max(probe(example.audio)[0] - example.start, 0.0)
    if length <= max_seconds:
        return [
            encode_samples(encoder, load_audio(example.audio, encoder.sample_rate, example.start, example.duration))
        ]
    return [
        encode_samples(encoder, load_audio(example.audio, encoder.sample_rate, example.start + start, seconds))
        for start, seconds in windows(length, max_seconds)
    ]


def unique_id(example: Example) -> str:
    """Names an example among all corpora."""
    return f"{example.corpus}/{example.id}"


def encode_samples(encoder: AudioEncoder, samples: Any) -> Tensor:
    """Encode one waveform [S] (NumPy, the encoder's rate): its real tokens [T, D]."""
    waveform = torch.from_numpy(samples)[None]
    features, mask = encoder.encode(waveform, torch.tensor([waveform.shape[1]]))
    return features[0][mask[0]].float().cpu()


def _window_name(key: str, index: int, count: int) -> str:
    return f"{key}/{index}of{count}"


@lru_cache(maxsize=1 << 16)
def _file_digest(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except OSError as error:
        raise MintError(f"cannot read {path}: {error.strerror}; check the path in the manifest") from None
