"""The weights that are shown are those that the model uses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mint.data.batches.collate import tokenize
from mint.evaluation.report.attention import clip_attention, over_time, query_attention
from mint.language.causal import CausalLanguageModel
from mint.language.tiny import tiny_bert_tokenizer
from mint.model.stage1 import Stage1
from mint.model.stage2 import Stage2
from mint.types import MintError
from tiny_models import BRIDGE, DEC, randomise, tiny_batch, tiny_bridge


@pytest.fixture
def stage1() -> Stage1:
    stage = Stage1(bridge=tiny_bridge(cross_attention_every=2), dec_token=DEC, shared_width=8)
    randomise(stage, seed=2)
    return stage.eval()


def audio() -> tuple[Tensor, Tensor]:
    """Features and mask."""
    batch = tiny_batch()
    return batch["audio_features"], batch["audio_mask"]


def test_rows_are_distributions_over_the_real_frames(stage1: Stage1) -> None:
    part = audio()
    found = query_attention(stage1, *part)
    assert found.shape == (2, 4, BRIDGE["num_queries"], 7)  # blocks 0 and 2 cross-attend
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(2, 4, BRIDGE["num_queries"]))
    padded = ~part[1][None, :, None].expand_as(found)
    assert padded.any()
    assert (found[padded] == 0).all()


def test_the_model_attends_by_these_weights() -> None:
    """With one head, what leaves the attention is the weighted mean of the values."""
    part, stage = audio(), Stage1(bridge=tiny_bridge(num_heads=1), dec_token=DEC, shared_width=8).eval()
    weights = query_attention(stage, *part)[0]  # [B, Q, T]
    attention = stage.bridge.get_submodule("blocks.0.cross_attention")
    seen: list[Tensor] = []
    attention.get_submodule("output").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    stage.embed_audio(*part)
    values = attention.get_submodule("value")(stage.bridge.audio_norm(part[0]))  # [B, T, D]
    torch.testing.assert_close(seen[0], weights @ values)


def test_looking_changes_nothing(stage1: Stage1) -> None:
    part, stage = audio(), stage1.train()
    before = stage.embed_audio(*part)
    query_attention(stage, *part)
    assert stage.training
    torch.testing.assert_close(stage.embed_audio(*part), before, rtol=0, atol=0)
    assert not any(module._forward_pre_hooks for module in stage.modules())


def test_stage_2_looks_where_its_instruction_says(language: CausalLanguageModel) -> None:
    tokenizer = tiny_bert_tokenizer()
    stage = Stage2(bridge=tiny_bridge(vocab_size=len(tokenizer) + 1, max_positions=40), language=language).eval()
    window = torch.randn(9, BRIDGE["audio_width"], generator=torch.Generator().manual_seed(0))
    found = [clip_attention(stage, tokenizer, window, prompt, 40) for prompt in ("The key is", "A sound of")]
    assert [one.shape for one in found] == [(BRIDGE["num_queries"], 9)] * 2
    torch.testing.assert_close(found[0].sum(dim=1), torch.ones(BRIDGE["num_queries"]))
    assert (found[0] - found[1]).abs().max() > 1e-4
    ids, mask = tokenize(tokenizer, ["The key is"], 40)
    whole = query_attention(stage, window[None], torch.ones(1, 9, dtype=torch.bool), (ids, mask))
    torch.testing.assert_close(found[0], whole[:, 0].mean(dim=0))


def test_tokens_of_one_moment_are_summed() -> None:
    attention = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    torch.testing.assert_close(over_time(attention, 2), torch.tensor([[0.3, 0.7]]))
    torch.testing.assert_close(over_time(attention, 1), attention)
    with pytest.raises(MintError, match="4 frames are not a multiple of 3 bands"):
        over_time(attention, 3)
