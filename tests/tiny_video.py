"""m4a, webm and their like, encoded by PyAV."""

from __future__ import annotations

import importlib
import io
from typing import Any

import numpy as np

FORMATS: dict[str, tuple[str, str, dict[str, str]]] = {
    "m4a": ("mp4", "aac", {"aac_pns": "0"}),
    "aac": ("adts", "aac", {}),
    "mp4": ("mp4", "alac", {}),
    "webm": ("webm", "libopus", {}),
    "mkv": ("matroska", "pcm_s16le", {}),
}
"""Suffix -> container, codec and its options; noise that AAC's decoder makes up (PNS) depends on where it began."""


def encoded(kind: str, samples: np.ndarray, rate: int) -> bytes:
    """[channels, S], one or two channels, as a file with this suffix."""
    av: Any = importlib.import_module("av")
    container_format, codec, options = FORMATS[kind]
    layout = {1: "mono", 2: "stereo"}[len(samples)]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout, options=options)
        coder = stream.codec_context
        coder.open()
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32), format="fltp", layout=layout)
        frame.sample_rate = rate
        fit = av.AudioResampler(coder.format.name, layout, rate, frame_size=coder.frame_size or 1024)
        for piece in [*fit.resample(frame), *fit.resample(None), None]:
            container.mux(stream.encode(piece))
    return buffer.getvalue()
