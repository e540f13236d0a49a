"""The adapter of spectrogram models against transformers' own, one window at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mint.builders.encoder import build_encoder
from mint.config import EncoderConfig
from mint.encoders.spectrogram import SpectrogramEncoder, audio_part
from mint.types import MintError
from tiny_encoders import SPECTROGRAM, tiny_spectrogram_model, tiny_waveform_model

LENGTHS = (1, 4000, 16000, 16001, 40000)
STEPS = {"whisper": 50, "ast": 9, "clap": 32, "clap-fused": 32}
BANDS = {"whisper": 1, "ast": 2, "clap": 2, "clap-fused": 2}


def clips() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(length, generator=generator) * 0.1 for length in LENGTHS]


def batch(extra: int = 0, value: float = 0.0) -> tuple[Tensor, Tensor]:
    rows = torch.full((len(LENGTHS), max(LENGTHS) + extra), value)
    for row, clip in zip(rows, clips(), strict=True):
        row[: len(clip)] = clip
    return rows, torch.tensor(LENGTHS)


def encoder_of(kind: str, layer: int | None = None, windows_at_once: int = 32) -> SpectrogramEncoder:
    return SpectrogramEncoder(*tiny_spectrogram_model(kind), "tiny", layer, windows_at_once)


@pytest.mark.parametrize("kind", SPECTROGRAM)
def test_a_clip_alone_equals_the_clip_in_a_batch(kind: str) -> None:
    encoder = encoder_of(kind)
    features, mask = encoder.encode(*batch(extra=500, value=9.0))
    assert features.dtype == torch.float32
    assert features.shape == (*mask.shape, 32)
    for row, clip in enumerate(clips()):
        alone, real = encoder.encode(clip[None], torch.tensor([len(clip)]))
        size = alone.shape[1]
        assert real.all()
        assert mask[row].tolist() == [True] * size + [False] * (mask.shape[1] - size)
        assert not features[row, size:].any()
        torch.testing.assert_close(features[row, :size], alone[0], rtol=0, atol=1e-5 * float(alone.abs().max()))


@pytest.mark.parametrize("kind", SPECTROGRAM)
@torch.no_grad()
def test_whole_windows_equal_transformers_own(kind: str) -> None:
    clip = clips()[-1]
    model, extractor = tiny_spectrogram_model(kind)
    inputs = extractor([clip[:16000].numpy(), clip[16000:32000].numpy()], sampling_rate=16000, return_tensors="pt")
    if kind == "clap-fused":
        inputs["is_longer"] = torch.zeros(2, 1, dtype=torch.bool)
    hidden = audio_part(model).eval()(**inputs).last_hidden_state
    if kind == "whisper":
        expected = hidden.flatten(0, 1)
    elif kind == "ast":  # the bands of a time step beside each other
        expected = torch.stack([hidden[:, 2:11], hidden[:, 11:20]], dim=2).flatten(0, 2)
    else:
        expected = torch.stack([hidden[:, :, 0], hidden[:, :, 1]], dim=1).permute(0, 3, 1, 2).flatten(0, 2)
    features, _ = encoder_of(kind).encode(clip[None, :32000], torch.tensor([32000]))
    assert features.shape[1] == 2 * STEPS[kind] * BANDS[kind]
    torch.testing.assert_close(features[0], expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", SPECTROGRAM)
def test_the_mask_follows_the_true_length(kind: str) -> None:
    _, mask = encoder_of(kind).encode(*batch())
    step = {"whisper": 320.0, "ast": 1600.0, "clap": 500.0, "clap-fused": 500.0}[kind]
    for length, row in zip(LENGTHS, mask, strict=True):
        whole, rest = divmod(length, 16000)
        steps = whole * STEPS[kind] + min(STEPS[kind], -int(-rest // step))
        assert int(row.sum()) == steps * BANDS[kind]


def test_tokens_are_ordered_by_time() -> None:
    """A click moves the tokens around its own time most."""
    silence = torch.zeros(1, 16000)
    click = silence.clone()
    click[0, 8000:8100] = 1.0
    for kind in ("whisper", "ast"):
        encoder = encoder_of(kind, layer=0)
        change = (encoder.encode(click, torch.tensor([16000]))[0] - encoder.encode(silence, torch.tensor([16000]))[0])[
            0
        ]
        by_step = change.abs().sum(dim=1).view(-1, BANDS[kind]).sum(dim=1)
        assert abs(int(by_step.argmax()) / len(by_step) - 0.5) < 0.12


@pytest.mark.parametrize("kind", ["whisper", "ast"])
@torch.no_grad()
def test_layers(kind: str) -> None:
    model, extractor = tiny_spectrogram_model(kind)
    clip = clips()[2]
    inputs = extractor([clip.numpy()], sampling_rate=16000, return_tensors="pt")
    states = audio_part(model).eval()(**inputs, output_hidden_states=True).hidden_states
    assert len(states) == 3
    for layer in (0, 1, -1):
        expected = encoder_of(kind).layout.tokens(states[layer]).flatten(1, 2)
        features, _ = encoder_of(kind, layer).encode(clip[None], torch.tensor([16000]))
        torch.testing.assert_close(features, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", SPECTROGRAM)
def test_windows_may_be_encoded_a_few_at_a_time(kind: str) -> None:
    whole, _ = encoder_of(kind).encode(*batch())
    torch.testing.assert_close(encoder_of(kind, windows_at_once=2).encode(*batch())[0], whole, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", SPECTROGRAM)
def test_frozen_and_the_same_every_time(kind: str) -> None:
    encoder = encoder_of(kind)
    torch.nn.Sequential(encoder).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert torch.equal(encoder.encode(*batch())[0], encoder.encode(*batch())[0])


def test_mistakes() -> None:
    with pytest.raises(MintError, match=r"encoder\.layer is 1, but only the last layer of clap is read; leave it"):
        encoder_of("clap", layer=1)
    with pytest.raises(MintError, match=r"encoder\.layer is -4; the model has blocks 1 to 2"):
        encoder_of("ast", layer=-4)
    with pytest.raises(MintError, match="family spectrogram cannot read 'wavlm'; it reads whisper, "):
        SpectrogramEncoder(tiny_waveform_model("wavlm"), None, "tiny")


@pytest.mark.parametrize("kind", SPECTROGRAM)
def test_built_from_a_folder(tmp_path: Path, kind: str) -> None:
    model, extractor = tiny_spectrogram_model(kind)
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    built = build_encoder(EncoderConfig(family="spectrogram", weights=str(tmp_path)))
    torch.testing.assert_close(built.encode(*batch())[0], encoder_of(kind).encode(*batch())[0], rtol=0, atol=1e-6)
    assert "sha256:" in built.identity
