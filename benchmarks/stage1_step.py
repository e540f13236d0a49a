"""What does a step of stage 1 cost against the published recipe?

Ours against BLIP-2's recipe written plainly on transformers' Q-Former (`plain_stage1.py`): same weights, same batch,
same precision. The recipe runs twice, with the captions padded to 30 tokens as published, and padded to the longest of
the batch. Losses and gradients are compared in float32 without dropout before anything is timed; then dropout is that
of the shape. On an accelerator the timed steps run in bfloat16.

    python benchmarks/stage1_step.py [--shape quickstart paper paper-long] [--batch 8] [--dropout 0] [--device cuda]
"""

from __future__ import annotations

from dataclasses import replace

import torch

from plain_stage1 import PlainStage1, draw_as_ours
from shapes import PAPER, PAPER_LONG, QUICKSTART, TINY, Shape, on_device, pad_text
from steps import Step, StepBenchmark, check_equal, check_gradients, precision

SHAPES = {"tiny": TINY, "quickstart": QUICKSTART, "paper": PAPER, "paper-long": PAPER_LONG}
OURS, PUBLISHED, DYNAMIC = "MINT", "BLIP-2, text padded to 30", "BLIP-2, dynamic padding"
NAMES = (OURS, PUBLISHED, DYNAMIC)
AIMS = {
    499: {PUBLISHED: 2.0, DYNAMIC: 1.5},
    1499: {PUBLISHED: 2.5, DYNAMIC: 1.5},
}
"""Wanted ratios of time, by frames."""
MEMORY_AIM = 1 / 0.6


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


def aims(shape: Shape) -> tuple[dict[str, float], dict[str, float]]:
    """Wanted ratios of time and of memory."""
    wanted = AIMS.get(shape.frames, {})
    return wanted, {PUBLISHED: MEMORY_AIM} if wanted else {}


BENCHMARK = StepBenchmark(
    "stage1_step", __doc__.splitlines()[0], SHAPES, ("quickstart", "paper"), NAMES, check, make_step, aims
)

if __name__ == "__main__":
    BENCHMARK.main()
