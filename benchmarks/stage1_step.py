"""What does a step of stage 1 cost against the published recipe?

Ours against BLIP-2's recipe written plainly on transformers' Q-Former (`plain_stage1.py`): same weights, same batch,
same precision. The recipe runs twice, with the captions padded to 30 tokens as published, and padded to the longest of
the batch. Losses and gradients are compared in float32 without dropout before anything is timed; then dropout is that
of the shape. On an accelerator the timed steps run in bfloat16.

    python benchmarks/stage1_step.py [--shape quickstart paper paper-long] [--batch 8] [--dropout 0] [--device cuda]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

import torch

from common import Row, add_device, parser, report
from plain_stage1 import PlainStage1, draw_as_ours
from shapes import PAPER, PAPER_LONG, QUICKSTART, TINY, Shape, on_device, pad_text, same_shape
from steps import Step, check_equal, check_gradients, measure, memory_in_children, memory_of, precision

SHAPES = {"tiny": TINY, "quickstart": QUICKSTART, "paper": PAPER, "paper-long": PAPER_LONG}
OURS, PUBLISHED, DYNAMIC = "MINT", "BLIP-2, text padded to 30", "BLIP-2, dynamic padding"
NAMES = (OURS, PUBLISHED, DYNAMIC)
AIMS = {
    499: {PUBLISHED: 2.0, DYNAMIC: 1.5},
    1499: {PUBLISHED: 2.5, DYNAMIC: 1.5},
}
"""Wanted ratios of time, by frames."""
MEMORY_AIM = 1 / 0.6
ACCELERATOR_BATCH = 64
"""Pairs a GPU (paper, section 3.2)."""


def main() -> None:
    options = read_options()
    if options.memory is not None:
        (shape,) = chosen_shapes(options)
        print(json.dumps(memory_of(make_step(options.memory, shape, options.device))))
        return
    rows: list[Row] = []
    for shape in chosen_shapes(options):
        check(shape, options.device)
        rows += measure_shape(shape, options)
    report("stage1_step", rows, options, device=options.device)


def read_options() -> argparse.Namespace:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--shape", nargs="+", choices=SHAPES, help="(quickstart and paper; with --all paper-long too)")
    options.add_argument("--batch", type=int, help="pairs (the shape's; 64 on an accelerator)")
    options.add_argument("--dropout", type=float, help="(the recipe's: 0.1 at the paper's shape, else none)")
    options.add_argument("--memory", choices=NAMES, help=argparse.SUPPRESS)
    add_device(options)
    return options.parse_args()


def chosen_shapes(options: argparse.Namespace) -> list[Shape]:
    default = ["tiny"] if options.quick else ["quickstart", "paper", *(["paper-long"] if options.all else [])]
    shapes = [SHAPES[name] for name in options.shape or default]
    batch = options.batch or (ACCELERATOR_BATCH if options.device != "cpu" and not options.quick else None)
    shapes = [replace(shape, batch=batch or shape.batch) for shape in shapes]
    return [shape if options.dropout is None else replace(shape, dropout=options.dropout) for shape in shapes]


def check(shape: Shape, device: str) -> None:
    """Losses and gradients of the three are the same, in float32 and without dropout."""
    shape = replace(shape, dropout=0.0)
    stage = shape.stage1().to(device)
    plain = PlainStage1(stage).to(device)
    for name, batch in ((PUBLISHED, pad_text(shape.pairs())), (DYNAMIC, shape.pairs())):
        ours = stage(**on_device(shape.pairs(), device))
        theirs = plain(**on_device(batch, device), draw=draw_as_ours)
        check_equal(ours, theirs, name)
        (own,) = torch.autograd.grad(ours["loss"], stage.bridge.audio_norm.weight)
        (other,) = torch.autograd.grad(theirs["loss"], plain.ln_audio.weight)
        check_gradients(own, other, name)


def measure_shape(shape: Shape, options: argparse.Namespace) -> list[Row]:
    steps = [make_step(name, shape, options.device) for name in NAMES]
    memory = memory_in_children("stage1_step.py", NAMES, same_shape(shape, SHAPES, options.device))
    aims = AIMS.get(shape.frames, {})
    return measure(shape.case, steps, options.rounds, memory, aims, {PUBLISHED: MEMORY_AIM} if aims else {})


def make_step(name: str, shape: Shape, device: str) -> Step:
    stage = shape.stage1()
    pairs = shape.pairs()
    model: torch.nn.Module = stage if name == OURS else PlainStage1(stage)
    batch = on_device(pad_text(pairs) if name == PUBLISHED else pairs, device)
    model.to(device).train()

    def loss() -> torch.Tensor:
        with precision(device):
            found: torch.Tensor = model(**batch)["loss"]
            return found

    return Step(name, model, loss)


if __name__ == "__main__":
    main()
