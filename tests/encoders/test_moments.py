"""How an encoder's tokens lie in time: `bands` of them for each `step_seconds` of audio."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

from mint.encoders.spectrogram import SpectrogramEncoder
from mint.encoders.tiny import TinyEncoder
from mint.encoders.waveform import WaveformEncoder
from mint.encoders.yamnet import YamNet
from mint.types import AudioEncoder
from tiny_encoders import SPECTROGRAM, WAVEFORM, tiny_spectrogram_model, tiny_waveform_model

ENCODERS: dict[str, Callable[[], AudioEncoder]] = {
    "tiny": TinyEncoder,
    "yamnet": lambda: YamNet([""] * 521),
    **{kind: partial(WaveformEncoder, tiny_waveform_model(kind), "tiny") for kind in WAVEFORM},
    **{kind: partial(SpectrogramEncoder, *tiny_spectrogram_model(kind), "tiny") for kind in SPECTROGRAM},
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_as_many_tokens_more_as_there_are_moments_more(kind: str) -> None:
    encoder = ENCODERS[kind]()
    lengths = torch.tensor([round(encoder.step_seconds * encoder.sample_rate * steps) for steps in (4, 9)])
    _, mask = encoder.encode(torch.randn(2, int(lengths.max())), lengths)
    few, many = mask.sum(dim=1).tolist()
    assert many - few == 5 * encoder.bands
