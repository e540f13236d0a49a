"""What can be asked of a training step: is it equal to another one, how long does it take, what does it need.

A step here is forward and backward. The optimiser is left out: it is the same for whatever is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from common import Row, alternate, compare, in_child, peak_memory

TOLERANCE = 1e-4
"""How far losses may differ before anything is timed."""
GRADIENT_TOLERANCE = 1e-3
"""Likewise the gradient of the audio's LayerNorm, which all passes reach: norm of the difference over the norm."""


@dataclass(frozen=True)
class Step:
    """One way to compute a loss and its gradients."""

    name: str
    model: nn.Module
    loss: Callable[[], Tensor]
    held: tuple[nn.Module, ...] = ()
    """Frozen models that the loss uses and that are no children of the model."""

    def __call__(self) -> None:
        """Forward and backward; the gradients are made anew."""
        self.model.zero_grad(set_to_none=True)
        self.loss().backward()

    def accumulate(self) -> None:
        """Forward and backward onto the gradients that are there: nothing is allocated for these."""
        self.loss().backward()

    def flops(self) -> int:
        """Floating-point operations of matrix products and attention, forward and backward."""
        with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
            self()
        return int(counter.get_total_flops())

    def saved_bytes(self) -> int:
        """Bytes that the forward pass keeps for the backward pass, weights apart; the same on any machine."""
        weights = [tensor for module in (self.model, *self.held) for tensor in module.state_dict().values()]
        own = {tensor.untyped_storage().data_ptr() for tensor in weights}
        kept: dict[int, Tensor] = {}

        def pack(tensor: Tensor) -> Tensor:
            tensor = tensor.detach()  # a graph that holds a tensor that holds the graph would never be freed
            if tensor.untyped_storage().data_ptr() not in own:
                kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no address comes twice
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = self.loss()
        total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
        del loss
        return total


def check_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor], peer: str) -> None:
    """Compare losses by name.

    Raises:
        SystemExit: they differ; a speed is worth nothing then.
    """
    for name, loss in ours.items():
        difference = abs(loss.item() - theirs[name].item())
        if not difference <= TOLERANCE * max(1.0, abs(loss.item())):
            raise SystemExit(f"{name} is {loss.item()}, but {theirs[name].item()} for {peer}: not the same computation")


def check_gradients(ours: Tensor | None, theirs: Tensor | None, peer: str) -> None:
    """Compare the gradients of one parameter.

    Raises:
        SystemExit: they differ.
    """
    assert ours is not None
    assert theirs is not None
    difference = float((ours - theirs).norm() / theirs.norm())
    if not difference <= GRADIENT_TOLERANCE:
        raise SystemExit(f"gradients differ from those of {peer} by {difference:.1e} of their norm")


def measure(
    case: str,
    steps: Sequence[Step],
    rounds: int,
    memory: dict[str, int | None],
    aims: dict[str, float],
    memory_aims: dict[str, float],
) -> list[Row]:
    """Rows of time, work, kept activations and peak memory; the first step is ours."""
    seconds = alternate({step.name: step for step in steps}, rounds)
    rows = compare(case, "time of a step", seconds, aims)
    measures: dict[str, tuple[str, dict[str, Any], dict[str, float]]] = {
        "peak memory": ("B", memory, memory_aims),
        "kept for the backward pass": ("B", {step.name: step.saved_bytes() for step in steps}, {}),
        "operations": ("FLOP", {step.name: step.flops() for step in steps}, {}),
    }
    ours = steps[0].name
    for name, (unit, values, wanted) in measures.items():
        if values.get(ours) is not None:
            rows += [
                Row(case, name, unit, values[ours], step.name, values[step.name], wanted.get(step.name))
                for step in steps[1:]
            ]
    return rows


def memory_in_children(script: str, names: Sequence[str], arguments: Sequence[str]) -> dict[str, int | None]:
    """Peak memory of each step by name, each in a process of its own that runs `script --memory NAME`."""
    return {name: in_child(script, [*arguments, "--memory", name]) for name in names}


def memory_of(step: Step) -> int | None:
    """Bytes that a step needs beyond weights and gradients, once all that is made once is made."""
    step()
    step.accumulate()
    return peak_memory(step.accumulate)


@contextmanager
def precision(device: str) -> Iterator[None]:
    """Float32 on CPU; on an accelerator bfloat16 where autocast allows it."""
    with torch.autocast("cuda", torch.bfloat16, enabled=device.startswith("cuda")):
        yield


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))


CPU_ATTENTION: dict[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Fused attention on CPU, which torch's own counter does not know."""
