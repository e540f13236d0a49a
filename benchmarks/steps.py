"""What can be asked of a training step: is it equal to another one, how long does it take, what does it need.

A step here is forward and backward. The optimiser is left out: it is the same for whatever is compared.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from common import Row, add_device, alternate, compare, in_child, parser, peak_memory, report
from shapes import Shape, same_shape

TOLERANCE = 1e-4
"""How far losses may differ before anything is timed."""
GRADIENT_TOLERANCE = 1e-3
"""Likewise the gradient of the audio's LayerNorm, which all passes reach: norm of the difference over the norm."""


ACCELERATOR_BATCH = 64
"""Pairs a GPU (paper, section 3.2)."""


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


@dataclass(frozen=True)
class StepBenchmark:
    """Steps of one stage beside each other, at several shapes; the first name is ours."""

    name: str
    """Of the script."""
    question: str
    shapes: Mapping[str, Shape]
    """By the names that `--shape` takes; `tiny` is for `--quick`."""
    short: tuple[str, ...]
    """Shapes of the short set."""
    names: tuple[str, ...]
    """Of the steps."""
    check: Callable[[Shape, str], None]
    """Refuses a shape on a device at which the steps do not compute the same."""
    make_step: Callable[[str, Shape, str], Step]
    aims: Callable[[Shape], tuple[dict[str, float], dict[str, float]]]
    """Wanted ratios of time and of memory by peer."""

    def main(self) -> None:
        """The script."""
        options = self._read_options()
        if options.memory is not None:
            (shape,) = self._chosen_shapes(options)
            print(json.dumps(memory_of(self.make_step(options.memory, shape, options.device))))
            return
        rows: list[Row] = []
        for shape in self._chosen_shapes(options):
            self.check(shape, options.device)
            rows += self._measure(shape, options)
        report(self.name, rows, options, device=options.device)

    def _read_options(self) -> argparse.Namespace:
        options = parser(self.question)
        options.add_argument(
            "--shape", nargs="+", choices=self.shapes, help=f"(with --all: all but tiny; {self.short})"
        )
        options.add_argument("--batch", type=int, help=f"(the shape's; {ACCELERATOR_BATCH} on an accelerator)")
        options.add_argument("--dropout", type=float, help="(the recipe's: 0.1 at the paper's shape, else none)")
        options.add_argument("--memory", choices=self.names, help=argparse.SUPPRESS)
        add_device(options)
        return options.parse_args()

    def _chosen_shapes(self, options: argparse.Namespace) -> list[Shape]:
        usual = [name for name in self.shapes if name != "tiny"] if options.all else self.short
        shapes = [self.shapes[name] for name in options.shape or (["tiny"] if options.quick else usual)]
        batch = options.batch or (ACCELERATOR_BATCH if options.device != "cpu" and not options.quick else None)
        shapes = [replace(shape, batch=batch or shape.batch) for shape in shapes]
        return [shape if options.dropout is None else replace(shape, dropout=options.dropout) for shape in shapes]

    def _measure(self, shape: Shape, options: argparse.Namespace) -> list[Row]:
        """Time, peak memory, kept activations and work; memory in a process of its own for each step."""
        same = same_shape(shape, self.shapes, options.device)
        memory = {name: in_child(f"{self.name}.py", [*same, "--memory", name]) for name in self.names}
        steps = [self.make_step(name, shape, options.device) for name in self.names]
        time_aims, memory_aims = self.aims(shape)
        seconds = alternate({step.name: step for step in steps}, options.rounds)
        measures: dict[str, tuple[str, dict[str, Any], dict[str, float]]] = {
            "peak memory": ("B", memory, memory_aims),
            "kept for the backward pass": ("B", {step.name: step.saved_bytes() for step in steps}, {}),
            "operations": ("FLOP", {step.name: step.flops() for step in steps}, {}),
        }
        ours, *peers = self.names
        return compare(shape.case, "time of a step", seconds, time_aims) + [
            Row(shape.case, name, unit, values[ours], peer, values[peer], wanted.get(peer))
            for name, (unit, values, wanted) in measures.items()
            if values[ours] is not None
            for peer in peers
        ]


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
