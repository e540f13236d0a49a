"""The adapter of raw-waveform models against transformers' own, one clip at a time; padding is never seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import WhisperConfig

from mint.builders.encoder import build_encoder
from mint.config import EncoderConfig
from mint.encoders.waveform import WaveformEncoder, receptive_field
from mint.types import MintError
from tiny_encoders import WAVEFORM, tiny_spectrogram_model, tiny_waveform_model, waveform_extractor

LENGTHS = (1, 49, 50, 333, 1000, 1000, 987)


def clips() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(length, generator=generator) * 0.1 + 0.05 for length in LENGTHS]


def pad(rows: list[Tensor], extra: int = 0, value: float = 0.0) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(row) for row in rows])
    batch = torch.full((len(rows), int(lengths.max()) + extra), value)
    for index, row in enumerate(rows):
        batch[index, : len(row)] = row
    return batch, lengths


def encoder_of(kind: str, **options: Any) -> WaveformEncoder:
    return WaveformEncoder(tiny_waveform_model(kind), "tiny", **options)


@torch.no_grad()
def plain(kind: str, clip: Tensor, layer: int | None) -> Tensor:
    """Extractor and model of transformers on one clip alone, [T, D]."""
    values = waveform_extractor()(clip.numpy(), sampling_rate=16000, return_tensors="pt")["input_values"]
    output = tiny_waveform_model(kind).eval()(values, output_hidden_states=True)
    return output.last_hidden_state[0] if layer is None else output.hidden_states[layer][0]


@pytest.mark.parametrize("layer", [None, 0, 1, -1])
@pytest.mark.parametrize("kind", WAVEFORM)
def test_each_clip_of_a_batch_equals_transformers_own_alone(kind: str, layer: int | None) -> None:
    encoder = encoder_of(kind, layer=layer)
    features, mask = encoder.encode(*pad(clips(), extra=400, value=9.0))
    assert features.dtype == torch.float32
    assert features.shape == (len(LENGTHS), 48, encoder.width)
    for row, clip in enumerate(clips()):
        frames = (max(len(clip), 50) - 50) // 20 + 1
        assert mask[row].tolist() == [True] * frames + [False] * (48 - frames)
        assert not features[row, frames:].any()
        if len(clip) >= 50:
            expected = plain(kind, clip, layer)
            assert expected.std() > 0.1
            torch.testing.assert_close(
                features[row, :frames], expected, rtol=0, atol=1e-5 * float(expected.abs().max())
            )


@pytest.mark.parametrize("kind", WAVEFORM)
def test_a_clip_alone_equals_the_clip_in_a_batch(kind: str) -> None:
    encoder = encoder_of(kind)
    features, mask = encoder.encode(*pad(clips()))
    for row, clip in enumerate(clips()):
        alone, real = encoder.encode(clip[None], torch.tensor([len(clip)]))
        assert real.all()
        assert int(mask[row].sum()) == alone.shape[1]
        scale = max(1.0, float(alone.abs().max()))
        torch.testing.assert_close(features[row, : alone.shape[1]], alone[0], rtol=0, atol=1e-5 * scale)


def test_why_data2vec_needs_its_padding_silenced() -> None:
    """Without the hooks the stacked positional convolutions carry padding into the last real frames."""
    encoder = encoder_of("data2vec")
    rows = clips()[3:5]
    alone, _ = encoder.encode(rows[0][None], torch.tensor([333]))
    for module in encoder.model.encoder.pos_conv_embed.modules():
        module._forward_pre_hooks.clear()
    features, _ = encoder.encode(*pad(rows))
    assert float((features[0, : alone.shape[1]] - alone[0]).abs().max()) > 1e-3


def test_loudness_and_offset_are_taken_away_only_where_asked() -> None:
    clip = clips()[4]
    louder, length = (3 * clip + 0.2)[None], torch.tensor([len(clip)])
    for normalise, equal in ((True, True), (False, False)):
        encoder = encoder_of("wav2vec2", normalise=normalise)
        same = torch.allclose(encoder.encode(louder, length)[0], encoder.encode(clip[None], length)[0], atol=1e-3)
        assert same == equal


def test_frozen_and_the_same_every_time() -> None:
    """SpecAugment, layer drop and dropout are on in the configuration, and never act."""
    encoder = encoder_of("wavlm")
    torch.nn.Sequential(encoder).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    waveform = torch.randn(1, 900, requires_grad=True)
    first, _ = encoder.encode(waveform, torch.tensor([900]))
    assert not first.requires_grad
    assert torch.equal(first, encoder.encode(waveform, torch.tensor([900]))[0])


def test_features_are_float32_under_autocast_too() -> None:
    batch = pad(clips())
    expected, _ = encoder_of("data2vec").encode(*batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, _ = encoder_of("data2vec").encode(*batch)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, expected, rtol=0, atol=0.05 * float(expected.abs().max()))


def test_receptive_field_of_the_published_models() -> None:
    assert receptive_field([10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2]) == 400


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(MintError, match=r"encoder.layer is 3; the model has blocks 1 to 2"):
        encoder_of("hubert", layer=3)
    with pytest.raises(MintError, match="family waveform cannot read 'audio-spectrogram-transformer'; it reads data2v"):
        WaveformEncoder(tiny_spectrogram_model("ast")[0], "tiny")
    WhisperConfig().save_pretrained(tmp_path)
    with pytest.raises(MintError, match="family waveform cannot read 'whisper'; it reads data2vec-audio, wav2vec2"):
        build_encoder(EncoderConfig(family="waveform", weights=str(tmp_path)))


def test_built_from_a_folder(tmp_path: Path) -> None:
    model = tiny_waveform_model("data2vec")
    model.save_pretrained(tmp_path)
    waveform_extractor().save_pretrained(tmp_path)
    built = build_encoder(EncoderConfig(family="waveform", weights=str(tmp_path), layer=1))
    expected = WaveformEncoder(model, "tiny", layer=1).encode(*pad(clips()))
    torch.testing.assert_close(built.encode(*pad(clips())), expected, rtol=0, atol=1e-6)
    assert built.identity.startswith("data2vec-audio sha256:")
    assert built.identity.endswith("; layer 1; normalised waveform")
    tiny_waveform_model("data2vec", seed=1).save_pretrained(tmp_path)
    assert build_encoder(EncoderConfig(family="waveform", weights=str(tmp_path), layer=1)).identity != built.identity
