"""Padded batches of drawn items, for both stages.

Captions and instructions are cut to the recipe's length (paper, section 3.2: 30 tokens) and padded to the longest of
the batch, not to the limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mint.types import LanguageModel


def pad_features(features: Sequence[Tensor]) -> dict[str, Tensor]:
    """Pad clips [T, D] of several lengths: `audio_features` [B, T, D], `audio_mask` [B, T]."""
    lengths = torch.tensor(list(map(len, features)))  # [B]
    padded = pad_sequence(list(features), batch_first=True)  # [B, T, D]
    return {"audio_features": padded, "audio_mask": torch.arange(padded.shape[1]) < lengths[:, None]}


def tokenize(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> tuple[Tensor, Tensor]:
    """Return texts in Bridge-Net's tokens: ids [B, L] with [CLS] first, and mask [B, L] bool."""
    encoded = tokenizer(list(texts), padding=True, truncation=True, max_length=max_tokens, return_tensors="pt")
    return encoded["input_ids"], encoded["attention_mask"].bool()


class Stage1Collator:
    """Makes batches of clips and captions.

    Args:
        tokenizer: Bridge-Net's tokenizer.
        max_tokens: longest caption, in tokens.
    """

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Return the arguments of `Stage1.forward` for drawn items."""
        columns = _columns(items)
        ids, mask = tokenize(self.tokenizer, columns["answer"], self.max_tokens)  # [B, L]
        return {
            **pad_features(columns["features"]),
            "text_ids": ids,
            "text_mask": mask,
            "draws": torch.tensor(columns["draw"]),  # [B]
        }


class Stage2Collator:
    """Makes batches of clips, instructions and answers.

    Args:
        tokenizer: Bridge-Net's tokenizer.
        max_tokens: longest instruction for Bridge-Net, in tokens.
        language: the frozen language model, which makes its own tokens.
    """

    def __init__(self, tokenizer: Any, max_tokens: int, language: LanguageModel) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.language = language

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the weights of the language model: a worker that is not forked needs its tokenizer alone."""
        language = copy(self.language)
        for name, value in vars(self.language).items():
            if isinstance(value, nn.Module):
                delattr(language, name)
        return {**vars(self), "language": language}

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Return the arguments of `Stage2.forward` for drawn items."""
        columns = _columns(items)
        ids, mask = tokenize(self.tokenizer, columns["prompt"], self.max_tokens)  # [B, L]
        return {
            **pad_features(columns["features"]),
            "instruction_ids": ids,
            "instruction_mask": mask,
            **self.language.collate(columns["prompt"], columns["answer"]),
        }


def _columns(items: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the values of drawn items by key, each a list [B]."""
    columns: dict[str, list[Any]] = {}
    for key in items[0]:
        columns[key] = [item[key] for item in items]
    return columns
