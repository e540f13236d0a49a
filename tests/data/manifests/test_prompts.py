"""The prompts of the paper's Table 1."""

from __future__ import annotations

import pytest

from mint.data.manifests.prompts import PROMPTS, join_labels
from mint.types import MintError


def test_table_1_word_for_word() -> None:
    assert PROMPTS == {
        "AudioSet": "This is a sound of",
        "VGGSound": "This is a sound of",
        "OpenMIC": "Identify the instruments in this segment of music:",
        "FMA-large": "The genre of this music is",
        "NSynth": "The most prominent instrument in this music is",
        "FSD50K": "This is a sound of",
        "Music4All-key": "The key of this music is",
        "Music4All-genre": "The genre of this music is",
        "GTZAN": "The genre of this music is",
        "WavCaps": "Generate audio caption:",
        "FreeSound": "Generate audio caption:",
        "Clotho": "Generate audio caption:",
    }


def test_labels_are_joined_in_the_order_of_the_corpus() -> None:
    assert join_labels(["piano", "banjo"], ["banjo", "flute", "piano"]) == "banjo, piano"
    assert join_labels({"flute"}, ["banjo", "flute"]) == "flute"


def test_unknown_label() -> None:
    with pytest.raises(MintError, match="label 'kazoo' is not in the vocabulary; it knows banjo, flute"):
        join_labels(["banjo", "kazoo"], ["banjo", "flute"])
