"""The prompts of the paper's Table 1, word for word, and the way several labels make one answer.

The same text instructs the language model and Bridge-Net.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mint.types import CAPTION_PROMPT, MintError

SOUND_PROMPT = "This is a sound of"
INSTRUMENTS_PROMPT = "Identify the instruments in this segment of music:"
GENRE_PROMPT = "The genre of this music is"
NSYNTH_PROMPT = "The most prominent instrument in this music is"
KEY_PROMPT = "The key of this music is"

# Corpora beyond Table 1 have no prompt of the paper's: theirs stand with their readers.
PROMPTS = {
    "AudioSet": SOUND_PROMPT,
    "VGGSound": SOUND_PROMPT,
    "OpenMIC": INSTRUMENTS_PROMPT,
    "FMA-large": GENRE_PROMPT,
    "NSynth": NSYNTH_PROMPT,
    "FSD50K": SOUND_PROMPT,
    "Music4All-key": KEY_PROMPT,
    "Music4All-genre": GENRE_PROMPT,
    "GTZAN": GENRE_PROMPT,
    "WavCaps": CAPTION_PROMPT,
    "FreeSound": CAPTION_PROMPT,
    "Clotho": CAPTION_PROMPT,
}
"""Corpus of Table 1 -> prompt."""


def join_labels(labels: Collection[str], vocabulary: Sequence[str]) -> str:
    """Return the answer of a clip with several labels: in the corpus's label order, joined with ", ".

    Raises:
        MintError: a label is not in the vocabulary.
    """
    unknown = sorted(set(labels) - set(vocabulary))
    if unknown:
        raise MintError(f"label {unknown[0]!r} is not in the vocabulary; it knows {', '.join(vocabulary)}")

    # One order for each set of labels: another order would be another answer to learn.
    return ", ".join(name for name in vocabulary if name in labels)
