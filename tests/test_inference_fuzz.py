"""Any arguments of `Mint`: a result, or a MintError; nothing else is for a caller to see."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mint import Mint
from mint.types import Clip, MintError
from tiny_runs import train_both

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def mint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mint]:
    """A tiny model; the working directory holds its clips."""
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINT_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        patch.setattr("mint.hub.snapshot_download", refuse)
        for call in ("create_repo", "upload_folder"):
            patch.setattr(f"mint.hub.HfApi.{call}", refuse)
        run = train_both(folder, max_steps=2)
        Path("empty.wav").touch()
        Path("text.wav").write_text("no audio")
        yield Mint.from_pretrained(run, "cpu")


def refuse(*_: Any, **__: Any) -> None:
    raise OSError("the network is not there")


NOTHINGS = st.sampled_from(
    [None, True, False, 0, -1, 1.5, float("nan"), float("inf"), 10**400, b"low0.wav", object(), int, {}, [], (), set()]
)
TEXTS = st.sampled_from(["", " ", "low", "a low tone", "low0.wav", "\ud83d", "\x00", "caf\udce9", "x" * 3000, "日本"])
NUMBERS = st.sampled_from([0, 1, 2, -1, 3.5, True, None, "2", 10**30, float("nan"), float("inf"), 0.5, np.int64(2)])
ANYTHING = NOTHINGS | TEXTS | st.lists(TEXTS, max_size=2) | st.tuples(TEXTS, TEXTS)


@st.composite
def samples(draw: st.DrawFn) -> Any:
    """Arrays of any shape and type, good ones among them."""
    shape = draw(st.sampled_from([(400,), (2, 400), (400, 2), (), (0,), (0, 2), (2, 0), (1,), (1, 1), (2, 2, 2)]))
    kind = draw(st.sampled_from(["f4", "f8", "f2", "i2", "i4", "u1", "i8", "?", "c8", "U3", "O", "M8[s]"]))
    array = np.ones(shape, dtype=kind)
    return draw(
        st.sampled_from(
            [array, array.tolist(), torch.ones(shape), torch.ones(shape).bfloat16(), np.nan * np.ones(shape)]
        )
    )


RATES = st.sampled_from(
    [16000, 16000, 16000, 44100, 1, 0, -1, True, 16000.0, 1e14, 10**14, 10**30, "16000", None, float("nan")]
)
CLIPS = (
    st.sampled_from(["low0.wav", Path("high1.wav"), "low0.wav", "nowhere.wav", "empty.wav", "text.wav", ".", "run", ""])
    | st.tuples(samples(), RATES)
    | st.tuples(RATES, samples())
    | st.builds(Clip, samples(), RATES)
    | st.fixed_dictionaries({"array": samples(), "sampling_rate": RATES})
    | samples()
    | ANYTHING
)
AUDIO = CLIPS | st.lists(CLIPS, max_size=3)
LABELS = (
    st.sampled_from([["low", "high"], ("low",), np.array(["low", "high"]), {"low": 1}]) | st.lists(ANYTHING) | ANYTHING
)
NAMES = (
    *("num_beams", "max_new_tokens", "max_length", "min_length", "top_k", "top_p", "temperature", "do_sample", "seed"),
    *("num_return_sequences", "return_dict_in_generate", "early_stopping", "length_penalty", "bad_words_ids", "min_p"),
    *("logits_processor", "streamer", "prompt", "batch_size", "inputs_embeds", "stopping_criteria", "num_beans", ""),
)
OPTIONS = st.dictionaries(
    st.sampled_from(NAMES),
    NUMBERS | ANYTHING,
    max_size=3,
)
PROMPTS = st.sampled_from(["The pitch is", "The pitch is"]) | ANYTHING
METHODS = st.sampled_from(["auto", "vocabulary", "similarity"]) | ANYTHING
SCORINGS = st.sampled_from(["sum", "sum", "mean", "prior"]) | ANYTHING

CALLS = st.one_of(
    st.tuples(st.just("caption"), st.tuples(AUDIO), OPTIONS),
    st.tuples(st.just("ask"), st.tuples(AUDIO, PROMPTS), OPTIONS.filter(lambda options: "prompt" not in options)),
    st.tuples(st.just("classify"), st.tuples(AUDIO, LABELS, PROMPTS | st.none(), METHODS, SCORINGS), st.just({})),
    st.tuples(st.just("embed_audio"), st.tuples(AUDIO), st.just({})),
    st.tuples(st.just("embed_text"), st.tuples(LABELS), st.just({})),
    st.tuples(st.just("search"), st.tuples(PROMPTS, AUDIO), st.just({})),
    st.tuples(
        st.just("to"), st.tuples(st.sampled_from(["cpu", "cpu:0", "cuda:99", "gpu", "meta"]) | ANYTHING), st.just({})
    ),
    st.tuples(st.just("from_pretrained"), st.tuples(CLIPS, st.sampled_from(["cpu"]) | ANYTHING), st.just({})),
    st.tuples(st.just("save_pretrained"), st.tuples(CLIPS), st.just({})),
    st.tuples(st.just("push_to_hub"), st.tuples(ANYTHING), st.just({})),
)
"""A method, its arguments and its options."""


def check(mint: Mint, call: tuple[str, tuple[Any, ...], dict[str, Any]]) -> None:
    """Call a method and look at the form of its result."""
    name, arguments, options = call
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = getattr(mint, name)(*arguments, **options)
        except MintError:
            return
    many = isinstance(arguments[0], list)
    if name in ("caption", "ask"):
        assert all(isinstance(text, str) for text in (result if many else [result]))
    elif name == "classify":
        rows = result if many else [result]
        assert len({len(row) for row in rows}) == 1
        assert all(isinstance(score, float) for row in rows for score in row.values())
    elif name in ("embed_audio", "embed_text"):
        torch.testing.assert_close(result.norm(dim=-1), torch.ones(result.shape[:-1]))
    elif name == "search":
        assert sorted(index for index, _ in result) == list(range(len(result)))


COMMON: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


@settings(max_examples=60, derandomize=True, **COMMON)
@given(call=CALLS)
def test_any_arguments(mint: Mint, call: Any) -> None:
    check(mint, call)


@pytest.mark.slow
@settings(max_examples=2000, **COMMON)
@given(call=CALLS)
def test_two_thousand_calls(mint: Mint, call: Any) -> None:
    check(mint, call)
