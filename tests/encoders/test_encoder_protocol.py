"""What every encoder promises: shapes, masks, padding that is never seen, frozen for good."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mint.encoders.tiny import TinyEncoder
from mint.encoders.yamnet import PATCHES_AT_ONCE, YamNet
from mint.types import AudioEncoder, MintError

LENGTHS = (1, 399, 5120, 5121, 15361, 15600, 15601, 40000)


@functools.cache
def random_yamnet() -> YamNet:
    """YAMNet with random weights, scaled so that the signal survives 27 layers."""
    generator = torch.Generator().manual_seed(0)
    encoder = YamNet([f"class {index}" for index in range(521)])
    for layer in encoder.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.normal_(layer.bias, std=0.1, generator=generator)
    return encoder


@pytest.fixture(params=["tiny", "yamnet"])
def encoder(request: pytest.FixtureRequest) -> AudioEncoder:
    chosen: AudioEncoder = TinyEncoder() if request.param == "tiny" else random_yamnet()
    return chosen


def clips() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(length, generator=generator) * 0.1 for length in LENGTHS]


def pad(rows: list[Tensor], extra: int, value: float) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(row) for row in rows])
    batch = torch.full((len(rows), int(lengths.max()) + extra), value)
    for index, row in enumerate(rows):
        batch[index, : len(row)] = row
    return batch, lengths


@pytest.mark.parametrize(("extra", "value"), [(0, 0.0), (30000, 0.0), (0, 9.0), (5, float("nan"))])
def test_a_clip_alone_equals_the_clip_in_a_batch(encoder: AudioEncoder, extra: int, value: float) -> None:
    features, mask = encoder.encode(*pad(clips(), extra, value))
    assert features.dtype == torch.float32
    assert features.shape == (*mask.shape, encoder.width)
    for index, clip in enumerate(clips()):
        alone, alone_mask = encoder.encode(clip.unsqueeze(0), torch.tensor([len(clip)]))
        size = alone.shape[1]
        assert torch.equal(mask[index, :size], alone_mask[0])
        assert not mask[index, size:].any()
        scale = max(1.0, float(alone.abs().max()))
        assert float((features[index, :size] - alone[0]).abs().max()) <= 1e-5 * scale
        assert not features[index][~mask[index]].any()
        assert alone.abs().max() > 0.01


def test_clips_of_a_batch_do_not_touch_each_other(encoder: AudioEncoder) -> None:
    batch, lengths = pad(clips(), 0, 0.0)
    before, _ = encoder.encode(batch, lengths)
    changed = batch.clone()
    changed[7] += 1.0
    after, _ = encoder.encode(changed, lengths)
    torch.testing.assert_close(after[:7], before[:7], rtol=0, atol=1e-6)
    assert not torch.allclose(after[7], before[7])


def test_frozen(encoder: AudioEncoder) -> None:
    assert isinstance(encoder, nn.Module)
    nn.Sequential(encoder).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    waveform = torch.randn(1, 8000, requires_grad=True)
    assert not encoder.encode(waveform, torch.tensor([8000]))[0].requires_grad
    assert encoder.identity


def test_the_same_weights_every_time() -> None:
    batch, lengths = pad(clips(), 0, 0.0)
    assert torch.equal(TinyEncoder().encode(batch, lengths)[0], TinyEncoder().encode(batch, lengths)[0])


@pytest.mark.parametrize(
    ("length", "tokens", "real"),
    [
        (0, 6, 2),  # nothing at all: the first time step stands for it
        (1, 6, 2),
        (5120, 6, 2),  # the second time step begins at 0.32 s
        (5121, 6, 4),
        (15360, 6, 6),
        (15600, 6, 6),  # the last window of a patch reaches beyond its hop
        (15601, 12, 8),
        (48000, 24, 20),  # 3 s: three patches and 0.12 s of the fourth
    ],
)
def test_tokens_of_yamnet(length: int, tokens: int, real: int) -> None:
    _, mask = random_yamnet().encode(torch.zeros(1, length), torch.tensor([length]))
    assert mask.shape == (1, tokens)
    assert mask[0].tolist() == [True] * real + [False] * (tokens - real)


def test_tokens_are_ordered_by_time() -> None:
    """A click moves the tokens of its own patch and, of those, most the time steps around it, both bands together."""
    silence = torch.zeros(1, 2 * 15360 + 240)
    click = silence.clone()
    click[0, 15360 + 12800 : 15360 + 12900] = 1.0  # in the third time step of the second patch
    lengths = torch.tensor([silence.shape[1]])
    encoder = random_yamnet()
    change = (encoder.encode(click, lengths)[0] - encoder.encode(silence, lengths)[0]).abs().sum(dim=2)[0]
    assert not change[:6].any()
    by_step = change[6:].view(3, 2)
    assert (by_step[2] > by_step[0]).all()


def test_long_audio_in_chunks_equals_patch_by_patch() -> None:
    """More patches than fit one pass, against each patch as a clip of its own; class scores against their mean."""
    generator = torch.Generator().manual_seed(2)
    patches = PATCHES_AT_ONCE + 3
    waveform = torch.randn(1, patches * 15360 + 240, generator=generator) * 0.1
    encoder = random_yamnet()
    features, mask = encoder.encode(waveform, torch.tensor([waveform.shape[1]]))
    assert mask.all()
    windows = waveform[0].unfold(0, 15600, 15360)
    alone = [encoder.encode(window.unsqueeze(0), torch.tensor([15600]))[0][0] for window in windows]
    torch.testing.assert_close(features[0], torch.cat(alone), rtol=0, atol=1e-5 * float(features.max()))
    scores = encoder.class_scores(waveform, torch.tensor([waveform.shape[1]]))
    each = encoder.class_scores(windows, torch.full((patches,), 15600))
    torch.testing.assert_close(scores, each.mean(dim=0, keepdim=True), rtol=0, atol=1e-5)


def test_class_scores_do_not_see_padding() -> None:
    scores = random_yamnet().class_scores(*pad(clips(), 20000, 9.0))
    assert scores.shape == (len(LENGTHS), 521)
    for index, clip in enumerate(clips()):
        alone = random_yamnet().class_scores(clip.unsqueeze(0), torch.tensor([len(clip)]))
        torch.testing.assert_close(scores[index : index + 1], alone, rtol=0, atol=1e-5)


def test_a_folder_without_the_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    with pytest.raises(MintError, match=r"holds no model\.data; the weights of YAMNet are `asset:yamnet`"):
        YamNet.from_folder(tmp_path)
