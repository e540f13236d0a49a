"""Tiny models and batches that tests share: random weights large enough that outputs vary, no dropout, eval mode."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from mint.language.causal import CausalLanguageModel
from mint.model.bridge_net import BridgeNet
from mint.model.freeze import freeze

BRIDGE: dict[str, Any] = {
    "vocab_size": 40,
    "width": 16,
    "num_layers": 3,
    "num_heads": 4,
    "intermediate": 24,
    "max_positions": 12,
    "audio_width": 10,
    "num_queries": 3,
    "dropout": 0.0,
}
DEC = 39
"""The last token of the tiny bridge's vocabulary."""

FAMILIES = ("llama", "qwen2", "gpt2", "opt")
SENTENCES = (
    "This is a sound of a dog barking in the rain.",
    "Generate audio caption: a cat sings and a bird answers",
    "The genre of this music is rock, jazz or drum and bass",
    "Identify the instruments in this segment of music: guitar, bass guitar, piano",
)


def tiny_bridge(seed: int = 0, **sizes: Any) -> BridgeNet:
    """A Bridge-Net in eval mode; every weight is random, those of norms around 1."""
    bridge = BridgeNet(**{**BRIDGE, **sizes})
    randomise(bridge, seed)
    return bridge.eval()


@torch.no_grad()
def randomise(module: nn.Module, seed: int = 0, std: float = 0.3) -> None:
    """Give every parameter random values, biases too."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator) * std
        parameter.copy_(noise + 1 if "norm" in name.lower() and name.endswith("weight") else noise)


def tiny_batch(
    batch: int = 4, frames: int = 7, tokens: int = 6, seed: int = 0, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """The arguments of `Stage1.forward`: clips and texts of several lengths, one of each at full length."""
    generator = torch.Generator().manual_seed(seed)
    frame_counts = torch.randint(1, frames + 1, (batch,), generator=generator)
    token_counts = torch.randint(2, tokens + 1, (batch,), generator=generator)
    frame_counts[0], token_counts[-1] = frames, tokens
    text_mask = torch.arange(tokens) < token_counts[:, None]
    ids = torch.randint(2, DEC, (batch, tokens), generator=generator)
    ids[:, 0] = 1
    return {
        "audio_features": torch.randn(batch, frames, BRIDGE["audio_width"], generator=generator).to(dtype),
        "audio_mask": torch.arange(frames) < frame_counts[:, None],
        "text_ids": ids.masked_fill(~text_mask, 0),
        "text_mask": text_mask,
        "draws": torch.randint(0, 1 << 62, (batch,), generator=generator),
    }


def present(tensor: Tensor | None) -> Tensor:
    """A tensor that must be there."""
    assert tensor is not None
    return tensor


def byte_tokenizer(texts: tuple[str, ...] = SENTENCES) -> PreTrainedTokenizerFast:
    """Byte-level BPE as GPT-2, Qwen, OPT and SmolLM have it: a space belongs to the word after it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|end|>", "<|pad|>"]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=special[0], pad_token=special[1])  # type: ignore[no-untyped-call]


def piece_tokenizer(texts: tuple[str, ...] = SENTENCES) -> PreTrainedTokenizerFast:
    """SentencePiece's way, as Llama 2 has it: every text starts with a space of its own."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    special = ["</s>", "<pad>", "<unk>"]
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=special[0], pad_token=special[1])  # type: ignore[no-untyped-call]


def tiny_language(family: str = "llama", seed: int = 0, tokenizer: Any = None) -> CausalLanguageModel:
    """A frozen causal language model with random weights over a tiny tokenizer."""
    tokenizer = tokenizer or byte_tokenizer()
    common: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    configs = {
        "llama": lambda: LlamaConfig(**common, **sizes, intermediate_size=48, num_key_value_heads=2),
        "qwen2": lambda: Qwen2Config(**common, **sizes, intermediate_size=48, num_key_value_heads=2),
        "gpt2": lambda: GPT2Config(**common, n_embd=32, n_layer=2, n_head=4, n_positions=256),
        "opt": lambda: OPTConfig(
            **common,
            **sizes,
            ffn_dim=48,
            max_position_embeddings=256,
            word_embed_proj_dim=20,  # as OPT-350M: the embeddings are narrower than the blocks
        ),
    }
    model = AutoModelForCausalLM.from_config(configs[family]())  # type: ignore[no-untyped-call]
    randomise(model, seed)
    freeze(model)
    return CausalLanguageModel(model, tokenizer, identity=f"tiny {family}")
