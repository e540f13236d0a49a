"""Bridge-Net's start from checkpoints on the disk: BERT, BLIP-2 and InstructBLIP, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    BertConfig,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
    OPTConfig,
)

from mint.builders.bridge import bridge_sizes, build_bridge, build_tokenizer
from mint.config import BridgeConfig
from mint.language.tiny import tiny_bert_tokenizer
from mint.model.convert import to_qformer
from mint.types import MintError
from tiny_models import randomise

SMALL: dict[str, Any] = {"num_hidden_layers": 1, "num_attention_heads": 2}
QFORMER: dict[str, Any] = {
    **{"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24},
    **{"encoder_hidden_size": 10, "cross_attention_frequency": 2, "max_position_embeddings": 50},
}
TEXT_SIDE = ("word_embeddings", "position_embeddings", "text_feed_forward")
HEARING = ("cross_attention.key", "cross_attention.value")


def whole_model(kind: str) -> Any:
    """BLIP-2 before a language model, BLIP-2 for retrieval, or InstructBLIP, around a Q-Former of width 16."""
    sizes: Any = {
        **QFORMER,
        "vocab_size": len(tiny_bert_tokenizer()) + 1,
        "use_qformer_text_input": "retrieval" in kind,
    }
    parts: dict[str, Any] = {
        "vision_config": {**SMALL, "hidden_size": 10, "intermediate_size": 8, "image_size": 14},
        "text_config": OPTConfig(**SMALL, hidden_size=8, ffn_dim=8, word_embed_proj_dim=8, vocab_size=30).to_dict(),
        "num_query_tokens": 4,
    }
    if kind == "instructblip":
        parts["vision_config"] = InstructBlipVisionConfig(**parts["vision_config"]).to_dict()
        qformer = InstructBlipQFormerConfig(**sizes).to_dict()
        return InstructBlipForConditionalGeneration(InstructBlipConfig(qformer_config=qformer, **parts))
    parts["vision_config"] = Blip2VisionConfig(**parts["vision_config"]).to_dict()
    config = Blip2Config(qformer_config=Blip2QFormerConfig(**sizes).to_dict(), image_text_hidden_size=8, **parts)
    return (Blip2ForImageTextRetrieval if "retrieval" in kind else Blip2ForConditionalGeneration)(config)


def saved(kind: str, folder: Path) -> Any:
    """The model, and its folder in shards, with a tokenizer of BERT's kind in `tokenizer/`."""
    model = whole_model(kind)
    randomise(model, seed=3)
    model.save_pretrained(folder, max_shard_size="20KB")
    assert (folder / "model.safetensors.index.json").is_file()
    tiny_bert_tokenizer().save_pretrained(folder / "tokenizer")
    return model


def config_of(folder: Path, **options: Any) -> BridgeConfig:
    chosen = {"num_layers": 3, "num_queries": 4, "tokenizer": str(folder / "tokenizer"), **options}
    return BridgeConfig(weights=str(folder), **chosen)


def test_bridge_starts_from_a_bert_on_the_disk(bert: Path) -> None:
    config = BridgeConfig(weights=str(bert), num_layers=2, num_queries=3)
    bridge, report = build_bridge(config, audio_width=10, vocab_size=259)
    weights = load_file(bert / "model.safetensors")
    name = "encoder.layer.1.attention.self.query.weight"
    assert torch.equal(bridge.state_dict()["blocks.1.attention.query.weight"], weights[name])
    assert bridge.word_embeddings.num_embeddings == 260
    assert set(report.copied) | set(report.new) == set(bridge.state_dict())
    assert {"pooler.dense.weight", "pooler.dense.bias"} <= set(report.left)
    with pytest.raises(MintError, match=r"bridge.num_layers is 3, but .* has 2 blocks"):
        build_bridge(replace(config, num_layers=3), audio_width=10, vocab_size=259)


@pytest.mark.parametrize(
    ("kind", "new"), [("instructblip", ()), ("blip2-retrieval", ()), ("blip2", TEXT_SIDE)], ids=lambda kind: str(kind)
)
@pytest.mark.parametrize("audio_width", [10, 7])
def test_bridge_starts_from_the_qformer_of_a_whole_checkpoint(
    kind: str, new: tuple[str, ...], audio_width: int, tmp_path: Path
) -> None:
    """Where audio and images differ in width, the keys and values of the cross-attention cannot be copied."""
    model = saved(kind, tmp_path)
    config = config_of(tmp_path)
    tokenizer = build_tokenizer(config)
    bridge, report = build_bridge(config, audio_width, len(tokenizer))
    expected = ("audio_norm", *new, *(HEARING if audio_width != 10 else ()))
    assert set(report.new) == {name for name in bridge.state_dict() if any(part in name for part in expected)}
    assert set(report.copied) == set(bridge.state_dict()) - set(report.new)
    theirs = {
        name.removeprefix("qformer.").replace("embeddings.layernorm", "layernorm"): tensor
        for name, tensor in model.state_dict().items()
    }
    ours = {name.replace("embeddings.layernorm", "layernorm"): tensor for name, tensor in to_qformer(bridge).items()}
    copied = [name for name in ours if name in theirs and ours[name].shape == theirs[name].shape]
    assert len(copied) >= len(report.copied)
    same = [name for name in copied if torch.equal(ours[name], theirs[name])]
    assert len(same) == len(report.copied)


def test_the_tokenizer_of_instructblips_qformer(tmp_path: Path) -> None:
    """It stands in a folder of its own and knows [DEC], whose embedding ours then starts from."""
    model = saved("instructblip", tmp_path)
    config = config_of(tmp_path, tokenizer=None)
    with pytest.raises(
        MintError, match=r"has no tokenizer of its Q-Former \(qformer_tokenizer/\); name that of the BERT"
    ):
        build_tokenizer(config)
    own = tiny_bert_tokenizer()
    own.add_special_tokens({"bos_token": "[DEC]"})
    own.save_pretrained(tmp_path / "qformer_tokenizer")
    tokenizer = build_tokenizer(config)
    assert tokenizer("a").input_ids == own("a").input_ids
    assert len(tokenizer) == 260
    bridge, _ = build_bridge(config, 10, len(tokenizer))
    words = model.qformer.embeddings.word_embeddings.weight
    assert torch.equal(bridge.word_embeddings.weight, torch.cat([words, words[-1:]]))


@pytest.mark.parametrize(
    ("key", "value", "size"), [("num_layers", 2, 3), ("num_queries", 5, 4), ("cross_attention_every", 1, 2)]
)
def test_sizes_that_a_qformer_does_not_have(key: str, value: int, size: int, tmp_path: Path) -> None:
    whole_model("instructblip").config.save_pretrained(tmp_path)
    with pytest.raises(MintError, match=rf"bridge\.{key} is {value}, but that of .* is {size}; take that"):
        bridge_sizes(config_of(tmp_path, **{key: value}), 10, 259)


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "electra", "opt"])
def test_other_encoders_of_text_are_refused(kind: str, tmp_path: Path) -> None:
    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    message = rf"^bridge\.weights cannot read '{kind}'; it reads bert, blip-2, instructblip$"
    for build in (build_tokenizer, lambda config: bridge_sizes(config, 10, 259)):
        with pytest.raises(MintError, match=message):
            build(BridgeConfig(weights=str(tmp_path)))


def test_a_bert_with_another_activation_is_refused(tmp_path: Path) -> None:
    BertConfig(hidden_act="relu").save_pretrained(tmp_path)
    with pytest.raises(MintError, match="has the activation 'relu', but Bridge-Net has gelu; choose another"):
        bridge_sizes(BridgeConfig(weights=str(tmp_path)), 10, 259)


def test_a_qformer_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    saved("instructblip", tmp_path)
    for path in tmp_path.glob("*.safetensors"):
        weights = load_file(path)
        left = {name: tensor for name, tensor in weights.items() if "layer.1.attention" not in name}
        save_file(left, path, {"format": "pt"})
    with pytest.raises(
        MintError, match=r"lacks encoder\.layer\.1\..* of a Q-Former of transformers \(missing in all: 10\)"
    ):
        build_bridge(config_of(tmp_path), 10, 259)
