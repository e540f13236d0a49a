"""Fixtures that several folders share; the models behind them are in `tiny_models.py` and `tiny_languages.py`."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import BertConfig, BertModel

from mint.language.tiny import tiny_bert_tokenizer
from tiny_languages import tiny_language
from tiny_models import tiny_bridge

if TYPE_CHECKING:
    from pathlib import Path

    from mint.language.causal import CausalLanguageModel
    from mint.model.bridge_net import BridgeNet


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Take Ctrl-C as it is usually taken: shells start jobs in the background with SIGINT ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def bridge() -> BridgeNet:
    """A tiny Bridge-Net."""
    return tiny_bridge()


@pytest.fixture(scope="session")
def language() -> CausalLanguageModel:
    """A tiny frozen language model."""
    return tiny_language()


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A BERT of two blocks on the disk."""
    torch.manual_seed(0)
    tokenizer = tiny_bert_tokenizer()
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
    }
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"
