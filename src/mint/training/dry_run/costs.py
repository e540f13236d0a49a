"""The costs of a recipe's step on one device, as `mint train --dry-run` prints them, from the models as built.

The estimate is for a batch of clips of `SECONDS` with texts as long as the recipe allows. The frozen encoder's FLOPs
are counted by torch on one such clip; its features come from the cache, so they are paid once, not in every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mint.builders.bridge import bridge_sizes
from mint.config import Recipe
from mint.language.causal import CausalLanguageModel
from mint.language.shard import find_blocks
from mint.training.dry_run.estimate import (
    PEAK_FLOPS,
    Adapter,
    BridgeSizes,
    LanguageSizes,
    Shapes,
    Work,
    accumulated_work,
    memory_bytes,
    stage1_work,
    stage2_work,
    step_seconds,
)
from mint.training.trainer import is_checkpointed
from mint.types import AudioEncoder, LanguageModel

SECONDS = 10.0
"""Of a clip, where `data.max_seconds` allows it."""


@dataclass(frozen=True)
class Costs:
    """The costs of one rank's part of a step."""

    shapes: Shapes
    """The sizes of a micro-batch."""
    parts: int
    """Micro-batches of a step."""
    work: Work
    """The work of a micro-batch."""
    memory: dict[str, int]
    """Bytes by what they are needed for."""
    seconds: dict[str, float]
    """Seconds of the step by device, at `estimate.UTILISATION` of its peak."""
    encoder_flops: int
    """FLOPs of encoding one clip."""


def estimate_costs(
    recipe: Recipe,
    stage: Any,
    language: LanguageModel | None,
    encoder: AudioEncoder,
    tokenizer: Any,
    arguments: Any,
    trained: int,
    frozen: int,
    ranks: int = 1,
) -> Costs:
    """Estimate the costs of a recipe.

    Args:
        recipe: the run.
        stage: its model.
        language: its language model, in stage 2.
        encoder: the frozen encoder.
        tokenizer: Bridge-Net's.
        arguments: `TrainingArguments`.
        trained: numbers.
        frozen: numbers that stand on the device; the encoder does not.
        ranks: among which a global batch is shared.

    Raises:
        MintError: a language model whose cost is not known.
    """
    # With texts as long as the recipe allows, which is what must fit into memory; the mean step takes less.
    frames, flops = encode_one(encoder, min(SECONDS, recipe.data.max_seconds))
    text = recipe.bridge.max_text_tokens
    prompt = text
    if isinstance(language, CausalLanguageModel):
        # A chat template writes around the prompt; an earlier turn is the prompt and an end more.
        prompt += len(language.opening) + len(language.prompt_tokens(""))
        prompt += text + 1 if language.earlier_turn else 0
    shapes = Shapes(arguments.train_batch_size, frames, text, prompt=prompt, answer=text, ranks=ranks)

    parts, sizes = arguments.gradient_accumulation_steps, bridge_sizes(recipe.bridge, encoder.width, len(tokenizer))
    bridge = BridgeSizes.of(sizes, checkpointed=is_checkpointed(stage.bridge))
    joined = recipe.accumulate_negatives and parts > 1
    if recipe.objectives is not None:
        on = (recipe.objectives.alc, recipe.objectives.alm, recipe.objectives.atg)
        work = accumulated_work(bridge, shapes, parts, *on) if joined else stage1_work(bridge, shapes, *on)
    else:
        model: Any = language.model  # type: ignore[union-attr]  # every adapter holds its model
        adapters = adapters_of(stage)
        work = stage2_work(
            bridge, LanguageSizes.of(model.config), shapes, recipe.instruction_aware, adapters, recipe.soft_prompts
        )
        if recipe.language is not None and recipe.language.shard:
            frozen = sharded(model, frozen, ranks)

    memory = memory_bytes(
        work,
        trained,
        frozen,
        mixed=bool(arguments.bf16),
        frozen_bytes=2 if recipe.language is not None and recipe.language.dtype == "bfloat16" else 4,
        shards=ranks if arguments.fsdp else 1,
        # The micro-batches, and the padded whole that `micro_batches_of` makes of them.
        features=2 * parts * shapes.batch * frames * encoder.width if joined else 0,
    )
    seconds = {device: step_seconds(work * parts, device) for device in PEAK_FLOPS}
    return Costs(shapes, parts, work, memory, seconds, flops)


def sharded(model: Any, frozen: int, ranks: int) -> int:
    """Return the numbers of a frozen language model that each of the ranks holds which share its blocks."""
    if ranks == 1:
        return frozen

    blocks = []
    for block in find_blocks(model):
        blocks.append(sum(parameter.numel() for parameter in block.parameters()))
    # Embeddings and head are whole on each rank, and so is the one block that is gathered while it runs.
    return frozen - sum(blocks) + sum(blocks) // ranks + max(blocks)


def adapters_of(stage: nn.Module) -> list[Adapter]:
    """Return the low-rank adapters of a stage model, by `mint.language.lora`'s names of their layers."""
    layers: Any = getattr(stage, "lora", nn.ModuleDict())
    adapters = []
    for name, layer in layers.items():
        inputs, rank, outputs = layer["A"].in_features, layer["A"].out_features, layer["B"].out_features
        # T5's names: the encoder, and what the decoder's cross-attention takes from it.
        reads_prefix = name.startswith("encoder/") or name.endswith(("EncDecAttention/k", "EncDecAttention/v"))
        adapters.append(Adapter(inputs, outputs, rank, reads_prefix))
    return adapters


def encode_one(encoder: AudioEncoder, seconds: float) -> tuple[int, int]:
    """Return the frames of one clip, and the FLOPs of encoding it (matrix products and convolutions)."""
    samples = round(seconds * encoder.sample_rate)
    # An encoder without weights runs on the CPU.
    device = next(iter([*_tensors(encoder), torch.empty(0)])).device
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # not every fast kernel is counted
        features, _ = encoder.encode(torch.zeros(1, samples, device=device), torch.tensor([samples], device=device))
    return features.shape[1], counter.get_total_flops()


def _tensors(encoder: Any) -> list[torch.Tensor]:
    return [*encoder.parameters(), *encoder.buffers()] if isinstance(encoder, nn.Module) else []
