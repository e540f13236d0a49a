"""What does a step of stage 2 cost against InstructBLIP in transformers?

InstructBLIP's own forward at equal sizes (`plain_stage2.py`): same weights, same batch, same precision, and the very
same frozen language model, SmolLM2-135M-Instruct. Losses and gradients are compared in float32 without dropout before
anything is timed. Half of the answers are labels, half captions. On an accelerator the timed steps run in bfloat16.

    python benchmarks/stage2_step.py [--shape quickstart paper] [--batch 8] [--device cuda]
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mint.builders.language import build_language
from mint.config import LanguageConfig
from mint.language.causal import CausalLanguageModel
from mint.model.stage2 import Stage2
from mint.types import CAPTION_PROMPT
from plain_stage2 import arguments, instructblip
from shapes import PAPER, QUICKSTART, TINY, Shape, on_device
from steps import Step, StepBenchmark, check_equal, check_gradients, precision

SHAPES = {"tiny": TINY, "quickstart": replace(QUICKSTART, batch=16), "paper": PAPER}
OURS, THEIRS = "MINT", "InstructBLIP in transformers"
NAMES = (OURS, THEIRS)
AIMS, MEMORY_AIMS = {THEIRS: 1.3}, {THEIRS: 1 / 0.7}
PAIRS = (
    ("This is a sound of", "water"),
    (CAPTION_PROMPT, "A train passes over a bridge while birds sing in the trees nearby."),
    ("The genre of this music is", "drum and bass"),
    (CAPTION_PROMPT, "Someone walks slowly over dry leaves and stops."),
    ("The most prominent instrument in this music is", "guitar"),
    (CAPTION_PROMPT, "A slow, soft melody is played on the piano in the middle register."),
    ("Identify the instruments in this segment of music:", "cello, flute, piano"),
    (CAPTION_PROMPT, "Rain falls on a tin roof, then thunder rolls in the distance."),
)
"""Prompts of the paper's Table 1, each with an answer of the usual length."""


def check(shape: Shape, device: str) -> None:
    """Losses and gradients of both are the same, in float32 and without dropout."""
    stage = make_stage(replace(shape, dropout=0.0), device)
    plain = instructblip(stage).to(device)
    batch = make_batch(shape, stage, device)
    ours, theirs = stage(**batch), {"loss": plain(**arguments(batch, plain)).loss}
    check_equal(ours, theirs, THEIRS)
    (own,) = torch.autograd.grad(ours["loss"], stage.bridge.audio_norm.weight)
    (other,) = torch.autograd.grad(theirs["loss"], plain.vision_model.norm.weight)
    check_gradients(own, other, THEIRS)


def make_stage(shape: Shape, device: str) -> Stage2:
    config = LanguageConfig(family="tiny") if shape.name == "tiny" else LanguageConfig()
    language = build_language(config, device)
    return Stage2(bridge=shape.bridge(), language=language).to(device)


def make_batch(shape: Shape, stage: Stage2, device: str) -> dict[str, Any]:
    """A batch of `Stage2.forward`; the instruction in Bridge-Net's tokens is as long as the prompt in words."""
    prompts, answers = zip(*itertools.islice(itertools.cycle(PAIRS), shape.batch), strict=True)
    counts = torch.tensor([len(prompt.split()) + 2 for prompt in prompts])
    mask = torch.arange(int(counts.max())) < counts[:, None]
    ids = torch.randint(1, shape.vocabulary - 1, mask.shape, generator=torch.Generator().manual_seed(3))
    instruction: dict[str, Tensor] = {"instruction_ids": ids.masked_fill(~mask, 0), "instruction_mask": mask}
    return on_device({**shape.audio(), **instruction, **stage.language.collate(prompts, answers)}, device)


def make_step(name: str, shape: Shape, device: str) -> Step:
    stage = make_stage(shape, device)
    assert isinstance(stage.language, CausalLanguageModel)
    frozen = stage.language.model
    batch = make_batch(shape, stage, device)
    model: Any = stage if name == OURS else instructblip(stage).to(device)
    model.train()
    if name != OURS:
        model.language_model.eval()  # frozen, as ours is
        batch = arguments(batch, model)

    def loss() -> Tensor:
        with precision(device):
            found: Tensor = model(**batch)["loss"]
            return found

    return Step(name, model, loss, held=(frozen,))


def aims(shape: Shape) -> tuple[dict[str, float], dict[str, float]]:
    """Wanted ratios of time and of memory."""
    return (AIMS, MEMORY_AIMS) if shape.name != "tiny" else ({}, {})


BENCHMARK = StepBenchmark(
    "stage2_step", __doc__.splitlines()[0], SHAPES, ("quickstart",), NAMES, check, make_step, aims
)

if __name__ == "__main__":
    BENCHMARK.main()
