"""Captions that name a label, and those that do so by accident."""

from __future__ import annotations

import numpy as np
import pytest

from mint.evaluation.metrics.naming import named_labels, names_label, naming
from mint.types import MintError


@pytest.mark.parametrize(
    ("caption", "label", "named"),
    [
        ("A Flute plays", "flute", True),
        ("Two flutes.", "flute", True),
        ("a string", "strings", True),
        ("car batteries", "battery", True),
        ("crashes", "crash", True),
        ("basso continuo", "bass", False),
        ("a brassy tone", "brass", False),
        ("the bass-drum", "bass", True),
        ("an electric  guitar", "electric_guitar", True),
        ("an electric organ and a guitar", "electric guitar", False),
        ("c++ (loud)", "c++", True),
        ("", "flute", False),
    ],
)
def test_a_label_is_found_as_whole_words(caption: str, label: str, named: bool) -> None:
    assert names_label(caption, label, [label]) is named


def test_a_caption_of_several_families_names_none() -> None:
    families = ["flute", "organ", "bass", "bass drum"]
    assert names_label("a flute plays", "flute", families)
    assert not names_label("a flute, an organ and a bass", "flute", families)
    assert named_labels("Flutes and flutes", families) == {"flute"}
    # The longer label is what is named, unless the shorter one stands by itself as well.
    assert named_labels("a loud bass-drum", families) == {"bass drum"}
    assert not names_label("a loud bass drum", "bass", families)
    assert named_labels("bass and bass drum", families) == {"bass", "bass drum"}


def test_chance_is_what_the_captions_of_other_clips_name() -> None:
    captions = ["a flute", "a flute", "a flute", "an organ", "a flute and an organ"]
    wanted = ["flute", "flute", "organ", "organ", "flute"]
    right, accidents = naming(captions, wanted, ["bass"])
    np.testing.assert_array_equal(right, [1, 1, 0, 1, 0])
    # Three captions name a flute and one an organ; a clip's own does not count.
    np.testing.assert_allclose(accidents, [2 / 4, 2 / 4, 1 / 4, 0, 3 / 4])


def test_captions_that_are_all_the_same_are_no_better_than_chance() -> None:
    wanted = ["flute", "organ", "bass", "flute"] * 10
    right, accidents = naming(["a flute plays"] * 40, wanted, [])
    assert right.mean() == pytest.approx(accidents.mean())


def test_one_clip_has_no_chance_and_no_empty_label_is_looked_for() -> None:
    right, accidents = naming(["a flute"], ["flute"], ["flute", "organ"])
    assert right.tolist() == [1.0]
    assert np.isnan(accidents).all()
    with pytest.raises(MintError, match="label is empty"):
        names_label("a flute", " ", ["flute"])
