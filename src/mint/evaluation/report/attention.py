"""Which audio frames each query attends to: Bridge-Net's cross-attention made visible (paper, section 2.1).

The model computes attention in one fused call that gives no weights; a hook sees its inputs and computes them beside
it, so that a diagnosis changes nothing of what it looks at.
"""

from __future__ import annotations

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
    """Attention weights of the queries over the audio, averaged over heads.

    Args:
        model: a trained stage.
        audio_features: [B, T, audio width].
        audio_mask: [B, T] bool, True: real.
        instruction: ids and mask [B, L] in Bridge-Net's tokens, which stage 2 needs.

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
    """Where the queries look in one window of a clip, averaged over blocks and heads.

    Args:
        model: a trained stage.
        tokenizer: Bridge-Net's.
        window: [T, audio width].
        prompt: the instruction; stage 1 does not read it.
        max_tokens: longest instruction that Bridge-Net reads.

    Returns:
        [Q, T]; each row sums to 1.
    """
    device = model.bridge.queries.device
    part = {name: tensor.to(device) for name, tensor in pad_features([window]).items()}
    ids, mask = (tensor.to(device) for tensor in tokenize(tokenizer, [prompt], max_tokens))
    return query_attention(model, **part, instruction=(ids, mask))[:, 0].mean(dim=0).cpu()


def over_time(attention: Tensor, bands: int) -> Tensor:
    """Attention [Q, T] to an encoder's tokens, summed over those of one moment (`AudioEncoder.bands`): [Q, T / bands].

    Raises:
        MintError: the tokens do not divide into moments.
    """
    if attention.shape[1] % bands:
        raise MintError(f"{attention.shape[1]} frames are not a multiple of {bands} bands; give those of the encoder")
    return attention.unflatten(1, (-1, bands)).sum(dim=2)


@contextmanager
def _watching(bridge: BridgeNet) -> Iterator[list[Tensor]]:
    """The weights [B, Q, T] of each cross-attention that runs inside the context, in order."""
    seen: list[Tensor] = []

    def watch(module: CrossAttention, inputs: tuple[Tensor, Sequence[AudioKeysValues]]) -> None:
        queries, (audio,) = inputs
        keys, _ = audio.pairs[module.index]
        scores = module.split(module.query(queries)) @ keys.transpose(2, 3) / keys.shape[-1] ** 0.5  # [B, H, Q, T]
        scores = scores.masked_fill(~masks.key_padding(audio.mask), -torch.inf)
        seen.append(scores.softmax(dim=-1).mean(dim=1))

    crossing = [getattr(block, "cross_attention", None) for block in bridge.blocks]
    hooks = [part.register_forward_pre_hook(watch) for part in crossing if isinstance(part, nn.Module)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
