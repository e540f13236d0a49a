"""Sentence similarity: a mean of cosines that knows padding and order from nothing, and, slow, meaning from words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity
from transformers import BertConfig, BertModel

from mint.evaluation.metrics import sentences
from mint.language.tiny import tiny_bert_tokenizer
from mint.model.freeze import freeze

TEXTS = ["a dog barks", "rain", "a long sentence about a drum that is beaten twice", "a dog barks loudly"]


@pytest.fixture
def model() -> BertModel:
    torch.manual_seed(0)
    size: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    bert = BertModel(
        BertConfig(vocab_size=300, intermediate_size=64, initializer_range=0.3, **size), add_pooling_layer=False
    )
    freeze(bert)
    return bert


def test_an_embedding_is_the_mean_over_tokens_whatever_stands_beside_it(
    model: BertModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tiny_bert_tokenizer()
    together = sentences.embed(model, tokenizer, TEXTS)
    monkeypatch.setattr(sentences, "BATCH", 3)
    torch.testing.assert_close(sentences.embed(model, tokenizer, TEXTS), together, atol=1e-5, rtol=0)
    for row, text in enumerate(TEXTS):
        with torch.no_grad():
            mean = model(**tokenizer([text], return_tensors="pt")).last_hidden_state[0].mean(dim=0)
        torch.testing.assert_close(together[row], mean / mean.norm(), atol=1e-5, rtol=0)


def test_similarity_is_the_mean_cosine_with_the_references(model: BertModel, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny_bert_tokenizer()
    monkeypatch.setattr(sentences, "load_pretrained", lambda *_: tokenizer)
    monkeypatch.setattr(sentences, "load_weights_of", lambda *_, **__: model)
    references = [[TEXTS[0], TEXTS[3]], [TEXTS[2]]]
    found = sentences.sentence_similarity([TEXTS[3], TEXTS[1]], references)
    embedded = dict(zip(TEXTS, sentences.embed(model, tokenizer, TEXTS), strict=True))
    for value, caption, several in zip(found, (TEXTS[3], TEXTS[1]), references, strict=True):
        cosines = [float(cosine_similarity(embedded[caption], embedded[text], dim=0)) for text in several]
        assert value == pytest.approx(sum(cosines) / len(cosines), abs=1e-5)


def test_without_the_encoder_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINT_CACHE", str(tmp_path))
    assert sentences.missing() == "the sentence encoder is not here; `mint assets fetch minilm`"


@pytest.mark.slow
def test_the_genuine_encoder_tells_meanings_apart() -> None:
    assert sentences.missing() is None
    same, other = sentences.sentence_similarity(
        ["A dog is barking.", "A dog is barking."], [["A hound barks."], ["Rain falls on a tin roof."]]
    )
    assert same > 0.7 > 0.4 > other
