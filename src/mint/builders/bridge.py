"""Bridge-Net from a recipe: its tokenizer, its sizes, and the weights that it starts from.

The paper starts from BERT-base (section 2.1). Here any BERT serves, and so do the Q-Formers of BLIP-2 and InstructBLIP,
in the forms in which transformers saves them. Other encoders of text are refused: RoBERTa counts its positions from 2,
DistilBERT and ELECTRA have other layers.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from mint.assets import resolve
from mint.assets.pretrained import check_kind, load_pretrained, load_tensors, load_with_rest, loading
from mint.config import BridgeConfig
from mint.model.bridge_net import BridgeNet
from mint.model.convert import LoadReport, load_bert, load_qformer
from mint.types import MintError

TINY = "tiny"
"""Family, or weights, of random models for tests."""
QFORMERS = ("blip-2", "instructblip")
"""Values of `model_type` of the checkpoints whose Q-Former Bridge-Net can start from."""
QFORMER_NAMES = r"(model\.)?(qformer\.|query_tokens$|embeddings\.)"
"""Beginnings of the names of its tensors there."""


@loading()
def build_tokenizer(config: BridgeConfig) -> Any:
    """Return Bridge-Net's tokenizer: the one that the recipe names, else that of the checkpoint it starts from.

    Raises:
        MintError: a checkpoint of BLIP-2 or InstructBLIP has no tokenizer of its Q-Former beside it.
    """
    if config.weights == TINY:
        from mint.language.tiny import tiny_bert_tokenizer

        return tiny_bert_tokenizer()
    if config.tokenizer is not None:
        return load_pretrained("AutoTokenizer", resolve(config.tokenizer), None)

    source = resolve(config.weights)
    if _start_config(config).model_type not in QFORMERS:
        return load_pretrained("AutoTokenizer", source, config.revision)

    # The tokenizer in the folder itself is that of the language model.
    try:
        return load_pretrained("AutoTokenizer", source, config.revision, subfolder="qformer_tokenizer")
    except MintError:
        raise MintError(
            f"{config.weights} has no tokenizer of its Q-Former (qformer_tokenizer/); name that of the BERT which it "
            "started from, such as bridge.tokenizer=google-bert/bert-base-uncased"
        ) from None


@loading()
def bridge_sizes(config: BridgeConfig, audio_width: int, vocab_size: int) -> dict[str, Any]:
    """Return the arguments of `BridgeNet`: the recipe's, and those of the configuration of its checkpoint.

    Args:
        config: the recipe's part for Bridge-Net.
        audio_width: width D of the frozen features.
        vocab_size: size of the tokenizer's vocabulary; [DEC] is added after it.

    Raises:
        MintError: the checkpoint is of another kind, or has other sizes than the recipe wants.
    """
    start = _start_sizes(config)
    if config.max_text_tokens > start["max_positions"]:
        raise MintError(
            f"bridge.max_text_tokens is {config.max_text_tokens}, but {config.weights} has "
            f"{start['max_positions']} positions; choose as many or fewer"
        )

    return {
        **start,
        "vocab_size": vocab_size + 1,  # and [DEC]
        "num_layers": config.num_layers,
        "audio_width": audio_width,
        "num_queries": config.num_queries,
        "cross_attention_every": config.cross_attention_every,
        "dropout": config.dropout,
    }


@loading()
def build_bridge(config: BridgeConfig, audio_width: int, vocab_size: int) -> tuple[BridgeNet, LoadReport]:
    """Build Bridge-Net from a checkpoint of BERT (paper, section 2.1) or of a Q-Former.

    Arguments and errors are those of `bridge_sizes`.

    Returns:
        Bridge-Net, and which of its tensors the checkpoint gave.
    """
    # All weights are drawn first, whichever are copied over: what stays new does not depend on the checkpoint.
    bridge = BridgeNet(**bridge_sizes(config, audio_width, vocab_size))
    if config.weights == TINY:
        return bridge, LoadReport(copied=(), new=tuple(bridge.state_dict()), left=())

    source = resolve(config.weights)
    if _start_config(config).model_type in QFORMERS:
        return bridge, load_qformer(bridge, load_tensors(source, config.revision, QFORMER_NAMES))

    # Without the pooler: Bridge-Net's text is read at [CLS] itself.
    bert, rest = load_with_rest("AutoModel", source, config.revision, dtype=torch.float32, add_pooling_layer=False)
    report = load_bert(bridge, bert.state_dict())
    return bridge, dataclasses.replace(report, left=(*report.left, *rest))


def _start_config(config: BridgeConfig) -> Any:
    """Return the configuration of the checkpoint that Bridge-Net starts from."""
    start = load_pretrained("AutoConfig", resolve(config.weights), config.revision)
    check_kind(start, ("bert", *QFORMERS), "bridge.weights")
    return start


def _start_sizes(config: BridgeConfig) -> dict[str, Any]:
    """Return the arguments of `BridgeNet` that the checkpoint decides; refuse a recipe that wants others."""
    if config.weights == TINY:
        from mint.language.tiny import TINY_BERT

        return TINY_BERT

    start = bert = _start_config(config)
    if start.model_type in QFORMERS:
        # A Q-Former is taken whole, so that the recipe must name its sizes.
        bert = start.qformer_config
        for key, size in (
            ("num_layers", bert.num_hidden_layers),
            ("num_queries", start.num_query_tokens),
            ("cross_attention_every", bert.cross_attention_frequency),
        ):
            if getattr(config, key) != size:
                raise MintError(
                    f"bridge.{key} is {getattr(config, key)}, but that of {config.weights} is {size}; take that"
                )
    elif config.num_layers > bert.num_hidden_layers:
        raise MintError(
            f"bridge.num_layers is {config.num_layers}, but {config.weights} has {bert.num_hidden_layers} blocks; "
            "choose as many or fewer"
        )

    # Another activation would fit in shape, and compute something else.
    if bert.hidden_act != "gelu":
        raise MintError(
            f"{config.weights} has the activation {bert.hidden_act!r}, but Bridge-Net has gelu; choose another"
        )
    return {
        "width": bert.hidden_size,
        "num_heads": bert.num_attention_heads,
        "intermediate": bert.intermediate_size,
        "max_positions": bert.max_position_embeddings,
        "layer_norm_eps": bert.layer_norm_eps,
    }
