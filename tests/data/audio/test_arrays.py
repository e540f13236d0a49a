"""Samples in memory, in every form in which callers hold them; what cannot be meant is refused with its cure."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch

from mint.data.audio.decode import as_clip
from mint.types import Clip, MintError

RATE = 16000
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)
INT16 = (TONE * 32768).astype(np.int16)


def test_tensors_of_any_kind() -> None:
    plain = torch.from_numpy(TONE)
    for tensor in (plain, plain.clone().requires_grad_(), plain.double(), plain[None], plain[:, None]):
        np.testing.assert_array_equal(as_clip((tensor, RATE), RATE), TONE)
    np.testing.assert_array_equal(as_clip((torch.from_numpy(INT16), RATE), RATE), INT16 / np.float32(32768))
    for dtype in (torch.float16, torch.bfloat16):
        expected = plain.to(dtype).float().numpy()
        np.testing.assert_array_equal(as_clip((plain.to(dtype), RATE), RATE), expected)
        np.testing.assert_array_equal(as_clip((plain.to(dtype).requires_grad_(), RATE), RATE), expected)


@pytest.mark.parametrize("device", ["meta", "cuda"])
def test_a_tensor_on_a_device(device: str) -> None:
    """From an accelerator it is fetched; the device `meta` has no numbers."""
    if device == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")
        np.testing.assert_array_equal(as_clip((torch.from_numpy(TONE).cuda(), RATE), RATE), TONE)
    else:
        with pytest.raises(MintError, match="the samples, of type Tensor, are no array of numbers"):
            as_clip((torch.zeros(10, device="meta"), RATE), RATE)


@pytest.mark.parametrize("rate", [RATE, 16000.0, np.int32(RATE), np.float64(RATE), np.array(RATE), torch.tensor(RATE)])
def test_a_whole_rate_of_any_type(rate: Any) -> None:
    np.testing.assert_array_equal(as_clip((TONE, rate), RATE), TONE)


def test_other_containers() -> None:
    """A dict as data sets of Hugging Face give it, a list in place of a tuple, lists of floats."""
    for audio in (
        {"array": TONE, "sampling_rate": RATE, "path": "x.wav"},
        [TONE, RATE],
        (TONE.tolist(), RATE),
        (tuple(TONE.tolist()), RATE),
    ):
        np.testing.assert_array_equal(as_clip(audio, RATE), TONE)  # type: ignore[arg-type]


WIDE = "whole numbers of type int64, which does not say how large full scale is; give floats in .* or the type"


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([0, 16384, -16384], WIDE),
        (INT16.astype(np.int64), WIDE),
        (torch.from_numpy(INT16).long(), WIDE),
        (INT16.astype(np.uint64), "whole numbers of type uint64"),
        (INT16.astype(np.int32), r"type int32 and stay within the range of int16.*samples\.astype\(np\.int16\)"),
        (INT16.astype(np.float32), r"the samples reach 16384, where 1 is full scale; divide them by .*32768"),
        (INT16.astype(np.float64)[None], "the samples reach 16384"),
        (np.array([0.0, 1e30]), r"the samples reach 1e\+30"),
        (np.array([0.0, 1e300]), "NaN or infinite"),
        (["0.5", "0.25"], "the samples are of type <U4; give floats"),
        ("0.5 0.25", "the samples are of type <U8; give floats"),
        (b"\0\1\0\2", r"the samples are of type \|S"),
        (np.array([True, False]), "the samples are of type bool"),
        (np.array([0.5j]), "the samples are of type complex128"),
        ([[0.5], [0.5, 0.25]], "the samples, of type list, are no array of numbers"),
        (None, "the samples are of type object"),
        (0.5, r"audio has the shape \(\)"),
        ([], "it holds no samples"),
    ],
)
def test_samples_that_are_refused(samples: Any, message: str) -> None:
    for audio in ((samples, RATE), Clip(samples, RATE), {"array": samples, "sampling_rate": RATE}):
        with pytest.raises(MintError, match=message) as caught:
            as_clip(audio, RATE)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400


def test_silence_in_32_bits_is_silence() -> None:
    assert not as_clip((np.zeros(100, np.int32), RATE), RATE).any()


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (0, "the rate is 0 Hz; give one from 50 to 20,000,000 Hz"),
        (-16000, "the rate is -16000 Hz"),
        (1, "the rate is 1 Hz"),
        (1e14, r"the rate is 1(e\+14|0+\.0) Hz; give one from"),
        (10**400, r"the rate is 10+\.\.\. \(401 characters\) Hz"),
        (True, "the rate is True; give it in Hz as a whole number"),
        (np.True_, "the rate is True"),
        (16000.5, r"the rate is 16000\.5; give it in Hz as a whole number"),
        (float("nan"), "the rate is nan"),
        (float("inf"), "the rate is inf"),
        ("16000", "the rate is '16000'"),
        ("x" * 9999, r"the rate is 'x+\.\.\. \(10,001 characters\); give"),
        (None, "the rate is None"),
        (np.array([16000, 8000]), r"the rate is array\(\[16000"),
    ],
)
def test_rates_that_are_refused_at_once(rate: Any, message: str) -> None:
    begin = time.perf_counter()
    for audio in ((TONE, rate), Clip(TONE, rate), {"array": TONE, "sampling_rate": rate}):
        with pytest.raises(MintError, match=message):
            as_clip(audio, RATE)
    assert time.perf_counter() - begin < 5


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        ((RATE, TONE), r"audio is \(rate, samples\); swap the two: give \(samples, rate\)"),
        ((RATE, TONE.tolist()), r"audio is \(rate, samples\); swap"),
        ((RATE, torch.from_numpy(TONE)), r"audio is \(rate, samples\); swap"),
        ({"path": "a.wav", "bytes": b""}, "audio is a dict with the keys bytes, path; give 'array' and"),
        ({}, r"audio is a dict with the keys \(none\)"),
        ((TONE,), "audio is tuple; give a path or"),
        ((TONE, RATE, 1), "audio is tuple; give a path or"),
        (TONE.tolist(), "audio is list; give a path or"),
        (None, "audio is NoneType; give a path or"),
        (440, "audio is int; give a path or"),
        (b"a.wav", "audio is bytes; give a path or"),
    ],
)
def test_other_forms_are_refused(audio: Any, message: str) -> None:
    with pytest.raises(MintError, match=message):
        as_clip(audio, RATE)


def test_the_lowest_and_highest_rates_end_soon() -> None:
    begin = time.perf_counter()
    assert as_clip((TONE[:100], 50), RATE).shape == (32000,)
    assert as_clip((np.zeros(4_000_000, np.float32), 20_000_000), RATE).shape == (3200,)
    assert time.perf_counter() - begin < 10
