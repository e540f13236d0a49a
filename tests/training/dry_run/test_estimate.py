"""The estimate of a step against torch's own FLOP counter and against what autograd really keeps."""

from __future__ import annotations

import gc
import itertools
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from mint.language.lora import attach_lora
from mint.model.bridge_net import BridgeNet
from mint.model.stage1 import Stage1
from mint.model.stage2 import Stage2
from mint.training.accumulation import micro_batches_of
from mint.training.dry_run.costs import adapters_of
from mint.training.dry_run.estimate import (
    ADAM_BYTES,
    GATED,
    PLAIN,
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
from mint.training.trainer import checkpoint_blocks
from mint.types import MintError
from tiny_languages import tiny_language, tiny_seq2seq

BRIDGE: dict[str, Any] = {
    "vocab_size": 60,
    "width": 32,
    "num_layers": 3,
    "num_heads": 4,
    "intermediate": 128,
    "max_positions": 40,
    "audio_width": 24,
    "num_queries": 6,
    "cross_attention_every": 2,
    "dropout": 0.0,
}
OBJECTIVES = [
    dict(zip(("alc", "alm", "atg"), on, strict=True)) for on in itertools.product((False, True), repeat=3) if any(on)
]
"""ATG alone first: it has no negatives."""
SHAPES = Shapes(batch=5, frames=17, text=9, prompt=7, answer=4)


def counted(model: nn.Module, batch: dict[str, Tensor]) -> tuple[int, int, int]:
    """FLOPs of forward and backward, and the numbers that autograd keeps, each storage once, parameters apart."""
    storages: dict[int, int] = {}
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    held = getattr(model, "_language", None)
    if held is not None:
        parameters |= {parameter.untyped_storage().data_ptr() for parameter in held.held.model.parameters()}
    inputs = {tensor.untyped_storage().data_ptr() for tensor in batch.values()}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in parameters | inputs and tensor.is_floating_point():
            storages[place] = tensor.untyped_storage().nbytes() // 4
        return tensor

    before = alive()
    hooks = torch.autograd.graph.saved_tensors_hooks
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        with hooks(keep, lambda tensor: tensor):
            loss = model(**batch)["loss"]
        forward = counter.get_total_flops()
        for tensor in alive() - before:  # what checkpoints hold, no hook sees
            keep(tensor)
        loss.backward()
    return forward, counter.get_total_flops() - forward, sum(storages.values())


def alive() -> set[Tensor]:
    """All tensors that take part in a graph."""
    return {held for held in gc.get_objects() if isinstance(held, Tensor) and held.requires_grad}


def stage1_batch(shapes: Shapes) -> dict[str, Tensor]:
    return {
        "audio_features": torch.randn(shapes.batch, shapes.frames, BRIDGE["audio_width"]),
        "audio_mask": torch.ones(shapes.batch, shapes.frames, dtype=torch.bool),
        "text_ids": torch.randint(3, 59, (shapes.batch, shapes.text)),
        "text_mask": torch.ones(shapes.batch, shapes.text, dtype=torch.bool),
        "draws": torch.arange(shapes.batch),
    }


@pytest.mark.parametrize("objectives", OBJECTIVES, ids=str)
@pytest.mark.parametrize("shapes", [SHAPES, Shapes(batch=3, frames=30, text=12)])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_flops_of_stage_1_are_those_that_torch_counts(
    objectives: dict[str, bool], shapes: Shapes, every: int, checkpointed: bool
) -> None:
    torch.manual_seed(0)
    sizes = {**BRIDGE, "cross_attention_every": every}
    model = Stage1(bridge=BridgeNet(**sizes), dec_token=59, **objectives)
    if checkpointed:
        checkpoint_blocks(model.bridge)
    forward, backward, kept = counted(model, stage1_batch(shapes))
    work = stage1_work(BridgeSizes.of(sizes, checkpointed), shapes, **objectives)
    assert work.forward == forward
    assert work.backward == backward
    assert work.kept == pytest.approx(kept, rel=0.3)


class Products(TorchDispatchMode):
    """Torch's count of the products, without its count by module, which fails where a pass has no gradients."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.total += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


@pytest.mark.parametrize("objectives", OBJECTIVES[1:], ids=str)
@pytest.mark.parametrize("checkpointed", [False, True])
def test_flops_of_accumulated_negatives_are_those_that_torch_counts(
    objectives: dict[str, bool], checkpointed: bool
) -> None:
    torch.manual_seed(0)
    model = Stage1(bridge=BridgeNet(**BRIDGE), dec_token=59, **objectives)
    if checkpointed:
        checkpoint_blocks(model.bridge)
    batches = [stage1_batch(SHAPES) for _ in range(3)]
    with sdpa_kernel(SDPBackend.MATH), Products() as products:  # type: ignore[no-untyped-call]
        for batch, (part, _) in zip(batches, micro_batches_of(model, batches, nullcontext), strict=True):
            model(**batch, micro_batch=part)["loss"].backward()
    work = accumulated_work(BridgeSizes.of(BRIDGE, checkpointed), SHAPES, 3, **objectives)
    assert 3 * work.flops == products.total


@pytest.mark.parametrize(("instruction_aware", "checkpointed"), [(True, False), (False, False), (True, True)])
@pytest.mark.parametrize("family", ["flan", "t5", "llama", "qwen2"])
def test_flops_of_stage_2_are_those_that_torch_counts(family: str, instruction_aware: bool, checkpointed: bool) -> None:
    torch.manual_seed(0)
    language: Any = tiny_seq2seq(family) if family in ("flan", "t5") else tiny_language(family)
    model = Stage2(bridge=BridgeNet(**BRIDGE), language=language, instruction_aware=instruction_aware)
    if checkpointed:
        checkpoint_blocks(model.bridge)
    forward, backward, kept = counted(model, stage2_batch(family, language))
    sizes = BridgeSizes.of(BRIDGE, checkpointed), LanguageSizes.of(language.model.config)
    work = stage2_work(*sizes, SHAPES, instruction_aware)
    assert work.forward == forward
    assert work.backward == backward
    assert work.kept == pytest.approx(kept, rel=0.4)


@pytest.mark.parametrize("family", sorted({*GATED, *PLAIN} - {"llama", "qwen2"}))
def test_flops_of_every_other_causal_family_are_those_that_torch_counts(family: str) -> None:
    torch.manual_seed(0)
    language = tiny_language(family)
    model = Stage2(bridge=BridgeNet(**BRIDGE), language=language)
    forward, backward, _ = counted(model, stage2_batch(family, language))
    work = stage2_work(BridgeSizes.of(BRIDGE), LanguageSizes.of(language.model.config), SHAPES)
    if family == "opt":  # the tiny one projects its narrow embeddings, as OPT-350M alone does
        assert (work.forward, work.backward) == pytest.approx((forward, backward), rel=0.01)
    else:
        assert (work.forward, work.backward) == (forward, backward)


def test_flops_of_a_layer_over_all_queries_are_those_that_torch_counts() -> None:
    torch.manual_seed(0)
    language = tiny_language("llama")
    model = Stage2(bridge=BridgeNet(**BRIDGE), language=language, soft_prompts=2)
    forward, backward, _ = counted(model, stage2_batch("llama", language))
    sizes = BridgeSizes.of(BRIDGE), LanguageSizes.of(language.model.config), SHAPES
    work = stage2_work(*sizes, soft_prompts=2)
    assert (work.forward, work.backward) == (forward, backward)


@pytest.mark.parametrize("family", ["flan", "llama"])
def test_flops_of_adapters_are_those_that_torch_counts(family: str) -> None:
    torch.manual_seed(0)
    language: Any = tiny_seq2seq(family) if family == "flan" else tiny_language(family)
    model = Stage2(bridge=BridgeNet(**BRIDGE), language=language)
    targets = {"flan": ["q", "k", "v", "wo"], "llama": ["q_proj", "down_proj"]}[family]
    model.add_module("lora", attach_lora(language.model, rank=3, alpha=3, dropout=0.0, targets=targets))
    forward, backward, _ = counted(model, stage2_batch(family, language))
    sizes = BridgeSizes.of(BRIDGE), LanguageSizes.of(language.model.config), SHAPES
    adapters = adapters_of(model)
    assert len(adapters) == sum(layer.r == {"default": 3} for layer in language.model.modules() if hasattr(layer, "r"))
    work = stage2_work(*sizes, adapters=adapters)
    assert work.forward == forward
    assert backward == (work.backward if family == "llama" else pytest.approx(work.backward, rel=0.01))


def stage2_batch(family: str, language: Any) -> dict[str, Tensor]:
    vocabulary = language.model.config.vocab_size
    answer = torch.randint(3, vocabulary, (SHAPES.batch, SHAPES.answer))
    prompt = torch.randint(3, vocabulary, (SHAPES.batch, SHAPES.prompt))
    causal = family not in ("flan", "t5")
    whole = torch.cat([prompt, answer], dim=1) if causal else prompt
    labels = torch.cat([torch.full_like(prompt, -100), answer], dim=1) if causal else answer
    return {
        **{name: tensor for name, tensor in stage1_batch(SHAPES).items() if name.startswith("audio")},
        "instruction_ids": torch.randint(3, 59, (SHAPES.batch, SHAPES.text)),
        "instruction_mask": torch.ones(SHAPES.batch, SHAPES.text, dtype=torch.bool),
        "prompt_ids": whole,
        "prompt_mask": torch.ones_like(whole, dtype=torch.bool),
        "labels": labels,
    }


def test_memory_and_seconds() -> None:
    work = Work(forward=100, backward=200, kept=10)
    plain = memory_bytes(work, trained=7, frozen=5, mixed=False)
    assert plain == {
        "trained weights, gradients and moments": 7 * ADAM_BYTES,
        "gathered weights and gradients": 0,
        "features of the whole batch, twice": 0,
        "frozen weights": 20,
        "kept for the backward pass": 40,
        "in all": 7 * ADAM_BYTES + 60,
    }
    assert memory_bytes(work, 7, 5, mixed=True, frozen_bytes=2)["in all"] == 7 * ADAM_BYTES + 30
    spread = memory_bytes(work, 8, 5, mixed=True, shards=4)
    assert spread["trained weights, gradients and moments"] == 2 * ADAM_BYTES
    assert spread["gathered weights and gradients"] == 8 * (2 + 2)
    assert memory_bytes(work, 7, 5, mixed=True, features=3)["features of the whole batch, twice"] == 12
    assert step_seconds(work, "A100", 0.5) == pytest.approx(300 / 156e12)


def test_a_family_that_is_not_known() -> None:
    with pytest.raises(MintError, match="the cost of a 'gpt2' language model is not known"):
        LanguageSizes.of(tiny_language("gpt2").model.config)
