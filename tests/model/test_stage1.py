"""Stage 1 shares work between its objectives; its losses and gradients equal those of plain, separate passes."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mint.model import masks
from mint.model.bridge_net import BridgeNet
from mint.model.objectives.alm import pair_noise
from mint.model.stage1 import Stage1
from tiny_models import BRIDGE, DEC, present, randomise, tiny_batch, tiny_bridge

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}
SWITCHES = [dict(zip(("alc", "alm", "atg"), on, strict=True)) for on in itertools.product([True, False], repeat=3)][:-1]
"""Every combination but the empty one."""


def name_of(switches: dict[str, bool]) -> str:
    return "+".join(name for name, on in switches.items() if on)


def make_stage(dtype: torch.dtype = torch.float32, **options: Any) -> Stage1:
    stage = Stage1(bridge=tiny_bridge(), dec_token=DEC, shared_width=8, **options)
    temperature = stage.temperature.detach().clone()
    randomise(stage, seed=5)
    stage.temperature.data.copy_(temperature)
    return stage.to(dtype).eval()


def plain_negatives(to_texts: Tensor, to_clips: Tensor, batch: dict[str, Tensor]) -> tuple[list[Any], list[Any]]:
    """A hard negative clip for each text and text for each clip, None where all captions are equal."""
    captions = [ids[real].tolist() for ids, real in zip(batch["text_ids"], batch["text_mask"], strict=True)]
    clips: list[Any] = []
    texts: list[Any] = []
    for scores, salt, drawn in ((to_clips, 1, clips), (to_texts, 2, texts)):
        noise = pair_noise(batch["draws"], batch["draws"], salt=salt)
        for row, caption in enumerate(captions):
            keys = {
                column: float(scores[row, column].detach() + noise[row, column])
                for column, other in enumerate(captions)
                if other != caption
            }
            drawn.append(max(keys, key=lambda column: keys[column]) if keys else None)
    return clips, texts


def plain_losses(stage: Stage1, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The three objectives as the paper has them: each by passes of its own, from the raw features."""
    bridge, count = stage.bridge, len(batch["draws"])
    features, audio_mask, ids, real = (
        batch[name] for name in ("audio_features", "audio_mask", "text_ids", "text_mask")
    )
    # ALC: a pass of the queries, a pass of the text.
    queries = present(bridge.encode_queries(bridge.project_audio(features, audio_mask)).queries)
    text = present(bridge.encode_text(ids, real).text)
    clips_in_space = functional.normalize(stage.audio_projection(queries), dim=-1)
    texts_in_space = functional.normalize(stage.text_projection(text[:, 0]), dim=-1)
    rows = [torch.stack([(clip @ other).max() for other in texts_in_space]) for clip in clips_in_space]
    scores = torch.stack(rows) / stage.temperature
    alc = torch.zeros((), dtype=features.dtype)
    for directed in (scores, scores.T):
        smoothed = 0.1 / count + 0.9 * torch.eye(count, dtype=features.dtype)
        alc = alc - (smoothed * directed.log_softmax(dim=1)).sum() / (2 * count)

    # ALM: a joint pass of every pair by itself, from the raw features.
    clips, texts = plain_negatives(scores, scores.T, batch)
    pairs = [(row, row, 1) for row in range(count)]
    pairs += [(clip, row, 0) for row, clip in enumerate(clips) if clip is not None]
    pairs += [(row, other, 0) for row, other in enumerate(texts) if other is not None]
    terms = []
    for clip, row, label in pairs:
        one = bridge.encode_pair(
            bridge.project_audio(features[clip : clip + 1], audio_mask[clip : clip + 1]),
            ids[row : row + 1],
            real[row : row + 1],
        )
        if stage.matching_head is not None:
            logits = stage.matching_head(present(one.queries)[0]).mean(dim=0)
            terms.append(-logits.log_softmax(dim=0)[label])

    losses = {"alc": alc}
    if terms:
        losses["alm"] = torch.stack(terms).mean()

    # ATG: one joint pass under the causal mask, logits for every position.
    if stage.language_head is None:
        return losses
    started = torch.cat([torch.full((count, 1), stage.dec_token), ids[:, 1:]], dim=1)
    audio = bridge.project_audio(features, audio_mask)
    joint = bridge.encode_pair(audio, started, real, masks.causal)
    logits = stage.language_head(present(joint.text), bridge.word_embeddings.weight)
    labels = ids.masked_fill(~real, -100)
    atg = functional.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], label_smoothing=0.1)
    return {**losses, "atg": atg}


def gradients(stage: Stage1, loss: Tensor) -> dict[str, Tensor]:
    trained = {name: weight for name, weight in stage.named_parameters() if weight.requires_grad}
    names, parameters = tuple(trained), tuple(trained.values())
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for name, parameter, gradient in zip(names, parameters, found, strict=True)
    }


@pytest.mark.parametrize("switches", SWITCHES, ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_and_gradients_equal_those_of_separate_passes(dtype: torch.dtype, switches: dict[str, bool]) -> None:
    stage, batch = make_stage(dtype, **switches), tiny_batch(batch=6, dtype=dtype)
    losses = stage(**batch)
    plain = {name: loss for name, loss in plain_losses(stage, batch).items() if switches[name]}
    assert losses.keys() == {"loss", *plain}
    close = partial(torch.testing.assert_close, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    for name, loss in plain.items():
        close(losses[name], loss)
    total = torch.stack(list(plain.values())).sum()
    close(losses["loss"], total)
    ours, theirs = gradients(stage, losses["loss"]), gradients(stage, total)
    for name, gradient in theirs.items():
        close(ours[name], gradient, msg=f"the gradients of {name} differ")


@pytest.mark.parametrize("switches", [on for on in SWITCHES if on["alc"]], ids=name_of)
def test_what_is_trained_has_a_gradient_and_nothing_else(switches: dict[str, bool]) -> None:
    """In every row of the paper's Table 5, so that data parallelism finds no parameter without gradient."""
    stage = make_stage(torch.float32, **switches).train()
    stage(**tiny_batch())["loss"].backward()
    for name, parameter in stage.named_parameters():
        assert parameter.requires_grad, name
        assert parameter.grad is not None, name
    heads = {"alm": "matching_head.weight", "atg": "language_head.bias"}
    assert {name for name, head in heads.items() if head in stage.state_dict()} == {
        name for name in heads if switches[name]
    }


def test_padding_changes_no_loss() -> None:
    stage, batch = make_stage(), tiny_batch(batch=6)
    batch["text_ids"][2], batch["text_mask"][2] = batch["text_ids"][4].clone(), batch["text_mask"][4].clone()
    garbage = torch.randint(0, 39, (6, 3), generator=torch.Generator().manual_seed(9))
    under_mask = torch.randint(0, 39, (6, 6), generator=torch.Generator().manual_seed(8))
    padded = {
        "audio_features": torch.cat([batch["audio_features"], torch.full((6, 4, 10), 1e3)], dim=1),
        "audio_mask": functional.pad(batch["audio_mask"], (0, 4)),
        "text_ids": torch.cat([torch.where(batch["text_mask"], batch["text_ids"], under_mask), garbage], dim=1),
        "text_mask": functional.pad(batch["text_mask"], (0, 3)),
        "draws": batch["draws"],
    }
    for name, loss in stage(**batch).items():
        torch.testing.assert_close(stage(**padded)[name], loss, atol=1e-5, rtol=0.0)


def test_the_order_of_the_batch_changes_no_loss() -> None:
    stage, batch = make_stage(), tiny_batch(batch=8)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    moved = stage(**{name: tensor[order] for name, tensor in batch.items()})
    for name, loss in stage(**batch).items():
        torch.testing.assert_close(moved[name], loss, atol=1e-5, rtol=0.0)


def test_draws_decide_the_negatives() -> None:
    stage, batch = make_stage(), tiny_batch(batch=8)
    losses = [stage(**{**batch, "draws": batch["draws"] + shift})["alm"].item() for shift in range(5)]
    assert len(set(losses)) > 1
    assert stage(**batch)["alm"].item() == losses[0]


@pytest.mark.parametrize("count", [1, 4])
def test_batches_without_negatives_are_finite(count: int) -> None:
    """One pair, and several of one caption: matching learns from the true pairs alone."""
    stage, batch = make_stage(), tiny_batch(batch=count)
    batch["text_ids"][:], batch["text_mask"][:] = batch["text_ids"][-1].clone(), batch["text_mask"][-1].clone()
    losses = stage(**batch)
    true_pairs = stage.match(
        stage.bridge.project_audio(batch["audio_features"], batch["audio_mask"]), batch["text_ids"], batch["text_mask"]
    )
    torch.testing.assert_close(losses["alm"], -true_pairs.log_softmax(dim=1)[:, 1].mean())
    losses["loss"].backward()
    for name, parameter in stage.named_parameters():
        assert present(parameter.grad).isfinite().all(), name


def test_losses_at_random_initialisation() -> None:
    """ALC about log B, ALM about log 2, ATG about log V."""
    torch.manual_seed(0)
    sizes = {**BRIDGE, "vocab_size": 1000, "width": 128, "num_heads": 8, "intermediate": 256, "num_layers": 4}
    stage = Stage1(bridge=BridgeNet(**sizes), dec_token=999).eval()
    losses = stage(**tiny_batch(batch=32))
    assert losses["alc"].item() == pytest.approx(math.log(32), rel=0.1)
    assert losses["alm"].item() == pytest.approx(math.log(2), rel=0.1)
    assert losses["atg"].item() == pytest.approx(math.log(1000), rel=0.1)


@pytest.mark.parametrize(("start", "kept"), [(2.0, 0.5), (-1.0, 0.001), (0.07, 0.07)])
def test_temperature_is_kept_in_its_range_and_can_come_back(start: float, kept: float) -> None:
    stage = make_stage()
    stage.temperature.data.fill_(start)
    stage(**tiny_batch())["loss"].backward()
    assert stage.temperature.item() == pytest.approx(kept)
    assert present(stage.temperature.grad).abs().item() > 0


def test_embeddings_and_matching_are_those_of_the_losses() -> None:
    stage, batch = make_stage(), tiny_batch()
    clips = stage.embed_audio(batch["audio_features"], batch["audio_mask"])
    texts = stage.embed_text(batch["text_ids"], batch["text_mask"])
    assert clips.shape == (4, 3, 8)
    assert texts.shape == (4, 8)
    torch.testing.assert_close(clips.norm(dim=-1), torch.ones(4, 3))
    torch.testing.assert_close(texts.norm(dim=-1), torch.ones(4))
    scores = torch.einsum("nqe,me->nmq", clips, texts).amax(dim=-1) / 0.07
    targets = torch.arange(4)
    expected = sum(functional.cross_entropy(s, targets, label_smoothing=0.1) for s in (scores, scores.T)) / 2
    torch.testing.assert_close(stage(**batch)["alc"], expected)
    audio = stage.bridge.project_audio(batch["audio_features"], batch["audio_mask"])
    assert stage.match(audio, batch["text_ids"], batch["text_mask"]).shape == (4, 2)


def test_bfloat16_autocast_gives_nearly_the_same_losses() -> None:
    stage, batch = make_stage(), tiny_batch(batch=6)
    with torch.autocast("cpu", torch.bfloat16):
        losses = stage(**batch)
    losses["loss"].backward()
    expected = stage(**batch)
    for name in ("alc", "atg"):
        torch.testing.assert_close(losses[name], expected[name], atol=0.0, rtol=0.05)
    for name, parameter in stage.named_parameters():
        assert present(parameter.grad).isfinite().all(), name
