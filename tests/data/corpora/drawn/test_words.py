"""The table of words: it is held to YAMNet's class map, and says what it should of every kind of class."""

from __future__ import annotations

import re

import pytest

from mint.data.corpora.drawn.words import JOINTS, KINDS, classes_called, joined, read_words, words_of
from mint.types import MintError

SENTENCE = re.compile(r"[A-Z][A-Za-z&,' -]+\.")


def test_each_class_has_words_of_a_known_kind() -> None:
    words = read_words()
    assert len(words) == 521
    for name, one in words.items():
        assert one.name == name
        assert one.kind in KINDS, name
        assert 1 <= len(one.labels) <= 4, name
        assert len(set(one.labels)) == len(one.labels), name
        assert 2 <= len(one.sentences) <= 4, name
        for sentence in one.sentences:
            assert SENTENCE.fullmatch(sentence), sentence
        for label in one.labels:
            assert label == label.strip(), label
            assert label, name


def test_headings_places_and_silence_are_no_events() -> None:
    words = read_words()
    for name in ("Animal", "Vehicle", "Music", "Domestic animals, pets", "Mechanisms", "Sound effect"):
        assert words[name].kind == "group"
    for name in ("Inside, small room", "Outside, rural or natural", "Field recording", "Reverberation"):
        assert words[name].kind == "scene"
    assert [name for name, one in words.items() if one.kind == "silence"] == ["Silence"]
    assert words["Dog"].kind == words["Rain"].kind == words["Chainsaw"].kind == "event"


@pytest.mark.parametrize(
    ("name", "word"),
    [("Dog", "dog"), ("Sneeze", "sneez"), ("Waves, surf", "wave|surf|sea"), ("Tick-tock", "tick"), ("Rain", "rain")],
)
def test_every_sentence_names_its_sound(name: str, word: str) -> None:
    for sentence in read_words()[name].sentences:
        assert re.search(word, sentence.lower()), sentence


def test_two_sentences_are_joined_to_one() -> None:
    assert joined("A dog barks.", "Rain falls.", JOINTS[0]) == "A dog barks while rain falls."
    assert joined("Rain falls.", "Latin music plays.", JOINTS[1]) == "Rain falls and Latin music plays."


def test_a_class_without_words_is_named() -> None:
    assert [one.name for one in words_of(["Rain", "Dog"])] == ["Rain", "Dog"]
    with pytest.raises(MintError, match=r"no words for the class 'Quasar'; add a line to words\.txt"):
        words_of(["Dog", "Quasar"])


@pytest.mark.parametrize(
    ("label", "wanted"),
    [
        ("dog", ["Dog"]),
        ("Sea waves", ["Waves, surf"]),
        ("person sneeze", ["Sneeze"]),  # of somebody else's words, those of a label are enough
        ("rooster", ["Chicken, rooster"]),
        ("quasar", []),
    ],
)
def test_classes_are_found_by_what_people_call_them(label: str, wanted: list[str]) -> None:
    names = list(read_words())
    assert [names[number] for number in classes_called(label, names)] == wanted


@pytest.mark.slow
def test_the_table_is_in_the_order_of_the_class_map() -> None:
    from mint.builders.encoder import build_encoder
    from mint.config import load_recipe
    from mint.encoders.yamnet import YamNet

    encoder = build_encoder(load_recipe("quickstart/stage1").encoder)
    assert isinstance(encoder, YamNet)
    assert tuple(read_words()) == encoder.class_names
