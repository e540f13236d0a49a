"""The figure of what the queries attend to: a spectrogram and, below it, one row of attention for each query.

Both are pictures of one pixel a value inside an SVG, which gives the axes: sharp at any width, and small however many
queries and frames there are.
"""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import soxr
import torch
from markupsafe import Markup, escape

from mint.encoders.log_mel import SAMPLE_RATE, WINDOW, LogMel
from mint.types import MintError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from mint.types import Clip

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 480, 46, 12, 6, 38
SPECTROGRAM_HEIGHT, GAP = 96, 8
ROW_HEIGHT = (4.0, 12.0)
"""Smallest and largest height of a query's row."""
ROWS_HEIGHT = 128
"""Height that the rows share."""
MOST_COLUMNS = 600
"""Columns of the spectrogram's picture; longer ones are averaged down."""
HEAT = ((0.0, (10, 8, 32)), (0.35, (92, 24, 110)), (0.6, (196, 60, 78)), (0.8, (246, 140, 40)), (1.0, (252, 240, 170)))
"""Colours of the spectrogram, from the quietest to the loudest."""
INK = (37, 99, 235)
"""Colour of the attention; its weight is the opacity."""


def attention_figure(title: str, clip: Clip, attention: ArrayLike, step_seconds: float) -> Markup:
    """Draw what the queries attend to.

    Args:
        title: the title for those who cannot see the figure.
        clip: the audio.
        attention: [Q, steps], not negative.
        step_seconds: seconds of audio of one step.

    Raises:
        MintError: attention that is not a matrix, or a clip without samples.
    """
    weights = np.asarray(attention, dtype=np.float64)
    if weights.ndim != 2 or not weights.size:
        raise MintError(f"attention {title!r} has shape {weights.shape}; it must be [queries, steps]")
    if not len(clip.samples):
        raise MintError(f"attention {title!r} has a clip without samples")

    seconds = len(clip.samples) / clip.rate
    across = WIDTH - LEFT - RIGHT
    row = min(max(ROWS_HEIGHT / len(weights), ROW_HEIGHT[0]), ROW_HEIGHT[1])
    below, height = TOP + SPECTROGRAM_HEIGHT + GAP, row * len(weights)
    bottom = below + height

    # The last step may reach beyond the clip's end; an SVG of its own cuts off the rest.
    covered = across * weights.shape[1] * step_seconds / seconds
    parts = [
        _image(spectrogram(clip), LEFT, TOP, across, SPECTROGRAM_HEIGHT),
        f'<svg x="{LEFT}" y="{below}" width="{across}" height="{height:.1f}" aria-hidden="true">',
        _image(attention_pixels(weights), 0, 0, covered, height),
        "</svg>",
        f'<rect class="frame" x="{LEFT}" y="{below}" width="{across}" height="{height:.1f}"/>',
        f'<text x="{LEFT - 6}" y="{TOP + SPECTROGRAM_HEIGHT / 2 + 4}" text-anchor="end">mel</text>',
        f'<text x="{LEFT - 6}" y="{below + row / 2 + 4:.1f}" text-anchor="end">1</text>',
        f'<text x="{LEFT - 6}" y="{bottom - row / 2 + 4:.1f}" text-anchor="end">{len(weights)}</text>',
        f'<text x="{LEFT + across / 2:.0f}" y="{bottom + 33:.1f}" text-anchor="middle">seconds</text>',
    ]
    for tick in np.linspace(0, seconds, 5):
        x = LEFT + across * tick / seconds
        parts.append(f'<text x="{x:.1f}" y="{bottom + 17:.1f}" text-anchor="middle">{tick:.3g}</text>')

    label = escape(f"{title}: spectrogram of {seconds:.3g} s and the attention of {len(weights)} queries over it")
    return Markup(
        f'<svg class="plot" role="img" aria-label="{label}" viewBox="0 0 {WIDTH} {bottom + BOTTOM:.0f}">'
        f"{''.join(parts)}</svg>"
    )


def spectrogram(clip: Clip) -> NDArray[np.uint8]:
    """Return the colours [64, columns, 3] of the log-mel spectrogram, high frequencies on top."""
    samples = np.asarray(clip.samples, dtype=np.float32)
    if clip.rate != SAMPLE_RATE:
        samples = soxr.resample(samples, clip.rate, SAMPLE_RATE)
    samples = np.pad(samples, (0, max(0, WINDOW - len(samples))))
    frames = LogMel()(torch.from_numpy(samples)).T.numpy()  # [64, T]

    # Neighbouring frames are averaged, so that the picture stays small.
    edges = np.linspace(0, frames.shape[1], min(MOST_COLUMNS, frames.shape[1]) + 1).astype(int)
    columns = np.add.reduceat(frames, edges[:-1], axis=1) / np.diff(edges)  # [64, columns]
    shades = (columns - columns.min()) / max(float(np.ptp(columns)), 1e-9)

    stops = [stop for stop, _ in HEAT]
    colours = np.array([colour for _, colour in HEAT])
    channels = [np.interp(shades[::-1], stops, colours[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def attention_pixels(weights: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the colours [Q, steps, 4] whose opacity is the weight as a share of the largest one."""
    pixels = np.empty((*weights.shape, 4), dtype=np.uint8)
    pixels[..., :3] = INK
    pixels[..., 3] = np.round(255 * weights / max(float(weights.max()), 1e-9))
    return pixels


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a PNG file of pixels [H, W, 3 or 4]: the three chunks of the format, every line unfiltered."""
    height, width, channels = pixels.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, {3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(lines.tobytes(), 9), b"IEND": b""}

    file = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks.items():
        file += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return file


def _image(pixels: NDArray[Any], x: float, y: float, width: float, height: float) -> str:
    source = f"data:image/png;base64,{base64.b64encode(png(pixels)).decode()}"
    return (
        f'<image x="{x}" y="{y}" width="{width:.1f}" height="{height:.1f}" preserveAspectRatio="none" href="{source}"/>'
    )
