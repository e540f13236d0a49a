"""Which audio frames each query attends to: Bridge-Net's cross-attention made visible (paper, section 2.1).

The model computes attention in one fused call that gives no weights. A hook sees the inputs of the call and computes
the weights beside it, so that looking at a model changes nothing in it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mint.data.batches.collate import pad_features, tokenize
from mint.model import masks
from mint.model.attention import AudioKeysValues, CrossAttention
from mint.model.bridge_net import BridgeNet
from mint.model.evaluating import evaluating
from mint.model.stage1 import Stage1
from mint.model.stage2 import Stage2
from mint.types import MintError


def query_attention(
    model: Stage1 | Stage2, audio_features: Tensor, audio_mask: Tensor, instruction: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Return the attention weights of the queries over the audio, averaged over heads.

    Args:
        model: a trained stage.
        audio_features: [B, T, audio width].
        audio_mask: [B, T] bool, True: real.
        instruction: ids and mask [B, L] in Bridge-Net's tokens; stage 2 needs them.

    Returns:
        [K, B, Q, T] for the K blocks that cross-attend; each row of real frames sums to 1, padded frames have 0.
    """
    with evaluating(model), _watching(model.bridge) as seen:
        if isinstance(model, Stage1):
            model.embed_audio(audio_features, audio_mask)
        else:
            assert instruction is not None
            model.soft_prompt(audio_features, audio_mask, *instruction)
    return torch.stack(seen)


def clip_attention(model: Stage1 | Stage2, tokenizer: Any, window: Tensor, prompt: str, max_tokens: int) -> Tensor:
    """Return where the queries look in one window of a clip, averaged over blocks and heads.

    Args:
        model: a trained stage.
        tokenizer: Bridge-Net's tokenizer.
        window: [T, audio width].
        prompt: the instruction; stage 1 does not read it.
        max_tokens: longest instruction that Bridge-Net reads.

    Returns:
        [Q, T]; each row sums to 1.
    """
    device = model.bridge.queries.device
    batch = pad_features([window])
    ids, mask = tokenize(tokenizer, [prompt], max_tokens)
    attention = query_attention(
        model,
        batch["audio_features"].to(device),
        batch["audio_mask"].to(device),
        instruction=(ids.to(device), mask.to(device)),
    )  # [K, 1, Q, T]
    return attention[:, 0].mean(dim=0).cpu()


def over_time(attention: Tensor, bands: int) -> Tensor:
    """Sum the attention to an encoder's tokens over those of one moment.

    Args:
        attention: [Q, T].
        bands: the number of tokens of one moment (`AudioEncoder.bands`).

    Returns:
        [Q, T / bands].

    Raises:
        MintError: the tokens do not divide into moments.
    """
    if attention.shape[1] % bands:
        raise MintError(f"{attention.shape[1]} frames are not a multiple of {bands} bands; give those of the encoder")
    return attention.unflatten(1, (-1, bands)).sum(dim=2)


@contextmanager
def _watching(bridge: BridgeNet) -> Iterator[list[Tensor]]:
    """Collect the weights [B, Q, T] of each cross-attention that runs inside the block, in order."""
    seen: list[Tensor] = []
    thread = threading.get_ident()

    def watch(module: CrossAttention, inputs: tuple[Tensor, Sequence[AudioKeysValues]]) -> None:
        # Another thread may ask the same model at the same time.
        if threading.get_ident() != thread:
            return
        # Fused attention does not give its weights, so they are computed here once more, as it does.
        queries, (audio,) = inputs
        keys, _ = audio.pairs[module.index]
        scores = module.split(module.query(queries)) @ keys.transpose(2, 3) / keys.shape[-1] ** 0.5  # [B, H, Q, T]
        scores = scores.masked_fill(~masks.key_padding(audio.mask), -torch.inf)
        seen.append(scores.softmax(dim=-1).mean(dim=1))  # [B, Q, T]

    hooks = []
    for block in bridge.blocks:
        attention = getattr(block, "cross_attention", None)
        if isinstance(attention, nn.Module):
            hooks.append(attention.register_forward_pre_hook(watch))
    try:
        yield seen
    finally:
        # Also where the pass fails: a hook that stays would compute weights for ever.
        for hook in hooks:
            hook.remove()
