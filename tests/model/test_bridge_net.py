"""Bridge-Net: shared passes equal joint ones, and what lies under a mask never matters."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mint.model import masks
from mint.model.bridge_net import BridgeNet
from mint.types import MintError
from tiny_models import present, tiny_batch, tiny_bridge

if TYPE_CHECKING:
    from torch import Tensor

close = partial(torch.testing.assert_close, atol=1e-5, rtol=0.0)
BATCH = tiny_batch()
FEATURES, AUDIO_MASK, IDS, TEXT_MASK = (BATCH[k] for k in ("audio_features", "audio_mask", "text_ids", "text_mask"))
MASKS = [masks.unimodal, masks.bidirectional, masks.causal]


def pair(bridge: BridgeNet, mask: object, features: Tensor, audio_mask: Tensor, ids: Tensor, real: Tensor) -> Tensor:
    """All outputs [B, Q + L, D] of a joint pass."""
    audio = bridge.project_audio(features, audio_mask)
    output = bridge.encode_pair(audio, ids, real, mask)  # type: ignore[arg-type]
    return torch.cat([present(output.queries), present(output.text)], dim=1)


@pytest.fixture(params=[1, 2, 3, 4])
def any_bridge(request: pytest.FixtureRequest) -> BridgeNet:
    """Cross-attention in all blocks, every second, every third, the first alone."""
    return tiny_bridge(cross_attention_every=request.param)


def test_unimodal_pass_equals_separate_passes(any_bridge: BridgeNet) -> None:
    audio = any_bridge.project_audio(FEATURES, AUDIO_MASK)
    joint = any_bridge.encode_pair(audio, IDS, TEXT_MASK, masks.unimodal)
    close(any_bridge.encode_queries(audio).queries, joint.queries)
    close(any_bridge.encode_text(IDS, TEXT_MASK).text, joint.text)


def test_one_pass_serves_the_unimodal_and_the_causal_mask(any_bridge: BridgeNet) -> None:
    audio = any_bridge.project_audio(FEATURES, AUDIO_MASK)
    generated = torch.where(TEXT_MASK, IDS.flip(1), 0)
    output = any_bridge.encode_unimodal_and_causal(audio, IDS, generated, TEXT_MASK)
    close(output.queries, any_bridge.encode_queries(audio).queries)
    close(output.text, any_bridge.encode_pair(audio, generated, TEXT_MASK, masks.causal).text)
    close(output.lone_text, present(any_bridge.encode_text(IDS, TEXT_MASK).text)[:, :1])


def test_padding_of_the_audio_has_no_cost(bridge: BridgeNet) -> None:
    def products(features: Tensor, mask: Tensor) -> int:
        with FlopCounterMode(display=False) as counter:
            bridge.project_audio(features, mask)
        return int(counter.get_total_flops())

    frames = AUDIO_MASK.sum(dim=1).tolist()
    alone = [products(FEATURES[row, None, :count], AUDIO_MASK[row, None, :count]) for row, count in enumerate(frames)]
    assert sum(frames) < AUDIO_MASK.numel()
    assert products(FEATURES, AUDIO_MASK) == sum(alone) > 0


def test_the_audio_is_kept_once_for_all_blocks_also_under_autocast(bridge: BridgeNet) -> None:
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.detach()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.autocast("cpu", torch.bfloat16), hooks:
        audio = bridge.project_audio(FEATURES, AUDIO_MASK)
    assert len(audio.pairs) > 1
    size = int(AUDIO_MASK.sum()) * FEATURES.shape[-1]
    assert [tensor.dtype for tensor in kept.values() if tensor.numel() == size] == [torch.bfloat16]


@pytest.mark.parametrize(("every", "count"), [(1, 3), (2, 2), (3, 1)])
def test_blocks_that_cross_attend(every: int, count: int) -> None:
    bridge = tiny_bridge(cross_attention_every=every)
    assert len(bridge.project_audio(FEATURES, AUDIO_MASK).pairs) == count
    assert [block.cross_attention is not None for block in bridge.blocks] == [i % every == 0 for i in range(3)]


def test_audio_reaches_queries_and_no_lone_text(bridge: BridgeNet) -> None:
    one, other = (bridge.project_audio(FEATURES * scale, AUDIO_MASK) for scale in (1.0, -1.0))
    first, second = (present(bridge.encode_queries(audio).queries) for audio in (one, other))
    assert (first - second).abs().amax(dim=(1, 2)).min() > 0.1


@pytest.mark.parametrize("mask", MASKS)
def test_text_padding_changes_nothing(bridge: BridgeNet, mask: object) -> None:
    real = torch.cat([TEXT_MASK.new_ones(4, 3), TEXT_MASK], dim=1)
    short = pair(bridge, mask, FEATURES, AUDIO_MASK, IDS, TEXT_MASK)
    garbage = IDS.masked_fill(~TEXT_MASK, 17)
    longer = torch.cat([garbage, torch.full((4, 5), 23)], dim=1)
    longer_mask = torch.cat([TEXT_MASK, torch.zeros(4, 5, dtype=torch.bool)], dim=1)
    padded = pair(bridge, mask, FEATURES, AUDIO_MASK, longer, longer_mask)
    close(padded[:, : short.shape[1]][real], short[real])


def test_text_padding_changes_no_text_pass(bridge: BridgeNet) -> None:
    longer = torch.cat([IDS.masked_fill(~TEXT_MASK, 17), torch.full((4, 5), 23)], dim=1)
    longer_mask = torch.cat([TEXT_MASK, torch.zeros(4, 5, dtype=torch.bool)], dim=1)
    audio = bridge.project_audio(FEATURES, AUDIO_MASK)
    one = bridge.encode_unimodal_and_causal(audio, IDS, IDS, TEXT_MASK)
    other = bridge.encode_unimodal_and_causal(audio, longer, longer, longer_mask)
    close(other.lone_text, one.lone_text)
    pairs = [(one, other), (bridge.encode_text(IDS, TEXT_MASK), bridge.encode_text(longer, longer_mask))]
    for short, padded in pairs:
        close(present(padded.text)[:, :6][TEXT_MASK], present(short.text)[TEXT_MASK])


@pytest.mark.parametrize("mask", MASKS)
def test_audio_padding_changes_nothing(bridge: BridgeNet, mask: object) -> None:
    short = pair(bridge, mask, FEATURES, AUDIO_MASK, IDS, TEXT_MASK)
    garbage = torch.where(AUDIO_MASK[..., None], FEATURES, torch.tensor(1e4))
    longer = torch.cat([garbage, torch.full((4, 9, 10), -1e4)], dim=1)
    longer_mask = torch.cat([AUDIO_MASK, torch.zeros(4, 9, dtype=torch.bool)], dim=1)
    close(pair(bridge, mask, longer, longer_mask, IDS, TEXT_MASK), short)


@pytest.mark.parametrize("mask", MASKS)
def test_a_clip_alone_equals_the_clip_in_a_batch(bridge: BridgeNet, mask: object) -> None:
    together = pair(bridge, mask, FEATURES, AUDIO_MASK, IDS, TEXT_MASK)
    for row in range(4):
        frames, tokens = int(AUDIO_MASK[row].sum()), int(TEXT_MASK[row].sum())
        alone = pair(
            bridge,
            mask,
            FEATURES[row : row + 1, :frames],
            AUDIO_MASK[row : row + 1, :frames],
            IDS[row : row + 1, :tokens],
            TEXT_MASK[row : row + 1, :tokens],
        )
        close(together[row, : 3 + tokens], alone[0])


def test_one_audio_token_gives_its_value_to_every_query(bridge: BridgeNet) -> None:
    """Attention over one token is that token, so whatever the queries ask, they are given the same."""
    one_frame = FEATURES[:, :1]
    output = bridge.encode_queries(bridge.project_audio(one_frame, torch.ones(4, 1, dtype=torch.bool))).queries
    repeated = bridge.encode_queries(
        bridge.project_audio(one_frame.expand(-1, 5, -1), torch.ones(4, 5, dtype=torch.bool))
    ).queries
    close(output, repeated)


def test_a_clip_without_a_real_frame_is_finite_and_leaves_the_others_alone(bridge: BridgeNet) -> None:
    empty = AUDIO_MASK.clone()
    empty[1] = False
    features = FEATURES.clone().requires_grad_()
    output = present(bridge.encode_queries(bridge.project_audio(features, empty)).queries)
    whole = present(bridge.encode_queries(bridge.project_audio(FEATURES, AUDIO_MASK)).queries)
    assert output.isfinite().all()
    close(output[[0, 2, 3]], whole[[0, 2, 3]])
    output.square().sum().backward()
    assert present(features.grad).isfinite().all()


def test_parts_of_the_audio_are_as_their_clips_in_one_batch() -> None:
    """Clips that are repeated, selected, and selected from the selected, of other lengths: outputs and gradients."""
    bridge = tiny_bridge()
    audio, short = (
        bridge.project_audio(FEATURES, AUDIO_MASK),
        bridge.project_audio(FEATURES[:2, :2], AUDIO_MASK[:2, :2]),
    )
    parts = [audio.repeated(2), short, audio.select(torch.tensor([2, 0, 3])).select(torch.tensor([1, 0, 1]))]
    rows = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 0, 2, 0])
    assert [len(part) for part in parts] == [8, 2, 3]
    features, audio_mask = FEATURES[rows], AUDIO_MASK[rows].clone()
    audio_mask[8:10, 2:] = False
    texts = torch.arange(13) % 4
    ids, real = IDS[texts], TEXT_MASK[texts]
    found = present(bridge.encode_pair(parts, ids, real).queries)
    expected = present(bridge.encode_pair(bridge.project_audio(features, audio_mask), ids, real).queries)
    close(found, expected)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    trained = dict(bridge.named_parameters())
    of_found, of_expected = (
        torch.autograd.grad((output * weights).sum(), list(trained.values()), allow_unused=True)
        for output in (found, expected)
    )
    for name, one, other in zip(trained, of_found, of_expected, strict=True):
        assert (one is None) == (other is None), name
        if one is not None:
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_what_is_not_asked_for_is_left_out_and_changes_nothing(any_bridge: BridgeNet) -> None:
    audio = any_bridge.project_audio(FEATURES, AUDIO_MASK)
    whole, lone = any_bridge.encode_pair(audio, IDS, TEXT_MASK), any_bridge.encode_text(IDS, TEXT_MASK)
    without = any_bridge.encode_pair(audio, IDS, TEXT_MASK, length=0)
    assert without.text is None
    close(without.queries, whole.queries)
    first = present(any_bridge.encode_text(IDS, TEXT_MASK, length=1).text)
    assert first.shape[1] == 1
    close(first, present(lone.text)[:, :1])


def test_padding_of_a_text_has_no_output_and_no_cost(bridge: BridgeNet) -> None:
    seen: list[torch.Size] = []
    for name, module in bridge.named_modules():
        if name.endswith("text_feed_forward"):
            module.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    output = present(bridge.encode_text(IDS, TEXT_MASK).text)
    assert (output[~TEXT_MASK] == 0).all()
    assert (~TEXT_MASK).any()
    assert seen == [(int(TEXT_MASK.sum()), bridge.width)] * len(bridge.blocks)


def test_queries_have_no_position_and_text_starts_at_the_first(bridge: BridgeNet) -> None:
    audio = bridge.project_audio(FEATURES, AUDIO_MASK)
    before = present(bridge.encode_queries(audio).queries)
    order = torch.tensor([2, 0, 1])
    bridge.queries.data = bridge.queries.data[:, order]
    after = bridge.encode_queries(audio).queries
    close(after, before[:, order])
    words = bridge.word_embeddings(IDS) + bridge.position_embeddings(torch.arange(6))
    close(bridge.embed_text(IDS, TEXT_MASK), bridge.embedding_norm(words)[TEXT_MASK])


def test_dropout_is_active_in_training_alone() -> None:
    bridge = tiny_bridge(dropout=0.5)
    first, second = (present(bridge.encode_text(IDS, TEXT_MASK).text) for _ in range(2))
    assert torch.equal(first, second)
    bridge.train()
    first, second = (present(bridge.encode_text(IDS, TEXT_MASK).text) for _ in range(2))
    assert (first - second).abs().max() > 0.1


def test_new_weights_are_berts() -> None:
    torch.manual_seed(0)
    bridge = BridgeNet(
        vocab_size=500,
        width=64,
        num_layers=2,
        num_heads=4,
        intermediate=128,
        max_positions=50,
        audio_width=32,
        num_queries=20,
    )
    for name, parameter in bridge.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            assert abs(float(parameter.detach().std()) - 0.02) < 0.002, name


def test_errors_name_value_and_cure(bridge: BridgeNet) -> None:
    with pytest.raises(MintError, match="text of 13 tokens is longer than the 12 positions"):
        bridge.encode_text(torch.ones(1, 13, dtype=torch.long), torch.ones(1, 13, dtype=torch.bool))
    with pytest.raises(MintError, match="width 16 is not a multiple of num_heads 3; choose one that divides it"):
        tiny_bridge(num_heads=3)
