"""Tiny frozen language models with random weights, and tokenizers built on the spot."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MT5Config,
    MT5ForConditionalGeneration,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    T5Config,
    T5ForConditionalGeneration,
)

from mint.language.causal import CausalLanguageModel
from mint.language.seq2seq import Seq2SeqLanguageModel
from mint.model.freeze import freeze
from tiny_models import randomise

FAMILIES = ("llama", "qwen2", "gpt2", "opt")
SENTENCES = (
    "This is a sound of a dog barking in the rain.",
    "Generate audio caption: a cat sings and a bird answers",
    "The genre of this music is rock, jazz or drum and bass",
    "Identify the instruments in this segment of music: guitar, bass guitar, piano",
)


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
    """A frozen causal language model with random weights over a tiny tokenizer; `family` is a `model_type`."""
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
    if family in configs:
        config = configs[family]()  # type: ignore[no-untyped-call]
    else:
        config = AutoConfig.for_model(family, **{**common, **sizes, "intermediate_size": 48, "num_key_value_heads": 4})
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    randomise(model, seed)
    freeze(model)
    return CausalLanguageModel(model, tokenizer, identity=f"tiny {family}")


def tiny_seq2seq(kind: str = "t5", seed: int = 0) -> Seq2SeqLanguageModel:
    """A frozen T5 of width 32 with random weights; its dropout is on in the configuration."""
    tokenizer = piece_tokenizer(SENTENCES)
    common: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 16,
        "dropout_rate": 0.5,
        "decoder_start_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    models = {
        "t5": lambda: T5ForConditionalGeneration(T5Config(**common)),
        "flan": lambda: T5ForConditionalGeneration(
            T5Config(**{**common, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False})
        ),
        "mt5": lambda: MT5ForConditionalGeneration(MT5Config(**common)),
    }
    model: Any = models[kind]()  # type: ignore[no-untyped-call]
    if kind == "flan":  # its checkpoints have a head apart
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    randomise(model, seed)
    freeze(model)
    return Seq2SeqLanguageModel(model, tokenizer, identity=f"tiny {kind}")
