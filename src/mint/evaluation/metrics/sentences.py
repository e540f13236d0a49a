"""Sentence similarity of captions: the mean cosine of a caption with its references in a sentence encoder's space.

The form is that of FENSE's first term (Zhou et al. 2022), and its number is not FENSE's: the encoder is
all-MiniLM-L6-v2, which lies among the offline assets, not paraphrase-TinyBERT-L6-v2, and nothing is taken off for
sentences that are not fluent. The embedding is sentence-transformers': the mean over tokens, of length 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mint.assets.pretrained import load_pretrained, load_weights_of
from mint.assets.store import fetched_folder

if TYPE_CHECKING:
    from mint.evaluation.metrics.classification import Floats

ASSET = "minilm"
NOT_FETCHED = "the sentence encoder is not here; `mint assets fetch minilm`"
MAX_TOKENS = 256
"""The longest text that the encoder reads, as it was trained."""
BATCH = 64


def missing() -> str | None:
    """Return why it cannot be computed on this machine, or None."""
    return None if fetched_folder(ASSET).is_dir() else NOT_FETCHED


def sentence_similarity(generated: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
    """Return the mean cosine of each generated caption with its references [N].

    Raises:
        MintError: the encoder cannot be loaded.
    """
    folder = str(fetched_folder(ASSET))
    tokenizer = load_pretrained("AutoTokenizer", folder, None)
    model = load_weights_of("BertModel", folder, None, add_pooling_layer=False).eval()

    # Each text is embedded once, however often it stands among the captions.
    row_of_text: dict[str, int] = {}
    for text in generated:
        row_of_text.setdefault(text, len(row_of_text))
    for several in references:
        for text in several:
            row_of_text.setdefault(text, len(row_of_text))
    embedded = embed(model, tokenizer, list(row_of_text))  # [T, D]

    means = []
    for caption, several in zip(generated, references, strict=True):
        targets = embedded[[row_of_text[text] for text in several]]  # [R, D]
        means.append(float(targets.mean(dim=0) @ embedded[row_of_text[caption]]))
    return np.array(means, dtype=np.float64)


@torch.no_grad()
def embed(model: Any, tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Return sentence embeddings [N, D], of length 1."""
    rows: list[Tensor] = []
    # Texts of like length together, so that padding is rare.
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    for first in range(0, len(order), BATCH):
        batch = tokenizer(
            [texts[row] for row in order[first : first + BATCH]],
            padding=True,
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        )
        hidden = model(**batch).last_hidden_state  # [B, L, D]
        real = batch["attention_mask"][..., None].to(hidden.dtype)  # [B, L, 1]
        rows.append(functional.normalize((hidden * real).sum(dim=1) / real.sum(dim=1), dim=-1))

    return torch.cat(rows)[torch.argsort(torch.tensor(order))]
