"""YAMNet as a frozen audio encoder: MobileNet v1 over log-mel patches, trained on AudioSet (tensorflow/models).

Re-expressed from the shipped ONNX graph: one convolution and 13 depthwise-separable pairs, each with batch norm folded
in and followed by ReLU. The feature map before pooling, 3 x 2 (time x frequency) for a patch of 96 frames, is the token
sequence, time-major. The graph computes in 8 bits between layers; here everything is float32 on its float weights.
Patches do not overlap (YAMNet's own hop is half a patch): each second of audio is seen once.
"""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from mint.encoders.frozen import FrozenEncoder
from mint.encoders.log_mel import DESCRIPTION, HOP, SAMPLE_RATE, WINDOW, LogMel
from mint.encoders.onnx_weights import read_initialisers
from mint.types import MintError, NamedClasses

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTHS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
STRIDES = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
CLASSES = 521
PATCH_FRAMES = 96
PATCH_HOP = PATCH_FRAMES * HOP
"""Samples from one patch to the next: 0.96 s."""
PATCH_SAMPLES = PATCH_HOP + WINDOW - HOP
"""Samples that the 96 windows of a patch span."""
TOKEN_FRAMES, TOKENS = 32, 6
"""Frames from one time step of the feature map to the next; tokens of a patch (3 time steps, 2 frequency bands)."""
PATCHES_AT_ONCE = 32
"""Patches of one pass: its memory does not grow with the length of the audio."""


class YamNet(FrozenEncoder):
    """YAMNet without its pooling; implements `mint.types.AudioEncoder`."""

    sample_rate = SAMPLE_RATE
    width = WIDTHS[-1]
    bands = 2
    step_seconds = TOKEN_FRAMES * HOP / SAMPLE_RATE

    def __init__(self, class_names: Sequence[str], revision: str = "random") -> None:
        """Build the network with random weights.

        Args:
            class_names: the 521 display names of AudioSet's classes, in YAMNet's order.
            revision: the name of these weights, for `identity`.
        """
        super().__init__()
        self.class_names = tuple(class_names)
        self.identity = f"yamnet {revision}; {DESCRIPTION}; patches of {PATCH_FRAMES} frames, {TOKENS} tokens each"
        self.log_mel = LogMel()

        # A full convolution, then pairs: one for each channel by itself, one across the channels.
        self.network = nn.Sequential(*_convolution(1, WIDTHS[0], 3, STRIDES[0]))
        for before, after, stride in zip(WIDTHS[:-1], WIDTHS[1:], STRIDES[1:], strict=True):
            self.network.extend(_convolution(before, before, 3, stride, groups=before))
            self.network.extend(_convolution(before, after, 1, 1))
        self.classifier = nn.Linear(WIDTHS[-1], CLASSES)

        # Convolutions of one channel are several times faster in this layout.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.requires_grad_(False)
        self.train(False)

    @classmethod
    def from_folder(cls, folder: str | Path) -> YamNet:
        """Read the weights of the `yamnet` asset: model.onnx, model.data and yamnet_class_map.csv.

        Raises:
            MintError: the folder lacks one of them.
        """
        folder = Path(folder)
        for name in ("model.onnx", "model.data", "yamnet_class_map.csv"):
            if not (folder / name).is_file():
                raise MintError(f"{folder} holds no {name}; the weights of YAMNet are `asset:yamnet`")

        with (folder / "yamnet_class_map.csv").open(encoding="utf-8", newline="") as lines:
            names = [row["display_name"] for row in csv.DictReader(lines)]

        digest = hashlib.sha256((folder / "model.onnx").read_bytes() + (folder / "model.data").read_bytes())
        encoder = cls(names, revision=digest.hexdigest()[:16])
        weights = {name: torch.tensor(value) for name, value in read_initialisers(folder / "model.onnx").items()}
        convolutions = [layer for layer in encoder.network if isinstance(layer, nn.Conv2d)]
        for index, layer in enumerate(convolutions):
            number = 241 + 3 * index  # the exporter numbers each weight, its bias and its output
            _load(layer, weights[f"onnx::Conv_{number}"], weights[f"onnx::Conv_{number + 1}"])
        _load(encoder.classifier, weights["model.classifier.weight"], weights["model.classifier.bias"])
        return encoder

    @property
    def named_classes(self) -> NamedClasses:
        """The classifier of AudioSet's 521 classes, which reads the mean of a patch."""
        return NamedClasses(
            names=self.class_names,
            weight=self.classifier.weight,
            bias=self.classifier.bias,
            tokens=TOKENS,
            samples=PATCH_SAMPLES,
            least=0.0,
        )

    @torch.no_grad()
    def encode(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a zero-padded batch: the last patch of a clip is completed with silence.

        Args:
            waveform: [B, S] float32 at 16 kHz; what lies beyond the lengths is not read.
            lengths: [B] int64, in samples.

        Returns:
            features [B, T, 1024], 6 tokens for each 0.96 s, and mask [B, T]: False, and zeros, where a token's time
            span lies wholly past the end of the clip. The first time step always counts.
        """
        maps, has_patch = self._patch_maps(waveform, lengths)
        features = maps.flatten(1, 2)  # [B, T, 1024]

        # Tokens of the last patch may lie past the end of the clip, in the silence that completes it.
        starts = torch.arange(features.shape[1], device=features.device) // self.bands * TOKEN_FRAMES * HOP  # [T]
        has_begun = starts < lengths.clamp(min=1).unsqueeze(1)  # [B, T]
        mask = has_begun & has_patch.repeat_interleave(TOKENS, dim=1)
        return features.masked_fill_(~mask.unsqueeze(2), 0.0), mask

    @torch.no_grad()
    def class_scores(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return the scores [B, 521] in [0, 1] of AudioSet's classes, each clip's mean over its patches.

        Arguments as `encode`.
        """
        maps, has_patch = self._patch_maps(waveform, lengths)
        scores = torch.sigmoid(self.classifier(maps.mean(dim=2))) * has_patch.unsqueeze(2)  # [B, P, 521]
        return scores.sum(dim=1) / has_patch.sum(dim=1, keepdim=True)

    def _patch_maps(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the feature maps [B, P, 6, 1024] of the patches, and [B, P] bool: whether the clip has that patch."""
        # Whole patches, and one more if a rest is left; a short clip has one.
        counts = 1 + (lengths - PATCH_SAMPLES + PATCH_HOP - 1).clamp(min=0) // PATCH_HOP  # [B]
        num_patches = int(counts.max())
        end = (num_patches - 1) * PATCH_HOP + PATCH_SAMPLES
        waveform = functional.pad(waveform, (0, max(0, end - waveform.shape[1])))[:, :end]
        is_beyond = torch.arange(end, device=waveform.device) >= lengths.unsqueeze(1)  # [B, S]
        windows = waveform.masked_fill(is_beyond, 0.0).unfold(1, PATCH_SAMPLES, PATCH_HOP)  # [B, P, 15600]

        # Only patches that a clip has are computed, some at a time.
        has_patch = torch.arange(num_patches, device=waveform.device) < counts.unsqueeze(1)  # [B, P]
        maps = waveform.new_zeros(*has_patch.shape, TOKENS, self.width)
        clips, patches = has_patch.nonzero(as_tuple=True)
        for clip, patch in zip(clips.split(PATCHES_AT_ONCE), patches.split(PATCHES_AT_ONCE), strict=True):
            output = self.network(self.log_mel(windows[clip, patch]).unsqueeze(1))  # [N, 1024, 3, 2]
            maps[clip, patch] = output.permute(0, 2, 3, 1).flatten(1, 2)
        return maps, has_patch


def _convolution(before: int, after: int, kernel: int, stride: int, groups: int = 1) -> list[nn.Module]:
    """Return a convolution with TensorFlow's SAME padding and its ReLU.

    On even sizes, where a convolution strides, TensorFlow pads the end alone.
    """
    if stride == 2:
        return [nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(before, after, kernel, stride, groups=groups), nn.ReLU()]
    return [nn.Conv2d(before, after, kernel, padding=kernel // 2, groups=groups), nn.ReLU()]


def _load(layer: nn.Module, weight: Tensor, bias: Tensor) -> None:
    layer.load_state_dict({"weight": weight, "bias": bias})
