"""The options of generation: which of transformers' `generate` a caller may give, and in which range."""

from __future__ import annotations

import difflib
import math
import reprlib
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from mint.types import MintError

NEW_TOKENS = 40
"""Longest text, in tokens, unless an option says otherwise."""

COUNTS = {
    "num_beams": 1,
    "max_new_tokens": 1,
    "max_length": 1,
    "min_new_tokens": 0,
    "min_length": 0,
    "top_k": 0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
}
"""Whole numbers, with the smallest that makes sense."""

UP_TO_ONE = ("top_p", "typical_p")
"""Probability masses: above 0, at most 1."""

POSITIVE = ("temperature", "repetition_penalty", "encoder_repetition_penalty", "max_time")

SWITCHES = ("do_sample", "use_cache", "renormalize_logits", "remove_invalid_values")

PASSED_ON = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "cache_implementation",
    "early_stopping",
    "epsilon_cutoff",
    "eta_cutoff",
    "exponential_decay_length_penalty",
    "forced_eos_token_id",
    "length_penalty",
    "logits_processor",
    "min_p",
    "prefix_allowed_tokens_fn",
    "sequence_bias",
    "stopping_criteria",
    "streamer",
    "suppress_tokens",
    "top_h",
)
"""Options whose values transformers checks itself."""

ONE_TEXT: dict[str, Any] = {"num_return_sequences": 1, "return_dict_in_generate": False}
"""Options that would give several texts, or no text, for a clip, with the only value that does not."""

KNOWN = (*COUNTS, *UP_TO_ONE, *POSITIVE, *SWITCHES, *PASSED_ON)


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are given; None stands for an option that is not.

    Raises:
        MintError: an unknown option, or a value out of its range; the message names it.
    """
    # The options of a command line that nobody gave are None.
    given = {name: value for name, value in options.items() if value is not None}

    for name, value in given.items():
        shown = f"{name} is {reprlib.repr(value)}"
        if name in ONE_TEXT:
            # True equals 1, but it is another answer to "how many".
            if type(value) is not type(ONE_TEXT[name]) or value != ONE_TEXT[name]:
                raise MintError(f"{shown}, but each clip gets one text; leave it out, and call once for each text")
        elif name in COUNTS:
            if not _is_number(value, Integral) or value < COUNTS[name]:
                raise MintError(f"{shown}; give a whole number of at least {COUNTS[name]}")
        elif name in UP_TO_ONE:
            if not _is_number(value, Real) or not 0 < value <= 1:
                raise MintError(f"{shown}; give a number above 0 and at most 1")
        elif name in POSITIVE:
            if not _is_number(value, Real) or not 0 < value < math.inf:
                raise MintError(f"{shown}; give a number above 0")
        elif name in SWITCHES:
            if not isinstance(value, bool):
                raise MintError(f"{shown}; give True or False")
        elif name not in PASSED_ON:
            raise MintError(f"{name!r} is no option of generation; {_suggestion(name)}")

    return {name: value for name, value in given.items() if name not in ONE_TEXT}


def with_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options for `generate`: the likeliest tokens, 40 at most, unless they say otherwise."""
    defaults: dict[str, Any] = {"do_sample": False}
    # transformers ignores `max_length` beside `max_new_tokens`.
    if options.get("max_length") is None:
        defaults["max_new_tokens"] = NEW_TOKENS
    return {**defaults, **options}


def _is_number(value: Any, kind: type) -> bool:
    """Return whether a value is a number of a kind; truth values are none, though Python takes them for numbers."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _suggestion(name: str) -> str:
    """Return the option that was meant, or all that there are."""
    close = difflib.get_close_matches(name, KNOWN, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose among {', '.join(sorted(KNOWN))}"
