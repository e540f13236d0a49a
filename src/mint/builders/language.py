"""The frozen language model from a recipe. Imports are late, so that parts load alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from mint.assets import resolve
from mint.assets.pretrained import auto_class, check_kind, identify, load_pretrained, load_weights_of, loading
from mint.builders.bridge import TINY
from mint.config import LanguageConfig
from mint.model.freeze import freeze
from mint.types import LanguageModel


@loading()
def build_language(
    config: LanguageConfig, device: torch.device | str = "cpu", weightless: bool = False
) -> LanguageModel:
    """The frozen language model, on its device.

    Args:
        config: its recipe.
        device: where it runs.
        weightless: one of transformers lies on the meta device: it has sizes and a tokenizer, and computes nothing.
    """
    from mint.language.causal import CausalLanguageModel
    from mint.language.seq2seq import Seq2SeqLanguageModel

    model: Any
    tokenizer: Any
    if config.family == TINY:
        from mint.language.tiny import tiny_language

        model, tokenizer = tiny_language()
        identity = "tiny: two random Llama blocks, seed 0"
    else:
        model, tokenizer, identity = _transformers_language(config, weightless)
    freeze(model)
    weightless = weightless and config.family != TINY
    if config.shard and not weightless:
        from mint.language.shard import shard_blocks
        from mint.model.gather import world_size

        shard_blocks(model, device, world_size())
    if not weightless:
        model.to(device)
    if config.family == "seq2seq":
        return Seq2SeqLanguageModel(model, tokenizer, identity=identity)
    return CausalLanguageModel(
        model, tokenizer, identity=identity, answer_end=config.answer_end, chat_template=config.chat_template
    )


def _transformers_language(config: LanguageConfig, weightless: bool) -> tuple[Any, Any, str]:
    """Model, tokenizer and identity."""
    from mint.language import causal, seq2seq

    original = source = resolve(config.weights)
    if list(Path(source).glob("*.gguf")):
        from mint.language.gguf import converted

        source = str(converted(Path(source)))
    kind = "AutoModelForSeq2SeqLM" if config.family == "seq2seq" else "AutoModelForCausalLM"
    adapter: Any = seq2seq if config.family == "seq2seq" else causal
    sizes, dtype = load_pretrained("AutoConfig", source, config.revision), getattr(torch, config.dtype)
    check_kind(sizes, adapter.MODELS, adapter.READER)
    tokenizer = load_pretrained("AutoTokenizer", source, config.revision)
    if weightless:
        with torch.device("meta"):
            model = auto_class(kind).from_config(sizes, dtype=dtype)
            if config.family == "seq2seq" and not getattr(sizes, "scale_decoder_outputs", False):
                # Of FlanT5 and mT5 the head is a matrix of its own; only T5's first checkpoints lack it.
                model.lm_head.weight = nn.Parameter(torch.empty_like(model.lm_head.weight))
        return model, tokenizer, f"{original} without its weights"
    model = load_weights_of(kind, source, config.revision, dtype=dtype)
    identity = f"{config.weights}@local" if config.weights.startswith("asset:") else identify(original, config.revision)
    return model, tokenizer, identity if config.dtype == "float32" else f"{identity} in {config.dtype}"
