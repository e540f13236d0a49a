"""Values as people and spreadsheets write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mint.data.corpora.values import caption, captions, check_texts, choice, number, seconds, truth
from mint.types import Example, MintError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(text, True) for text in ("True", "TRUE", "true", "1", "1.0", "yes", "Y", " t ")],
        *[(text, False) for text in ("False", "FALSE", "0", "0.0", "no", "N", "f")],
    ],
)
def test_true_and_false_as_spreadsheets_write_them(text: str, value: bool) -> None:
    assert truth({"x": text}, "x") is value


@pytest.mark.parametrize("text", ["", "2", "maybe", "WAHR", "TrueFalse", "-1", "NaN"])
def test_anything_else_is_neither(text: str) -> None:
    with pytest.raises(MintError, match=f"x is {text!r}; it must be True or False"):
        truth({"x": text}, "x")


@pytest.mark.parametrize("text", ["", " a bell", "nan", "inf", "1e999", "0x10", "1,5"])
def test_what_is_no_number(text: str) -> None:
    for read in (number, seconds):
        with pytest.raises(MintError, match=r"x is .*; it must be a number"):
            read({"x": text}, "x")


def test_numbers_and_seconds() -> None:
    assert number({"x": " -2.5 "}, "x") == -2.5
    assert seconds({"x": "30.000"}, "x") == 30
    with pytest.raises(MintError, match="x is '-1'; it must be 0 or more seconds"):
        seconds({"x": "-1"}, "x")


def test_a_choice() -> None:
    assert choice({"x": " 1"}, "x", {"1": "train"}) == "train"
    with pytest.raises(MintError, match="x is '6'; it must be one of 1, 2"):
        choice({"x": "6"}, "x", {"1": "train", "2": "test"})


@pytest.mark.parametrize("text", [None, "", " \n", ".", "...", "-"])
def test_no_caption(text: object) -> None:
    with pytest.raises(MintError, match="it has no caption"):
        caption(text)


def test_captions() -> None:
    assert caption(" A dog\r\nbarks\u2028twice. ") == "A dog barks twice."
    assert caption("犬が吠える") == "犬が吠える"
    assert captions(["one", " ", None, "two\nlines", 3, "."]) == ("one", "two lines")
    for texts in ([], [""], [None, 1]):
        with pytest.raises(MintError, match="it has no caption"):
            captions(texts)
    with pytest.raises(MintError, match="its caption is 5; it must be a text"):
        caption(5)


def example(**texts: object) -> Example:
    return Example(id="a\ud83d", audio=Path("b\udce9.wav"), task="t", split="train", corpus="c", **texts)  # type: ignore[arg-type]


def test_half_a_character_is_refused_in_texts_but_not_in_names() -> None:
    check_texts(example(answer="😀 très", captions=("x",)))
    for texts in ({"answer": "\ud83d"}, {"labels": ("ok", "x\ude00")}, {"captions": ("half \ud83d",)}):
        with pytest.raises(MintError, match=r"a text holds half a character \(U\+D"):
            check_texts(example(**texts))
