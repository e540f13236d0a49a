"""Transformers' raw-waveform models as frozen audio encoders: data2vec-audio, wav2vec 2.0, HuBERT and WavLM.

The paper's encoder is data2vec (section 3.2); it does not say which checkpoint, which layer, nor what is done with
padding. transformers' own padded batches give a clip other features than alone, for three reasons that are mended here:

- models with `feat_extract_norm: group` normalise their first convolution over time, padding included: clips of such a
  model are encoded with those of their own length only;
- the positional convolutions of data2vec are stacked (and HuBERT's may follow a batch norm), so that what the first
  writes into the padding, the next reads: every one of them sees zeros past the end, as it does at the end of a clip
  that stands alone;
- clips shorter than one frame are completed with silence.

SpecAugment, layer drop and dropout are active in training mode alone, and the model stays in eval mode.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from mint.assets.pretrained import check_kind
from mint.encoders.frozen import FrozenEncoder
from mint.types import MintError

MODELS = ("data2vec-audio", "wav2vec2", "hubert", "wavlm")
"""Values of `model_type` of the configurations that the adapter knows."""
READER = "encoder.family waveform"
UNUSED = "masked_spec_embed"
"""Weights that a checkpoint may lack: SpecAugment's."""


class WaveformEncoder(FrozenEncoder):
    """Adapter of a raw-waveform model; implements `mint.types.AudioEncoder`.

    Args:
        model: a transformers model of one of `MODELS`.
        identity: name and revision of its weights.
        layer: the hidden state that is returned; None: the last, after the final norm if the model has one. 0 is the
            input of the first block, n the output of block n; negative numbers count from the end.
        normalise: bring each clip to mean 0 and variance 1, as the checkpoint's feature extractor says.
        sample_rate: Hz.

    Raises:
        MintError: the model is of another kind, has an adapter on top, or does not have this layer.
    """

    mask: Tensor | None = None
    """Mask [B, T] of the batch that is being encoded, for the positional convolutions."""

    def __init__(
        self,
        model: Any,
        identity: str,
        layer: int | None = None,
        normalise: bool = True,
        sample_rate: int = 16000,
    ) -> None:
        super().__init__()
        config = model.config
        check_kind(config, MODELS, READER)
        if getattr(config, "add_adapter", False):
            raise MintError(f"{identity} has an adapter after its blocks (add_adapter); choose a model without one")
        check_layer(layer, config.num_hidden_layers)

        self.model = model
        self.layer = layer
        self.normalise = normalise
        self.sample_rate = sample_rate
        self.width: int = config.hidden_size
        self.bands = 1
        self.step_seconds = math.prod(config.conv_stride) / sample_rate
        # A group norm over time would see the padding.
        self.equal_lengths = getattr(config, "feat_extract_norm", "layer") == "group"
        self.receptive = receptive_field(config.conv_kernel, config.conv_stride)
        self.identity = (
            f"{config.model_type} {identity}; {'last layer' if layer is None else f'layer {layer}'}; "
            f"{'normalised' if normalise else 'plain'} waveform"
        )

        # The convolutions lie inside the model, which does not hand them the mask.
        for module in model.encoder.pos_conv_embed.modules():
            if isinstance(module, nn.Conv1d):
                module.register_forward_pre_hook(self._silence_padding)
        self.requires_grad_(False)
        self.train(False)

    @torch.no_grad()
    def encode(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a padded batch.

        Args:
            waveform: [B, S] float32 at the model's rate; what lies beyond the lengths is not read.
            lengths: [B] int64, in samples.

        Returns:
            features [B, T, D], one frame each 20 ms in the published models, and mask [B, T]; zeros under the mask.
        """
        waveform, lengths = self._prepare(waveform, lengths)
        frames = self._num_frames(lengths)  # [B]
        features = waveform.new_zeros(len(waveform), int(frames.max()), self.width)  # [B, T, D]
        for rows in self._groups(lengths):
            samples = waveform[rows, : int(lengths[rows].max())]
            features[rows, : int(frames[rows].max())] = self._encode(samples, lengths[rows], frames[rows])

        mask = torch.arange(features.shape[1], device=features.device) < frames[:, None]  # [B, T]
        return features.masked_fill_(~mask[:, :, None], 0.0), mask

    def _prepare(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Silence what lies past the end, normalise each clip over its own samples, and fill up at least one frame."""
        is_real = torch.arange(waveform.shape[1], device=waveform.device) < lengths[:, None]  # [B, S]
        waveform = waveform.masked_fill(~is_real, 0.0)
        if self.normalise:
            count = lengths.clamp(min=1)[:, None]
            centred = (waveform - waveform.sum(dim=1, keepdim=True) / count).masked_fill(~is_real, 0.0)
            variance = centred.square().sum(dim=1, keepdim=True) / count
            waveform = centred / (variance + 1e-7).sqrt()  # as Wav2Vec2FeatureExtractor
        waveform = nn.functional.pad(waveform, (0, max(0, self.receptive - waveform.shape[1])))
        return waveform, lengths.clamp(min=self.receptive)

    def _groups(self, lengths: Tensor) -> list[Tensor]:
        """Return the rows of each group that is encoded together."""
        if not self.equal_lengths:
            return [torch.arange(len(lengths), device=lengths.device)]
        return [(lengths == length).nonzero()[:, 0] for length in lengths.unique()]

    def _encode(self, waveform: Tensor, lengths: Tensor, frames: Tensor) -> Tensor:
        """Return the chosen hidden state [N, T, D] of clips [N, S] of so many samples and frames, both [N]."""
        # Clips of one length need no mask, and give the same numbers without it.
        has_padding = bool((lengths < waveform.shape[1]).any())
        is_real = torch.arange(waveform.shape[1], device=waveform.device) < lengths[:, None]  # [N, S]
        self.mask = torch.arange(int(frames.max()), device=frames.device) < frames[:, None] if has_padding else None
        output = self.model(
            waveform,
            attention_mask=is_real.long() if has_padding else None,
            output_hidden_states=self.layer is not None,
        )
        self.mask = None
        chosen: Tensor = output.last_hidden_state if self.layer is None else output.hidden_states[self.layer]
        return chosen.float()  # under autocast it is not

    def _num_frames(self, lengths: Tensor) -> Tensor:
        """Return the number of frames of clips of so many samples, both [B]."""
        for kernel, stride in zip(self.model.config.conv_kernel, self.model.config.conv_stride, strict=True):
            lengths = (lengths - kernel) // stride + 1
        return lengths

    def _silence_padding(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Set the input [B, D, T] of a convolution to zero past the end of each clip."""
        return None if self.mask is None else (inputs[0] * self.mask[:, None, :], *inputs[1:])


def receptive_field(kernels: list[int], strides: list[int]) -> int:
    """Return the number of samples that the first frame of a stack of convolutions sees."""
    size = 1
    # From the last convolution back to the samples.
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        size = (size - 1) * stride + kernel
    return size


def check_layer(layer: int | None, blocks: int) -> None:
    """Refuse the number of a hidden state that a model of so many blocks does not have.

    Raises:
        MintError: there is no such hidden state.
    """
    if layer is not None and not -blocks - 1 <= layer <= blocks:
        raise MintError(f"encoder.layer is {layer}; the model has blocks 1 to {blocks} (0: before the first)")
