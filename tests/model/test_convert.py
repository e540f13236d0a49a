"""Parity with transformers' Q-Former and BERT, with the same weights, and the converters both ways."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2QFormerConfig,
    Blip2QFormerModel,
    Blip2VisionConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipQFormerConfig,
    InstructBlipQFormerModel,
    InstructBlipVisionConfig,
    OPTConfig,
)

from mint.model import masks
from mint.model.convert import load_bert, load_qformer, qformer_name, to_qformer
from mint.types import MintError
from tiny_models import present, randomise, tiny_batch, tiny_bridge

if TYPE_CHECKING:
    from torch import Tensor

    from mint.model.bridge_net import BridgeNet

close = partial(torch.testing.assert_close, atol=1e-5, rtol=0.0)

BASE = {
    "vocab_size": 30523,
    "width": 768,
    "num_layers": 12,
    "num_heads": 12,
    "intermediate": 3072,
    "max_positions": 512,
    "audio_width": 768,
    "num_queries": 32,
}
"""BERT-base with [DEC], data2vec's features (paper, section 3.2)."""
SIZES = [pytest.param({}, id="tiny"), pytest.param(BASE, id="base", marks=pytest.mark.slow)]
SMALL: dict[str, Any] = {"num_hidden_layers": 1, "num_attention_heads": 2}
OPT = {**SMALL, "hidden_size": 8, "ffn_dim": 8, "word_embed_proj_dim": 8}
VISION = {**SMALL, "hidden_size": 10, "intermediate_size": 8, "image_size": 14}


def sizes_of(bridge: BridgeNet) -> dict[str, Any]:
    """The size of a bridge in a Q-Former's configuration."""
    block = bridge.blocks[0]
    return {
        "vocab_size": bridge.word_embeddings.num_embeddings,
        "hidden_size": bridge.width,
        "num_hidden_layers": len(bridge.blocks),
        "num_attention_heads": block.attention.num_heads,  # type: ignore[union-attr]
        "intermediate_size": block.text_feed_forward.expand.out_features,  # type: ignore[union-attr]
        "max_position_embeddings": bridge.position_embeddings.num_embeddings,
        "encoder_hidden_size": bridge.audio_norm.normalized_shape[0],
        "cross_attention_frequency": 2,
    }


def instruct_qformer(bridge: BridgeNet) -> InstructBlipQFormerModel:
    """InstructBLIP's Q-Former with the bridge's weights, loaded strictly."""
    model: Any = InstructBlipQFormerModel(InstructBlipQFormerConfig(**sizes_of(bridge)))
    weights = to_qformer(bridge)
    assert torch.equal(weights.pop("query_tokens"), bridge.queries)
    model.load_state_dict(weights, strict=True)
    return model.eval()


def batch_of(bridge: BridgeNet) -> dict[str, Tensor]:
    """Three clips and texts; `normed` is what the Q-Former is given, whose LayerNorm of the features lies before it."""
    batch = tiny_batch(batch=3, frames=9)
    width, generator = bridge.audio_norm.normalized_shape[0], torch.Generator().manual_seed(0)
    batch["audio_features"] = torch.randn(3, 9, width, generator=generator).to(bridge.queries.dtype)
    return {**batch, "normed": bridge.audio_norm(batch["audio_features"])}


def blip2_names(bridge: BridgeNet) -> dict[str, Tensor]:
    """The bridge's weights as BLIP-2's Q-Former names them: its LayerNorm stands outside of the embeddings."""
    return {name.replace("embeddings.layernorm", "layernorm"): tensor for name, tensor in to_qformer(bridge).items()}


@pytest.fixture(params=SIZES)
def any_bridge(request: pytest.FixtureRequest) -> BridgeNet:
    """Random weights; those of BERT-base's width are as small as BERT's own at their start, as its sums are longer."""
    bridge = tiny_bridge(**request.param)
    if request.param:
        randomise(bridge, std=0.02)
    return bridge


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("mask", [masks.unimodal, masks.bidirectional, masks.causal])
@torch.no_grad()
def test_queries_with_text_equal_instructblips(
    any_bridge: BridgeNet, mask: Any, dtype: torch.dtype, tolerance: float
) -> None:
    theirs: Any = instruct_qformer(any_bridge.to(dtype))
    theirs.to(dtype)
    batch = batch_of(any_bridge)
    attention = mask(any_bridge.num_queries, batch["text_mask"])
    expected = theirs(
        input_ids=batch["text_ids"],
        query_embeds=any_bridge.queries.expand(3, -1, -1),
        attention_mask=attention,
        encoder_hidden_states=batch["normed"],
        encoder_attention_mask=batch["audio_mask"],
    ).last_hidden_state
    audio = any_bridge.project_audio(batch["audio_features"], batch["audio_mask"])
    output = any_bridge.encode_pair(audio, batch["text_ids"], batch["text_mask"], mask)
    assert expected.std() > 0.3
    real = torch.cat([batch["text_mask"].new_ones(3, any_bridge.num_queries), batch["text_mask"]], dim=1)
    found = torch.cat([present(output.queries), present(output.text)], dim=1)
    close(found[real], expected[real], atol=tolerance)


@torch.no_grad()
def test_queries_alone_equal_instructblips_and_blip2s(any_bridge: BridgeNet) -> None:
    instruct = instruct_qformer(any_bridge)
    blip: Any = Blip2QFormerModel(Blip2QFormerConfig(**sizes_of(any_bridge)))
    weights = {
        name.replace("embeddings.layernorm", "layernorm"): tensor for name, tensor in to_qformer(any_bridge).items()
    }
    # BLIP-2's has no text side.
    missing, unexpected = blip.load_state_dict(weights, strict=False)
    assert not missing
    assert {name for name in unexpected if ".intermediate." not in name and ".output." not in name} == {
        "query_tokens",
        "embeddings.word_embeddings.weight",
        "embeddings.position_embeddings.weight",
    }
    batch = batch_of(any_bridge)
    output = any_bridge.encode_queries(any_bridge.project_audio(batch["audio_features"], batch["audio_mask"]))
    arguments = {
        "query_embeds": any_bridge.queries.expand(3, -1, -1),
        "encoder_hidden_states": batch["normed"],
        "encoder_attention_mask": batch["audio_mask"],
    }
    close(output.queries, instruct(input_ids=None, **arguments).last_hidden_state)
    close(output.queries, blip.eval()(**arguments).last_hidden_state)


@torch.no_grad()
def test_text_alone_equals_instructblips_and_blip2s(any_bridge: BridgeNet) -> None:
    instruct, batch = instruct_qformer(any_bridge), batch_of(any_bridge)
    output = any_bridge.encode_text(batch["text_ids"], batch["text_mask"])
    expected = instruct(input_ids=batch["text_ids"], attention_mask=batch["text_mask"]).last_hidden_state
    close(present(output.text)[batch["text_mask"]], expected[batch["text_mask"]])
    blip: Any = Blip2QFormerModel(Blip2QFormerConfig(**sizes_of(any_bridge), use_qformer_text_input=True))
    weights = {
        name.replace("embeddings.layernorm", "layernorm"): tensor for name, tensor in to_qformer(any_bridge).items()
    }
    outside = {name for name in weights if name.startswith(("query_tokens", "embeddings."))}
    blip.load_state_dict({name: tensor for name, tensor in weights.items() if name not in outside}, strict=True)
    embedded = any_bridge.word_embeddings(batch["text_ids"]) + any_bridge.position_embeddings.weight[:6]
    expected = blip.eval()(query_embeds=embedded, query_length=0, attention_mask=batch["text_mask"]).last_hidden_state
    close(present(output.text)[batch["text_mask"]], expected[batch["text_mask"]])


def test_every_name_has_one_of_the_qformers_and_comes_back(bridge: BridgeNet) -> None:
    weights = to_qformer(bridge)
    assert {qformer_name(name) for name in bridge.state_dict() if "audio_norm" not in name} == set(weights)
    assert len(weights) == len(bridge.state_dict()) - 2
    other = tiny_bridge(seed=1)
    own_norm = other.audio_norm.weight.clone()
    report = load_qformer(other, weights)
    assert report.new == ("audio_norm.weight", "audio_norm.bias")
    assert report.left == ()
    assert set(report.copied) == set(bridge.state_dict()) - set(report.new)
    for name in report.copied:
        assert torch.equal(other.state_dict()[name], bridge.state_dict()[name]), name
    assert torch.equal(other.audio_norm.weight, own_norm)


def instructblip() -> InstructBlipForConditionalGeneration:
    return InstructBlipForConditionalGeneration(
        InstructBlipConfig(
            vision_config=InstructBlipVisionConfig(**VISION).to_dict(),
            qformer_config=InstructBlipQFormerConfig(**sizes_of(tiny_bridge())).to_dict(),
            text_config=OPTConfig(**OPT, vocab_size=30).to_dict(),
            num_query_tokens=3,
        )
    )


def blip2(model: Any, text_input: bool) -> Any:
    return model(
        Blip2Config(
            vision_config=Blip2VisionConfig(**VISION).to_dict(),
            qformer_config=Blip2QFormerConfig(**sizes_of(tiny_bridge()), use_qformer_text_input=text_input).to_dict(),
            text_config=OPTConfig(**OPT, vocab_size=30).to_dict(),
            num_query_tokens=3,
            image_text_hidden_size=8,
        )
    )


TEXT_SIDE = {
    "word_embeddings.weight",
    "position_embeddings.weight",
    *(name for name in tiny_bridge().state_dict() if "text_feed_forward" in name),
}


@pytest.mark.parametrize(
    ("make", "without"),
    [
        pytest.param(instructblip, set(), id="InstructBLIP"),
        pytest.param(partial(blip2, Blip2ForConditionalGeneration, False), TEXT_SIDE, id="BLIP-2"),
        pytest.param(partial(blip2, Blip2ForImageTextRetrieval, True), set(), id="BLIP-2 stage 1"),
    ],
)
@torch.no_grad()
def test_qformer_comes_out_of_a_whole_checkpoint(bridge: BridgeNet, make: Any, without: set[str]) -> None:
    model = make().eval()
    randomise(model, seed=3)
    report = load_qformer(bridge, model.state_dict())
    assert set(report.new) == {"audio_norm.weight", "audio_norm.bias"} | without
    assert not any(name.startswith(("encoder.", "query_tokens", "embeddings.", "layernorm")) for name in report.left)
    assert any(name.startswith("vision_model.") for name in report.left)
    batch = batch_of(bridge)
    output = bridge.encode_queries(bridge.project_audio(batch["audio_features"], batch["audio_mask"]))
    arguments = {
        "query_embeds": model.query_tokens.expand(3, -1, -1),
        "encoder_hidden_states": batch["normed"],
        "encoder_attention_mask": batch["audio_mask"],
    }
    if "InstructBlip" in type(model).__name__:
        arguments["input_ids"] = None
    close(output.queries, model.qformer(**arguments).last_hidden_state)


def bert_config(bridge: BridgeNet) -> BertConfig:
    sizes = sizes_of(bridge)
    del sizes["encoder_hidden_size"], sizes["cross_attention_frequency"]
    return BertConfig(**{**sizes, "vocab_size": sizes["vocab_size"] - 1})


def old_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the first BERT files have them."""
    norms = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    return {
        "bert." + re.sub("|".join(norms), lambda found: norms[found[0]], name): tensor
        for name, tensor in weights.items()
    }


@pytest.mark.parametrize("rename", [dict, old_names])
@torch.no_grad()
def test_text_pass_equals_bert(any_bridge: BridgeNet, rename: Any) -> None:
    bert: Any = BertModel(bert_config(any_bridge))
    randomise(bert, seed=2, std=0.3 if any_bridge.width < 100 else 0.02)
    load_bert(any_bridge, rename(bert.state_dict()))
    batch = tiny_batch()
    expected = bert.eval()(input_ids=batch["text_ids"], attention_mask=batch["text_mask"].long()).last_hidden_state
    output = present(any_bridge.encode_text(batch["text_ids"], batch["text_mask"]).text)
    assert expected.std() > 0.3
    close(output[batch["text_mask"]], expected[batch["text_mask"]])


@torch.no_grad()
def test_bert_gives_both_feed_forwards_and_leaves_the_audio_side_new(bridge: BridgeNet) -> None:
    before = {name: tensor.clone() for name, tensor in bridge.state_dict().items()}
    bert = BertModel(bert_config(bridge))
    randomise(bert, seed=2)
    report = load_bert(bridge, {**bert.state_dict(), "cls.predictions.bias": torch.zeros(39)})
    state = bridge.state_dict()
    expected_new = {name for name in state if name == "queries" or "audio_norm" in name or "cross_attention" in name}
    assert set(report.new) == expected_new
    assert set(report.copied) == set(state) - expected_new
    assert set(report.left) == {"pooler.dense.weight", "pooler.dense.bias", "cls.predictions.bias"}
    assert str(report) == (
        f"{len(report.copied)} tensors copied, {len(report.new)} new (queries, audio_norm, cross_attention), "
        "3 of the checkpoint left (pooler, cls)"
    )
    for name in report.new:
        assert torch.equal(state[name], before[name]), name
    for name in report.copied:
        assert not torch.equal(state[name], before[name]), name
        assert torch.equal(state[name], state[name.replace("query_feed", "text_feed")]), name
    words = bert.embeddings.word_embeddings.weight
    assert torch.equal(bridge.word_embeddings.weight[:39], words)
    close(bridge.word_embeddings.weight[39], words.mean(dim=0))


def test_fewer_blocks_than_the_checkpoint_are_spaced_evenly_from_first_to_last() -> None:
    deep = BertModel(bert_config(tiny_bridge(num_layers=5)))
    randomise(deep)
    bridge = tiny_bridge(num_layers=3)
    report = load_bert(bridge, deep.state_dict())
    for block, source in enumerate((0, 2, 4)):
        ours, bert = (
            f"blocks.{block}.text_feed_forward.expand.weight",
            f"encoder.layer.{source}.intermediate.dense.weight",
        )
        assert torch.equal(bridge.state_dict()[ours], deep.state_dict()[bert]), ours
    left = {name.split(".")[2] for name in report.left if name.startswith("encoder.")}
    assert left == {"1", "3"}


def test_wrong_checkpoints_are_refused(bridge: BridgeNet) -> None:
    bert = BertModel(bert_config(tiny_bridge(width=8)))
    with pytest.raises(MintError, match=r"has shape \(.*16\) in Bridge-Net, \(.*8\) in the checkpoint \(.*choose"):
        load_bert(bridge, bert.state_dict())
    shorter = BertModel(bert_config(tiny_bridge(max_positions=11)))
    with pytest.raises(MintError, match=r"position_embeddings.weight has shape \(12, 16\) in Bridge-Net, \(11, 16\)"):
        load_bert(bridge, shorter.state_dict())
    other = {"transformer.h.0.ln": torch.zeros(1)}
    with pytest.raises(
        MintError, match=r"lacks embeddings\..* of a BERT \(missing in all: .*\) and has transformer\.h\.0\.ln, \.\.\.;"
    ):
        load_bert(bridge, other)
    words = BertModel(bert_config(tiny_bridge(vocab_size=38)))
    with pytest.raises(
        MintError, match=r"word_embeddings.weight has shape \(40, 16\) in Bridge-Net, \(37, 16\) in .*tokenizer"
    ):
        load_bert(bridge, words.state_dict())


def test_a_checkpoint_that_lacks_a_tensor_is_refused(bridge: BridgeNet) -> None:
    bert = BertModel(bert_config(bridge)).state_dict()
    for load, weights, gone in (
        (load_bert, bert, "encoder.layer.1.output.dense.weight"),
        (load_qformer, to_qformer(bridge), "encoder.layer.2.output_query.dense.bias"),
    ):
        left = {name: tensor for name, tensor in weights.items() if name != gone}
        with pytest.raises(MintError, match=rf"the checkpoint lacks {gone} of a .* \(missing in all: 1\) and has"):
            load(bridge, left)


def lavis_names(bridge: BridgeNet) -> dict[str, Tensor]:
    """The names of LAVIS, which published BLIP-2 first."""
    weights = to_qformer(bridge)
    inner = {name: name.replace(".attention.attention.", ".attention.self.") for name in weights}
    inner = {name: other.replace("crossattention.attention", "crossattention.self") for name, other in inner.items()}
    inner = {name: other.replace("embeddings.layernorm", "embeddings.LayerNorm") for name, other in inner.items()}
    return {
        (other if name == "query_tokens" else f"Qformer.bert.{other}"): weights[name] for name, other in inner.items()
    }


def test_names_of_lavis_are_refused(bridge: BridgeNet) -> None:
    with pytest.raises(
        MintError, match=r"lacks .* of a Q-Former of transformers .* and has .* as transformers names them"
    ):
        load_qformer(bridge, lavis_names(bridge))
