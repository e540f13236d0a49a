"""What a person may choose about an evaluation: contradictions are refused, and what was chosen is written down."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from mint.evaluation.settings import Decoding, Settings, describe_decoding, describe_settings
from mint.types import MintError


@pytest.mark.parametrize(
    ("given", "record", "words"),
    [
        ({}, {"strategy": "greedy", "max_tokens": 30}, "greedy decoding, 30 tokens at most"),
        (
            {"beams": 3, "max_tokens": 12},
            {"strategy": "beam", "beams": 3, "max_tokens": 12},
            "beam search with 3 beams, 12 tokens at most",
        ),
        (
            {"strategy": "beam"},
            {"strategy": "beam", "beams": 5, "max_tokens": 30},
            "beam search with 5 beams, 30 tokens at most",
        ),
        (
            {"temperature": 0.5},
            {"strategy": "nucleus", "top_p": 0.9, "temperature": 0.5, "seed": 0, "max_tokens": 30},
            "nucleus sampling with top-p 0.9, temperature 0.5, seed 0, 30 tokens at most",
        ),
    ],
)
def test_a_record_holds_what_is_used_and_nothing_else(given: Any, record: Any, words: str) -> None:
    assert Decoding(**given).record() == record
    assert describe_decoding(record) == words
    assert Decoding(**record) == Decoding(**given)


def test_options_are_those_of_transformers() -> None:
    assert Decoding().options() == {"max_new_tokens": 30, "do_sample": False}
    assert Decoding(beams=4).options() == {"max_new_tokens": 30, "do_sample": False, "num_beams": 4}
    assert Decoding(top_p=0.5, seed=7).options() == {
        **{"max_new_tokens": 30, "do_sample": True, "top_p": 0.5, "temperature": 1.0},
        **{"top_k": 0, "seed": 7},  # 0: all tokens stand for choice, where transformers takes 50
    }


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"strategy": "best"}, "decoding is 'best'; choose one of greedy, beam, nucleus"),
        ({"strategy": "greedy", "beams": 2}, "beams belongs to beam decoding, not to greedy"),
        ({"beams": 2, "top_p": 0.5}, "top_p belongs to nucleus decoding, not to beam"),
        ({"top_p": 0.0}, "top_p is 0.0; give a number above 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"temperature": float("nan")}, "temperature is nan; give a number above 0"),
        ({"beams": 0}, "beams 0; both must be at least 1"),
        ({"max_tokens": 0}, "max_tokens is 0"),
    ],
)
def test_contradictions_are_refused(given: Any, error: str) -> None:
    with pytest.raises(MintError, match=error):
        Decoding(**given)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"templates": ("a sound",)}, "template 'a sound' has no {label} in it"),
        ({"captioned_clips": 0}, "0 clips cannot be measured"),
        ({"reranked": 9}, "reranked is 9; re-rank at least 10 items"),
    ],
)
def test_settings_that_measure_nothing_are_refused(given: Any, error: str) -> None:
    with pytest.raises(MintError, match=error):
        Settings(**given)


def test_texts_of_a_label() -> None:
    assert Settings().texts("This is a sound of", "rain") == ["This is a sound of rain"]
    assert Settings(templates=("{label}", "hear {label}!")).texts("This", "rain") == ["rain", "hear rain!"]


def test_only_what_is_not_usual_is_said() -> None:
    assert describe_settings(Settings().record()) == {"captions": "captions by greedy decoding, 30 tokens at most"}
    other = Settings("mean", ("a {label}", "the {label}"), Decoding("beam"))
    assert describe_settings(other.record()) == {
        "stage1": "labels compared as “a {label}”, “the {label}”",
        "stage2": "labels ranked by log-likelihood for each token",
        "captions": "captions by beam search with 5 beams, 30 tokens at most",
    }


def test_tables_need_no_torch() -> None:
    modules = "mint.evaluation.results.render, mint.evaluation.results.paper_tables"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
