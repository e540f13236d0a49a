"""The sizes of the paper's models and corpora (section 3), for what is computed and what is measured at its scale.

Weights are random: speed and memory do not depend on them. Configurations are those of the published checkpoints,
written out so that nothing is fetched.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, Data2VecAudioConfig, T5Config

from mint.training.dry_run.estimate import BridgeSizes, LanguageSizes, Shapes

BERT_VOCABULARY = 30522
BRIDGE: dict[str, Any] = {
    "vocab_size": BERT_VOCABULARY + 1,
    "width": 768,
    "num_layers": 12,
    "num_heads": 12,
    "intermediate": 3072,
    "max_positions": 512,
    "audio_width": 768,
    "num_queries": 32,
    "cross_attention_every": 2,
    "dropout": 0.1,
}
"""BERT-base, 12 blocks, 32 queries of 768 (section 3.2)."""
BATCH, SECONDS, TEXT = 64, 10, 30
FRAMES = 499
"""Of data2vec in 10 s: one each 20 ms, the first of 25 ms."""
PROMPT, ANSWER = 12, 30
"""Tokens of the longest prompt of Table 1, and of the longest answers, in T5's tokens."""
WAVCAPS, ALL_CLIPS = 403_050, 3_000_000
"""Clips of WavCaps, and the audio-language pairs that the paper has in all (section 3.1)."""
EPOCHS, RANKS = 10, 8


def data2vec_base() -> Data2VecAudioConfig:
    """The configuration of facebook/data2vec-audio-base, which is the default one."""
    return Data2VecAudioConfig(num_conv_pos_embeddings=5, conv_pos_kernel_size=19)


def flan_t5_xl() -> T5Config:
    """The configuration of google/flan-t5-xl."""
    sizes: dict[str, Any] = {
        "vocab_size": 32128,
        "d_model": 2048,
        "d_kv": 64,
        "d_ff": 5120,
        "num_layers": 24,
        "num_heads": 32,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "decoder_start_token_id": 0,
    }
    return T5Config(**sizes)


def t5(config: T5Config, dtype: torch.dtype = torch.float32) -> Any:
    """A T5 of a configuration, its head apart from its embeddings, as the checkpoints of FlanT5 have it."""
    auto: Any = AutoModelForSeq2SeqLM
    model = auto.from_config(config, dtype=dtype)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    return model


def shapes(batch: int = BATCH, frames: int = FRAMES, ranks: int = 1) -> Shapes:
    """A batch at the paper's lengths of text."""
    return Shapes(batch, frames, TEXT, prompt=PROMPT, answer=ANSWER, ranks=ranks)


def bridge_sizes() -> BridgeSizes:
    """Of Bridge-Net."""
    return BridgeSizes.of(BRIDGE)


def language_sizes() -> LanguageSizes:
    """Of FlanT5-XL."""
    return LanguageSizes.of(flan_t5_xl())
