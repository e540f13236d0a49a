"""The corpus `sounds`, drawn from a tiny encoder that has learnt nothing but has a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from mint.data.batches.items import caption_items, instruction_items
from mint.data.corpora.drawn import sounds
from mint.data.corpora.drawn.sounds import TESTED, plan, prepare_sounds
from mint.data.corpora.drawn.words import SoundWords, read_words, words_of
from mint.data.features.prepare import prepare_features, read_examples
from mint.data.manifests.prompts import SOUND_PROMPT
from mint.encoders.tiny import TinyEncoder
from mint.types import Example, MintError, NamedClasses, NamesClasses

NAMES = ("Dog", "Rain", "Sneeze", "Animal", "Silence", "Inside, small room")


class NamingEncoder(TinyEncoder):
    """The tiny encoder with a random classifier of six classes over four tokens."""

    @property
    def named_classes(self) -> NamedClasses:
        weight = torch.randn(len(NAMES), self.width, generator=torch.Generator().manual_seed(0))
        bias = torch.tensor([0.0, 0.0, 0.0, 0.0, -9.0, 0.0])  # it never hears silence
        return NamedClasses(NAMES, weight, bias, tokens=4, samples=4 * 320, least=None)


def prepare(output: Path, seed: int = 0, scale: float = 1.0) -> list[Example]:
    return read_examples([prepare_sounds(output, NamingEncoder(), seed, scale, workers=1, progress=False)])


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Draw from a small pool, and keep features in the test's folder."""
    monkeypatch.setattr(sounds, "RANDOM_SOUNDS", 64)
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))


def contents(folder: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_clips_say_what_is_drawn_for_them(tmp_path: Path) -> None:
    examples = prepare(tmp_path / "data")
    words = read_words()
    drawn = {name for example in examples for name in example.metadata["classes"]}
    assert drawn == {"Dog", "Rain", "Sneeze", "Silence"}  # no heading and no place
    for example in examples:
        assert example.task == example.corpus == "sounds"
        names = example.metadata["classes"]
        if len(names) == 1 and example.split == "train":
            assert example.prompt == SOUND_PROMPT
            assert example.answer in words[names[0]].labels
            assert example.captions[0] in words[names[0]].sentences
        if len(names) == 2:
            assert example.answer is None
            for caption in example.captions:
                assert caption.count(".") == 1
                for name in names:
                    assert any(text[1:-1] in caption for text in words[name].sentences), caption


def test_only_the_test_split_has_labels_to_rank(tmp_path: Path) -> None:
    examples = prepare(tmp_path / "data")
    labels = {example.labels for example in examples if example.split == "test"}
    assert labels == {("dog",), ("rain",)}  # a sneeze is not among `TESTED`
    assert not any(example.labels for example in examples if example.split != "test")
    assert not any(example.captions for example in examples if example.split == "test")


def test_features_enter_where_those_of_other_clips_do(tmp_path: Path) -> None:
    examples = prepare(tmp_path / "data")
    features = prepare_features(NamingEncoder(), examples)
    assert not features.skipped
    assert features.encoded == len(examples)
    for example in examples:
        (window,) = features.windows(example)
        assert window.shape[1] == 16
        assert len(window) % 4 == 0
    assert prepare_features(NamingEncoder(), examples).encoded == 0
    assert len(caption_items(examples)) == len(examples)
    assert {item.task for item in instruction_items(examples)} == {"sounds", "captioning"}


def test_what_is_drawn_for_a_class_is_taken_for_it(tmp_path: Path) -> None:
    classes = NamingEncoder().named_classes
    examples = [one for one in prepare(tmp_path / "data") if one.metadata["classes"] in (["Dog"], ["Rain"], ["Sneeze"])]
    features = prepare_features(NamingEncoder(), examples)
    right = 0
    for example in examples:
        patches = features.windows(example)[0].view(-1, 4, 16).mean(dim=1)
        logits = classes.logits(patches)[:, :3].amax(dim=0)
        right += NAMES[int(logits.argmax())] == example.metadata["classes"][0]
    assert right > 0.8 * len(examples)


def test_the_seed_decides_and_what_is_finished_stays(tmp_path: Path) -> None:
    prepare(tmp_path / "a")
    first = contents(tmp_path / "a")
    (tmp_path / "a" / "sounds" / "sounds-train-000-00.npz").unlink()
    prepare(tmp_path / "a")  # finished: nothing is looked into
    assert len(contents(tmp_path / "a")) == len(first) - 1
    prepare(tmp_path / "b")
    assert contents(tmp_path / "b") == first
    prepare(tmp_path / "b", seed=1)
    other = contents(tmp_path / "b")
    assert other.keys() != first.keys() or other != first


def test_what_is_unfinished_is_made_anew(tmp_path: Path) -> None:
    prepare(tmp_path)
    first = contents(tmp_path)
    (tmp_path / "sounds.jsonl").unlink()
    (tmp_path / "sounds" / "sounds-train-000-00.npz").unlink()
    prepare(tmp_path)
    assert contents(tmp_path) == first


def test_a_corpus_of_that_name_from_elsewhere_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    with pytest.raises(MintError, match="holds a 'sounds' that MINT has not drawn; give another folder"):
        prepare(tmp_path)


def test_an_encoder_without_classifier_is_refused(tmp_path: Path) -> None:
    assert isinstance(NamingEncoder(), NamesClasses)
    assert not isinstance(TinyEncoder(), NamesClasses)
    with pytest.raises(MintError, match="has no classifier of named classes; choose encoder"):
        prepare_sounds(tmp_path, TinyEncoder())


def test_the_plan_for_all_classes(tmp_path: Path) -> None:
    words = words_of(list(read_words()))
    plans = plan(words, seed=0, scale=1.0)
    assert len({one.id for one in plans}) == len(plans)
    events = {number for number, one in enumerate(words) if one.kind == "event"}
    for split in ("train", "validation"):
        assert events <= {number for one in plans if one.split == split for number in one.classes}
    tested = [one for one in plans if one.split == "test"]
    assert len({one.labels for one in tested}) == len(TESTED)
    assert plan(words, seed=0, scale=1.0) == plans
    assert plan(words, seed=1, scale=1.0) != plans
    assert len(plan(words, seed=0, scale=0.1)) < len(plans) / 2


def test_a_class_that_has_no_words_stops_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_dog(names: object) -> list[SoundWords]:
        raise MintError("there are no words for the class 'Dog'")

    monkeypatch.setattr(sounds, "words_of", without_dog)
    with pytest.raises(MintError, match="no words"):
        prepare(tmp_path / "out")
    assert not (tmp_path / "out").exists()
