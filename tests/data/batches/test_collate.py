"""Draws to padded batches."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from mint.builders.language import build_language
from mint.config import LanguageConfig
from mint.data.batches.collate import Stage1Collator, Stage2Collator, pad_features, tokenize
from mint.language.tiny import tiny_bert_tokenizer

TOKENIZER = tiny_bert_tokenizer()


def drawn() -> list[dict[str, Any]]:
    """Three draws with clips of 2, 5 and 1 frames."""
    answers = ["a dog", "rain on a roof", "é"]
    return [
        {
            "features": torch.full((frames, 3), float(frames)),
            "prompt": f"Say {frames}:",
            "answer": answer,
            "draw": frames,
        }
        for frames, answer in zip((2, 5, 1), answers, strict=True)
    ]


def texts(ids: Tensor, mask: Tensor) -> list[str]:
    """Return the text of the tokens under the mask."""
    return [str(TOKENIZER.decode(row[real])) for row, real in zip(ids, mask, strict=True)]


def test_clips_are_padded_to_the_longest() -> None:
    batch = pad_features([item["features"] for item in drawn()])
    features, mask = batch["audio_features"], batch["audio_mask"]
    assert features.shape == (3, 5, 3)
    assert mask.tolist() == [[True] * 2 + [False] * 3, [True] * 5, [True] + [False] * 4]
    for row, frames in zip(range(3), (2, 5, 1), strict=True):
        assert (features[row][mask[row]] == frames).all()
        assert (features[row][~mask[row]] == 0).all()


def test_texts_are_padded_to_the_longest_of_the_batch() -> None:
    ids, mask = tokenize(TOKENIZER, ["ab", "abcd"], max_tokens=30)
    assert ids.shape == mask.shape == (2, 6)
    assert mask.dtype == torch.bool
    assert texts(ids, mask) == ["[CLS]ab[SEP]", "[CLS]abcd[SEP]"]


def test_texts_are_cut_to_the_limit() -> None:
    ids, mask = tokenize(TOKENIZER, ["abcdef", "abc"], max_tokens=5)
    assert texts(ids, mask) == ["[CLS]abc[SEP]"] * 2


def test_stage_1() -> None:
    batch = Stage1Collator(TOKENIZER, max_tokens=30)(drawn())
    assert batch.keys() == {"audio_features", "audio_mask", "text_ids", "text_mask", "draws"}
    assert texts(batch["text_ids"], batch["text_mask"]) == [
        "[CLS]a dog[SEP]",
        "[CLS]rain on a roof[SEP]",
        "[CLS]é[SEP]",
    ]
    assert batch["draws"].tolist() == [2, 5, 1]
    assert batch["draws"].dtype == torch.int64


def test_the_number_of_a_draw_may_be_large() -> None:
    assert Stage1Collator(TOKENIZER, 30)([{**drawn()[0], "draw": (1 << 62) - 1}])["draws"].item() == (1 << 62) - 1


def test_stage_2() -> None:
    language = build_language(LanguageConfig(family="tiny"))
    batch = Stage2Collator(TOKENIZER, 6, language)(drawn())
    assert texts(batch["instruction_ids"], batch["instruction_mask"]) == ["[CLS]Say [SEP]"] * 3  # cut
    tokenizer = language.tokenizer  # type: ignore[attr-defined]
    spoken = [tokenizer.decode(row[row != -100]) for row in batch["labels"]]
    assert spoken == [" a dog<end>", " rain on a roof<end>", " é<end>"]
    whole = [tokenizer.decode(row[real]) for row, real in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)]
    assert whole == ["Say 2: a dog<end>", "Say 5: rain on a roof<end>", "Say 1: é<end>"]


@pytest.mark.parametrize("stage", [1, 2])
def test_a_copy_for_a_worker_that_is_not_forked(stage: int) -> None:
    """It makes the same batches and takes no weights along; the language model keeps its own."""
    language = build_language(LanguageConfig(family="tiny"))
    collator: Any = Stage1Collator(TOKENIZER, 30) if stage == 1 else Stage2Collator(TOKENIZER, 30, language)
    state = pickle.dumps(collator)
    assert b"torch.nn" not in state
    copied, own = pickle.loads(state)(drawn()), collator(drawn())
    assert copied.keys() == own.keys()
    assert all(torch.equal(copied[name], own[name]) for name in own)
    assert language.embedding.weight.numel() > 0


def test_a_batch_of_one() -> None:
    collator = Stage1Collator(TOKENIZER, 30)
    alone, together = collator(drawn()[:1]), collator(drawn())
    for name in ("audio_features", "text_ids"):
        length = alone[name].shape[1]
        assert torch.equal(alone[name][0], together[name][0, :length])
