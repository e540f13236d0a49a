"""A tiny frozen language model with random weights, and tokenizers of bytes, for tests; they have learnt nothing.

They need no file: a recipe with `language.family: tiny`, `bridge.weights: tiny` and `encoder.family: tiny` runs
anywhere in seconds, from training to use.
"""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TINY_BERT: dict[str, Any] = {
    "width": 32,
    "num_heads": 4,
    "intermediate": 64,
    "max_positions": 128,
    "layer_norm_eps": 1e-12,
}
"""What Bridge-Net takes from a BERT's configuration, for `bridge.weights: tiny`."""

TINY_CHAT = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '<end>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
"""A chat template of the usual kind."""


def tiny_language() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Return two Llama blocks of width 32 over bytes, the same on every call, and their tokenizer."""
    tokenizer = byte_tokenizer(["<end>", "<pad>"], eos_token="<end>", pad_token="<pad>")
    tokenizer.chat_template = TINY_CHAT

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.3,  # at the usual 0.02 every soft prompt would give much the same answer
    )

    # The seed of the weights leaves the caller's random numbers alone.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config), tokenizer


def tiny_bert_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes between [CLS] and [SEP], as Bridge-Net reads text."""
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = byte_tokenizer(list(special.values()), **special)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, tokenizer.convert_tokens_to_ids(name)) for name in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def byte_tokenizer(special: list[str], **roles: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token for each byte, after the special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*special, *alphabet])}

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)  # type: ignore[no-untyped-call]
