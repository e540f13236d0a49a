"""A training run from recipe to finished folder, and back.

A run's folder holds `recipe.yaml` (resolved), `model.safetensors` (the trained weights only), `tokenizer/`
(Bridge-Net's), `history.json` (the losses) and `run.json` (what it was trained with), beside the Trainer's checkpoints.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers.trainer_utils import get_last_checkpoint

from mint.builders import build_language, build_stage1, build_stage2, build_tokenizer
from mint.config import Recipe, save_recipe
from mint.data.collate import Stage1Collator, Stage2Collator
from mint.data.features import Features
from mint.data.mixture import caption_items, instruction_items
from mint.training.trainer import build_trainer
from mint.types import AudioEncoder, Example


def train(recipe: Recipe, output: Path, examples: Sequence[Example], features: Features, encoder: AudioEncoder) -> Path:
    """Train a recipe into a folder; a run that was interrupted there goes on where it was, a finished one is kept.

    Args:
        recipe: the run.
        output: its folder.
        examples: all examples; those of the split `train` are learnt.
        features: of the examples.
        encoder: the frozen encoder, for its width and identity.

    Returns:
        The folder.
    """
    output.mkdir(parents=True, exist_ok=True)
    learnt = [example for example in examples if example.split == "train" and features.has(example)]
    tokenizer = build_tokenizer(recipe.bridge)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    frozen = {"encoder": encoder.identity}
    model: Any
    collator: Any
    if recipe.stage == 1:
        model = build_stage1(recipe, encoder.width, len(tokenizer))
        items, collator = caption_items(learnt), Stage1Collator(tokenizer, recipe.bridge.max_text_tokens)
    else:
        assert recipe.language is not None
        language = build_language(recipe.language, device)
        model = build_stage2(recipe, encoder.width, len(tokenizer), language)
        items = instruction_items(learnt)
        collator = Stage2Collator(tokenizer, recipe.bridge.max_text_tokens, language)
        frozen["language"] = language.identity
    trainer = build_trainer(recipe, model, items, features.draw, collator, output)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(output)))  # type: ignore[no-untyped-call]
    if trainer.is_world_process_zero():
        save_run(output, recipe, model, tokenizer, trainer.state.log_history, frozen)
    return output


def save_run(
    output: Path,
    recipe: Recipe,
    model: torch.nn.Module,
    tokenizer: Any,
    history: list[dict[str, Any]],
    frozen: dict[str, str],
) -> None:
    """Write a finished run; `model.safetensors` comes last, so that a folder that has it is whole."""
    save_recipe(recipe, output / "recipe.yaml")
    tokenizer.save_pretrained(output / "tokenizer")
    (output / "history.json").write_text(json.dumps(history, indent=1), encoding="utf-8")
    record = {"frozen": frozen, "python": platform.python_version(), "torch": torch.__version__}
    (output / "run.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    half_written = output / "model.safetensors.tmp"
    save_file(weights, half_written)
    half_written.replace(output / "model.safetensors")
