"""The frozen audio encoder of a recipe. Imports are late, so that each family loads alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mint.assets import resolve
from mint.assets.pretrained import auto_class, check_kind, identify, load_pretrained, load_weights_of, loading
from mint.builders.bridge import TINY
from mint.config import EncoderConfig
from mint.machine import default_device
from mint.types import AudioEncoder

if TYPE_CHECKING:
    from mint.encoders.spectrogram import SpectrogramEncoder
    from mint.encoders.tiny import TinyEncoder
    from mint.encoders.waveform import WaveformEncoder
    from mint.encoders.yamnet import YamNet


@loading()
def build_encoder(
    config: EncoderConfig, device: torch.device | str | None = None, weightless: bool = False
) -> AudioEncoder:
    """Build the frozen audio encoder on its device.

    Args:
        config: the recipe's part for the encoder.
        device: where it runs; None: on the accelerator if there is one (`mint.machine.default_device`).
        weightless: an encoder of transformers gets random weights: of its files only the configurations are needed.
    """
    encoder = _plain_encoder(config, weightless).to(default_device() if device is None else device)

    if config.cache_dtype == "bfloat16":
        # The identity names the folder of the cache: features of another precision lie in another one.
        encoder.cache_dtype = torch.bfloat16
        encoder.identity += "; features in bfloat16"
    return encoder


def _plain_encoder(
    config: EncoderConfig, weightless: bool
) -> TinyEncoder | YamNet | WaveformEncoder | SpectrogramEncoder:
    """Return the encoder of a family, on the CPU."""
    if config.family == TINY:
        from mint.encoders.tiny import TinyEncoder

        return TinyEncoder()
    if config.family == "yamnet":
        from mint.encoders.yamnet import YamNet

        return YamNet.from_folder(Path(resolve(config.weights)))
    return _transformers_encoder(config, resolve(config.weights), weightless)


def _transformers_encoder(config: EncoderConfig, source: str, weightless: bool) -> WaveformEncoder | SpectrogramEncoder:
    """Return an encoder that transformers reads from a folder or hub name."""
    from mint.encoders import spectrogram, waveform

    adapter: Any = spectrogram if config.family == "spectrogram" else waveform
    sizes = load_pretrained("AutoConfig", source, config.revision)
    check_kind(sizes, adapter.MODELS, adapter.READER)

    # To count what a run would need, sizes are enough.
    if weightless:
        model, identity = auto_class("AutoModel").from_config(sizes), f"{source} without its weights"
    else:
        # An AST that was trained to name sounds keeps its classifier, from which the corpus `sounds` can be drawn.
        has_classifier = "ASTForAudioClassification" in (sizes.architectures or ())
        auto = "AutoModelForAudioClassification" if has_classifier else "AutoModel"
        model = load_weights_of(auto, source, config.revision, adapter.UNUSED, dtype=torch.float32)
        identity = identify(source, config.revision)

    extractor = load_pretrained("AutoFeatureExtractor", source, config.revision)
    if config.family == "spectrogram":
        return spectrogram.SpectrogramEncoder(model, extractor, identity, config.layer)
    return waveform.WaveformEncoder(model, identity, config.layer, extractor.do_normalize, extractor.sampling_rate)
