"""ATG, audio-grounded text generation (paper, section 2.2; after BLIP-2's image-grounded loss).

The text starts at [DEC] in place of [CLS] and each token predicts the next one through Bridge-Net's own LM head. The
published code computes logits for padding too and ignores them in the loss; here only real tokens reach the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable


class LanguageHead(nn.Module):
    """BERT's masked-language-model head: dense, GELU, LayerNorm, then the word embeddings as decoder, and a bias."""

    def __init__(self, *, width: int, vocab_size: int, layer_norm_eps: float = 1e-12) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.bias = nn.Parameter(self.dense.weight.new_zeros(vocab_size))

    def forward(self, hidden: Tensor, word_embeddings: Tensor) -> Tensor:
        """Map hidden states [..., D] to logits [..., V]; the decoder is tied to the word embeddings [V, D]."""
        return functional.linear(self.norm(functional.gelu(self.dense(hidden))), word_embeddings, self.bias)


def decoder_input(ids: Tensor, dec_token: int) -> Tensor:
    """Replace [CLS] at the head of each text [B, L] by [DEC]."""
    # A copy: the same ids are read by ALC and ALM with [CLS] at their head.
    started = ids.clone()
    started[:, 0] = dec_token
    return started


def atg_loss(
    hidden: Tensor, ids: Tensor, mask: Tensor, head: Callable[[Tensor], Tensor], label_smoothing: float
) -> Tensor:
    """Return the mean cross-entropy of each real token after the first, given those before it.

    Args:
        hidden: [B, L, D] outputs of the causal pass.
        ids: [B, L], the text.
        mask: [B, L] bool, True: real.
        head: the language head, from hidden states [N, D] to logits [N, V].
        label_smoothing: share of the probability that is spread over the vocabulary; 0.1 in BLIP-2.
    """
    predicts = mask[:, 1:]  # [B, L - 1], True where the next token is real
    # Only real tokens go through the head: logits over the whole vocabulary are large.
    logits = head(hidden[:, :-1][predicts])  # [real tokens, V]
    return functional.cross_entropy(logits, ids[:, 1:][predicts], label_smoothing=label_smoothing)
