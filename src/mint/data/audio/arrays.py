"""Samples in memory, however a caller holds them, as one channel of float32 with a rate."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mint.data.audio.opening import RATES
from mint.text_files import shown
from mint.types import Clip, MintError

LOUDEST = 1000.0
"""Floating-point samples lie in [-1, 1]. What is above this was not scaled: 60 dB above full scale is no sound."""
EXAMPLE = "(samples, rate), such as (array, 16000)"


def one_channel(audio: Any) -> tuple[NDArray[np.float32], int]:
    """Bring samples and their rate to one form.

    Args:
        audio: a `Clip`, (samples, rate), or a dict with `array` and `sampling_rate` as Hugging Face datasets give it.
            The samples are a list, an array or a tensor on any device: [S], [channels, S] or [S, channels], where the
            shorter side is taken to be the channels. Whole numbers of 8, 16 or 32 bits are scaled by their range.

    Returns:
        [S] in [-1, 1], channels averaged, and the rate in Hz.

    Raises:
        MintError: another form, a rate that no sound has, or samples that are no numbers or are not scaled.
    """
    samples, rate = _samples_and_rate(audio)

    array = _scaled(_as_array(samples))
    if array.ndim == 2:
        array = array.mean(axis=int(array.shape[0] > array.shape[1]))
    with np.errstate(over="ignore"):  # what float32 does not hold becomes infinite, which is refused later
        array = array.astype(np.float32)

    loudest = float(np.abs(array).max(initial=0.0))
    if LOUDEST < loudest < np.inf:
        raise MintError(
            f"the samples reach {loudest:g}, where 1 is full scale; divide them by the range that they have "
            "(32768 for 16 bits)"
        )
    return array, rate


def _samples_and_rate(audio: Any) -> tuple[Any, int]:
    """Return samples as they are, and a rate that was checked."""
    if isinstance(audio, Clip):
        return audio.samples, _checked_rate(audio.rate)
    if isinstance(audio, dict):
        if {"array", "sampling_rate"} <= audio.keys():
            return audio["array"], _checked_rate(audio["sampling_rate"])

        keys = ", ".join(sorted(map(str, audio))[:8])
        raise MintError(f"audio is a dict with the keys {keys or '(none)'}; give 'array' and 'sampling_rate'")

    if not isinstance(audio, tuple | list) or len(audio) != 2:
        raise MintError(f"audio is {type(audio).__name__}; give a path or {EXAMPLE}")

    # SciPy's and Gradio's order is the other one.
    samples, rate = audio
    if np.ndim(rate) and not np.ndim(samples) and not isinstance(samples, str):
        raise MintError(f"audio is (rate, samples); swap the two: give {EXAMPLE}")
    return samples, _checked_rate(rate)


def _checked_rate(rate: Any) -> int:
    """Return a rate in Hz, given as a whole number of any type."""
    if hasattr(rate, "item") and np.ndim(rate) == 0:  # a number of NumPy or PyTorch
        rate = rate.item()
    if isinstance(rate, bool) or not isinstance(rate, int | float) or rate != rate // 1:
        raise MintError(f"the rate is {shown(rate, 40)}; give it in Hz as a whole number, in {EXAMPLE}")

    if not RATES[0] <= rate <= RATES[1]:
        raise MintError(f"the rate is {shown(rate, 40)} Hz; give one from {RATES[0]} to {RATES[1]:,} Hz, in {EXAMPLE}")
    return int(rate)


def _as_array(samples: Any) -> NDArray[Any]:
    """Return samples as an array of numbers, [S], [channels, S] or [S, channels]."""
    try:
        if hasattr(samples, "detach"):  # a tensor that has a gradient, or lies on an accelerator
            samples = samples.detach().cpu()
            if str(samples.dtype) == "torch.bfloat16":  # NumPy has no such type
                samples = samples.float()
        array = np.asarray(samples)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MintError(f"the samples, of type {type(samples).__name__}, are no array of numbers ({reason})") from None

    if array.dtype.kind not in "iuf":
        raise MintError(f"the samples are of type {array.dtype}; give floats in [-1, 1] or 16-bit integers")
    if array.ndim not in (1, 2):
        raise MintError(f"audio has the shape {array.shape}; give [samples], [channels, samples] or its transpose")
    return array


def _scaled(array: NDArray[Any]) -> NDArray[Any]:
    """Return samples as floating-point numbers; whole ones are divided by half the range of their type."""
    if array.dtype.kind == "f":
        return array
    if array.dtype.itemsize > 4:
        raise MintError(
            f"the samples are whole numbers of type {array.dtype}, which does not say how large full scale is; "
            "give floats in [-1, 1], or the type that they were recorded in, such as np.asarray(samples, np.int16)"
        )

    # Lists of 16-bit numbers are int32 on some systems: 90 dB below full scale, they are no sound in 32 bits.
    info = np.iinfo(array.dtype)
    if array.dtype == np.int32 and 0 < np.abs(array.astype(np.int64)).max(initial=0) <= 1 << 15:
        raise MintError(
            "the samples are of type int32 and stay within the range of int16, which would be silence; "
            "if they were recorded in 16 bits, give them as such: samples.astype(np.int16)"
        )

    half = (float(info.max) - info.min + 1) / 2  # int16: 32768, centred on 0; uint8: 128, centred on 128
    scaled: NDArray[Any] = (array.astype(np.float32) - (info.min + half)) / half
    return scaled
