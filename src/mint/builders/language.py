"""The frozen language model of a recipe. Imports are late, so that each family loads alone."""

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
    """Build the frozen language model on its device.

    Args:
        config: the recipe's part for the language model.
        device: where it runs.
        weightless: a model of transformers is on the meta device: it has sizes and a tokenizer, but computes nothing.
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
    if not weightless:  # the meta device holds nothing that could be moved
        model.to(device)

    if config.family == "seq2seq":
        return Seq2SeqLanguageModel(model, tokenizer, identity=identity)
    return CausalLanguageModel(
        model,
        tokenizer,
        identity=identity,
        answer_end=config.answer_end,
        chat_template=config.chat_template,
        earlier_turn=config.earlier_turn,
    )


def _transformers_language(config: LanguageConfig, weightless: bool) -> tuple[Any, Any, str]:
    """Return model, tokenizer and identity of a model that transformers reads from a folder or hub name."""
    from mint.language import causal, seq2seq

    original = source = resolve(config.weights)
    # GGUF is read once, and kept as safetensors beside it.
    if list(Path(source).glob("*.gguf")):
        from mint.language.gguf import converted

        source = str(converted(Path(source)))

    kind = "AutoModelForSeq2SeqLM" if config.family == "seq2seq" else "AutoModelForCausalLM"
    adapter: Any = seq2seq if config.family == "seq2seq" else causal
    sizes = load_pretrained("AutoConfig", source, config.revision)
    check_kind(sizes, adapter.MODELS, adapter.READER)
    tokenizer = load_pretrained("AutoTokenizer", source, config.revision)
    dtype = getattr(torch, config.dtype)
    if weightless:
        with torch.device("meta"):
            model = auto_class(kind).from_config(sizes, dtype=dtype)
            if config.family == "seq2seq" and not getattr(sizes, "scale_decoder_outputs", False):
                # The heads of FlanT5 and mT5 are matrices of their own; only T5's first checkpoints tie them to the
                # embedding.
                model.lm_head.weight = nn.Parameter(torch.empty_like(model.lm_head.weight))
        return model, tokenizer, f"{original} without its weights"

    # An asset is pinned by its digest; other folders and names are identified by what is in them.
    model = load_weights_of(kind, source, config.revision, dtype=dtype)
    identity = f"{config.weights}@local" if config.weights.startswith("asset:") else identify(original, config.revision)
    return model, tokenizer, identity if config.dtype == "float32" else f"{identity} in {config.dtype}"
