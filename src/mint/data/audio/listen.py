"""What someone who listened to a clip would notice: silence, clipping, a cut-off end, channels that cancel each other.

`mint data validate` reports it. Every threshold is far from what undamaged recordings show, so that a report is worth
reading; the reason stands with each. Samples are measured as the file holds them, before they are resampled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mint.data.audio.decode import read_part, windows
from mint.data.audio.members import open_stored
from mint.data.audio.opening import Sound, mean_of_channels, open_audio
from mint.data.audio.streams import Window, unclaimed_bytes
from mint.types import MintError

SILENCE = 2.0**-12
"""Peak (72 dB below full scale) that the whole clip must not exceed to count as silent: eight steps of 16-bit audio,
which dither and codecs leave in digital silence. The quietest notes of an orchestra reach ten times as much."""
CLIPPED_SHARE = 0.04
"""Share of the samples that lie at the clip's own extremes. A pure sine has 0.9 % there, loud masters less than 1 %,
and a drum that was distorted on purpose 2 %."""
AT_EXTREME = 1e-4
"""Relative distance from the extreme within which a sample lies at it: three steps of 16-bit audio at full scale."""
CLIPPED_LEVEL = 0.5
"""Extremes below this are not called clipped: there, few steps of a coarse format look the same."""
DC_OFFSET = 0.05
"""Mean of the samples, of full scale. Converters and microphones leave less than 0.02."""
DC_SECONDS = 0.1
"""Shorter clips may have any mean: they may hold less than a period of what sounds."""
LOUDEST = 4.0
"""Peak (12 dB above full scale) that decoders of lossy formats do not reach; integers that were not scaled do."""
CANCELLED = 0.02
"""Power of the mean of C channels over that of a channel, times C; it is 1 for unrelated channels, C for equal ones."""
TOLERANCE = 0.1
"""Seconds by which a file may end before its header says, or go on after it."""
SIGNATURES = (b"fLaC", b".snd", b"caff", b"riff", b"\x1a\x45\xdf\xa3")
"""First bytes of formats of which a decoder reads the first stream alone."""


@dataclass(frozen=True)
class Heard:
    """What decoding a clip showed."""

    end: float
    """Seconds into the file up to which its windows hold sound."""
    promised: float
    """Length of the file in seconds, as its header gives it."""
    findings: tuple[str, ...]
    """What is wrong with the sound, each with its cure."""


def listen(path: str | Path, start: float = 0.0, duration: float | None = None) -> Heard:
    """Decode the windows of a clip that training and evaluation use, and judge how they sound.

    Raises:
        MintError: as `load_audio`.
    """
    path = Path(path)
    with open_audio(path) as sound:
        seconds, rate, promised = sound.frames / sound.samplerate, sound.samplerate, sound.promised / sound.samplerate
        findings = _goes_on(path, sound)

    length = seconds - start if duration is None else min(duration, seconds - start)

    # Window by window, since an hour of sound need not fit into memory.
    levels = _Levels(rate)
    end = start
    for offset, wanted in windows(max(length, 1 / rate)):
        with open_audio(path) as sound:
            samples = read_part(path, sound, start + offset, wanted)  # [S, channels]

        # An MP3 that was cut off has the length of the whole: its later windows are empty.
        if not len(samples):
            break
        if not np.isfinite(samples).all():
            raise MintError(f"{path}: it holds NaN or infinite samples; export it again, for instance as 16-bit flac")
        levels.add(samples)
        end = start + offset + len(samples) / rate

    if end == start:
        raise MintError(
            f"{path}: it ends before {start:.2f} s, although its header says otherwise; fetch or export it again"
        )
    return Heard(end, promised, (*findings, *levels.findings()))


def check_audio(path: str | Path, start: float = 0.0, duration: float | None = None) -> float:
    """Decode the windows of a clip and throw them away.

    Returns:
        Seconds into the file up to which there is audio in the windows; less than the clip's end where it was cut off.

    Raises:
        MintError: as `load_audio`.
    """
    return listen(path, start, duration).end


@dataclass
class _Levels:
    """Sums over the windows of a clip."""

    rate: int
    count: int = 0
    """Samples in each channel."""
    lowest: list[float] = field(default_factory=list)
    highest: list[float] = field(default_factory=list)
    """Extremes of each window."""
    at_extremes: list[tuple[int, int]] = field(default_factory=list)
    """Samples of each window, of all channels, that lie at its lowest and at its highest."""
    size: int = 0
    """Samples in all channels."""
    swing: float = 0.0
    """Largest distance of a sample from the mean of its channel in its window."""
    mixed_swing: float = 0.0
    """The same of the mean of the channels."""
    total: float = 0.0
    """Sum of the mean of the channels."""
    power: float = 0.0
    """Sum of squares in a channel, mean over channels, without their offset."""
    mixed_power: float = 0.0
    """Sum of squares of the mean of the channels, likewise."""
    channels: int = 1

    def add(self, samples: NDArray[np.float32]) -> None:
        """Take in one window, [S, channels]."""
        low, high = float(samples.min()), float(samples.max())
        self.lowest.append(low)
        self.highest.append(high)

        # The extremes of the clip are known at its end: those of each window are counted, and summed where they agree.
        margins = AT_EXTREME * abs(low), AT_EXTREME * abs(high)
        counts = np.count_nonzero(samples <= low + margins[0]), np.count_nonzero(samples >= high - margins[1])
        self.at_extremes.append((int(counts[0]), int(counts[1])))

        # What the encoder hears: all channels as one.
        mixed = mean_of_channels(samples)
        self.count += len(samples)
        self.size += samples.size
        self.channels = samples.shape[1]
        self.total += float(mixed.sum(dtype=np.float64))

        with np.errstate(over="ignore"):  # one sample of 1e30 is judged by its level alone
            centred = samples - samples.mean(axis=0, dtype=np.float64).astype(np.float32)
            mixed_centred = mean_of_channels(centred)
            self.power += float(np.square(centred).sum(dtype=np.float64)) / self.channels
            self.mixed_power += float(np.square(mixed_centred).sum(dtype=np.float64))

        self.swing = max(self.swing, float(np.abs(centred).max()))
        self.mixed_swing = max(self.mixed_swing, float(np.abs(mixed_centred).max()))

    def findings(self) -> list[str]:
        """Return what is wrong, each in one clause with its cure."""
        peak = max(-min(self.lowest), max(self.highest))
        mean = self.total / self.count
        # Silence may lie off zero: what counts is how far the samples swing about their mean.
        is_silent = self.swing < SILENCE

        findings = []
        if peak > LOUDEST:
            findings.append(
                f"its samples reach {peak:g}, where 1 is full scale; divide them by the range that they have"
            )
        if is_silent:
            findings.append("it is silent; fetch or export it again, or leave it out")
        elif self._is_cancelled():
            findings.append(
                "its channels cancel each other, and their mean is (nearly) silent; invert one, or use one alone"
            )

        # A short sound, such as a click, has a mean without being off.
        if abs(mean) > DC_OFFSET * max(1.0, peak) and self.count >= DC_SECONDS * self.rate:
            findings.append(f"its samples have a mean of {mean:.2f} (a DC offset); subtract it")

        share = self._clipped_share()
        if not is_silent and share > CLIPPED_SHARE:
            findings.append(
                f"it is clipped: {100 * share:.0f} % of its samples lie at its extremes "
                f"({min(self.lowest):.3g} and {max(self.highest):.3g}); record or export it at a lower level"
            )
        return findings

    def _is_cancelled(self) -> bool:
        """Return whether the mean of the channels is (nearly) silent, although they are not."""
        if self.channels == 1:
            return False
        # Two channels, one inverted: the mean is dither. Many of them: it is far below what unrelated ones would have.
        return self.mixed_swing < SILENCE or self.mixed_power * self.channels < CANCELLED * self.power

    def _clipped_share(self) -> float:
        """Return the share of the samples that lie at the lowest or highest value of all windows."""
        low, high = min(self.lowest), max(self.highest)
        count = 0
        for lowest, highest, (at_lowest, at_highest) in zip(self.lowest, self.highest, self.at_extremes, strict=True):
            if low < -CLIPPED_LEVEL and lowest <= low * (1 - AT_EXTREME):
                count += at_lowest
            if high > CLIPPED_LEVEL and highest >= high * (1 - AT_EXTREME):
                count += at_highest
        return count / self.size


def _goes_on(path: Path, sound: Sound) -> list[str]:
    """Return a finding if a file holds sound after what a decoder reads of it."""
    with open_stored(path) as file:
        size = file.seek(0, 2)
        window = Window(file, size)
        head = window.at(0, 8)
        # Eight bytes do not occur again by chance: once in 2**64 of them.
        if head.startswith(SIGNATURES) or head[4:] == b"ftyp":
            position = window.find(head, 8)
            if position >= 0:
                return [
                    f"it goes on after its first stream: another one begins at byte {position}, and is not read; "
                    "split the file, or join the sound by a program that decodes it"
                ]

        seconds = sound.frames / sound.samplerate
        unclaimed, of_sound = unclaimed_bytes(window)
        if of_sound and unclaimed / of_sound * seconds > TOLERANCE:
            return [
                f"its header says {seconds:.2f} s, but {unclaimed} bytes follow, and are not read; mend the header, or "
                "export it again"
            ]
    return []
