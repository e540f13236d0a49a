"""Options of generation: which are taken, which are refused by name, and what stands for those that are not given."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mint.language.options import KNOWN, check_options, with_defaults
from mint.types import MintError
from tiny_languages import tiny_language, tiny_seq2seq


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 0}, "num_beams is 0; give a whole number of at least 1"),
        ({"num_beams": 2.0}, "num_beams is 2.0; give a whole number"),
        ({"num_beams": True}, "num_beams is True; give a whole number"),
        ({"max_new_tokens": "5"}, "max_new_tokens is '5'; give a whole number"),
        ({"max_length": -1}, "max_length is -1; give a whole number of at least 1"),
        ({"top_k": -1}, "top_k is -1; give a whole number of at least 0"),
        ({"top_p": 1.5}, "top_p is 1.5; give a number above 0 and at most 1"),
        ({"top_p": math.nan}, "top_p is nan; give a number above 0 and at most 1"),
        ({"temperature": 0}, "temperature is 0; give a number above 0"),
        ({"temperature": "hot"}, "temperature is 'hot'; give a number above 0"),
        ({"do_sample": "yes"}, "do_sample is 'yes'; give True or False"),
        ({"num_return_sequences": 2}, "num_return_sequences is 2, but each clip gets one text"),
        ({"return_dict_in_generate": True}, "return_dict_in_generate is True, but each clip gets one text"),
        ({"num_beans": 3}, "'num_beans' is no option of generation; did you mean 'num_beams'"),
        ({"inputs_embeds": 3}, "'inputs_embeds' is no option of generation; choose among bad_words_ids"),
    ],
)
def test_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MintError) as refused:
        check_options(options)
    assert str(refused.value).startswith(message)


def test_none_and_the_only_value_of_what_gives_several_texts_stand_for_nothing() -> None:
    given = {
        "num_beams": 3,
        "top_k": 0,
        "max_length": None,
        "num_return_sequences": 1,
        "return_dict_in_generate": False,
    }
    assert check_options(given) == {"num_beams": 3, "top_k": 0}


def test_every_known_option_is_one_of_transformers() -> None:
    from inspect import signature

    from transformers import GenerationConfig, GenerationMixin

    config: Any = GenerationConfig
    theirs = {*vars(config()), *signature(GenerationMixin.generate).parameters}
    assert set(KNOWN) <= theirs


def test_max_length_takes_the_place_of_the_default_length() -> None:
    assert with_defaults({}) == {"do_sample": False, "max_new_tokens": 40}
    assert with_defaults({"max_length": 50}) == {"do_sample": False, "max_length": 50}
    assert with_defaults({"max_length": 50, "max_new_tokens": 3}) == {
        "do_sample": False,
        "max_length": 50,
        "max_new_tokens": 3,
    }


def test_max_length_counts_soft_prompt_and_prompt_of_a_causal_model(recwarn: pytest.WarningsRecorder) -> None:
    language = tiny_language()
    soft_prompt = torch.randn(1, 4, language.width, generator=torch.Generator().manual_seed(0))
    prefix = 4 + len(language.prompt_tokens("It is"))
    short = language.generate(soft_prompt, ["It is"], max_length=prefix + 3)
    assert short == language.generate(soft_prompt, ["It is"], max_new_tokens=3)
    assert short != language.generate(soft_prompt, ["It is"])
    assert len(recwarn) == 0


def test_max_length_is_the_length_of_a_decoder_sequence() -> None:
    language = tiny_seq2seq()
    soft_prompt = torch.randn(1, 4, language.width, generator=torch.Generator().manual_seed(0))
    # transformers counts the start token of the decoder.
    short = language.generate(soft_prompt, ["It is"], max_length=4)
    assert short == language.generate(soft_prompt, ["It is"], max_new_tokens=3)
