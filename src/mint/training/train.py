"""A training run from recipe to finished folder, and back.

A run's folder holds from its start `recipe.yaml` (resolved, with commits for hub names) and `run.json` (what it is
trained with), and at its end `model.safetensors` (the weights of the stage alone), `tokenizer/` (Bridge-Net's),
`history.json` (the losses, and what validation gave) and, if clips could not be used, `skipped.jsonl`, beside the
Trainer's checkpoints.

A run that was interrupted goes on from its last whole checkpoint, to the same weights as without the interruption.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from safetensors.torch import save_file
from torch import Tensor
from transformers import TrainerState

import mint
from mint.builders.bridge import bridge_sizes, build_tokenizer
from mint.builders.language import build_language
from mint.builders.stages import build_stage1, build_stage2
from mint.config import Recipe, save_recipe
from mint.data.batches.collate import Stage1Collator, Stage2Collator
from mint.data.batches.items import caption_items, instruction_items
from mint.data.features.encode import write_skipped
from mint.data.features.prepare import Features
from mint.data.features.reference import ReferenceClips
from mint.data.manifests.index import of_splits
from mint.files import write_json, write_whole, writing
from mint.model.convert import LoadReport
from mint.run_folder import PATHS, check_frozen, is_finished, load_record, load_weights, relative_paths
from mint.training.align_start import align_start
from mint.training.arguments import training_arguments, validates
from mint.training.checkpoints import STATE, last_checkpoint, ranks_of, refuse_foreign_files
from mint.training.checks import check_models, has_begun, pinned, refuse_other_recipe
from mint.training.notes import notes_of
from mint.training.sigterm import EXIT_CODE, StopOnTerm
from mint.training.trainer import StageTrainer, build_trainer
from mint.training.validation import CANDIDATES, Accuracy, Measure, Retrieval, Validation
from mint.types import CAPTION_PROMPT, AudioEncoder, Example, LanguageModel, MintError

DRAWS = 1 << 14
"""Draws of the first epoch among which the reference clips of a run are looked for."""


@dataclass(frozen=True)
class Prepared:
    """All that a run needs, built and not started."""

    trainer: StageTrainer
    model: Any
    """`Stage1` or `Stage2`."""
    tokenizer: Any
    """Bridge-Net's."""
    language: LanguageModel | None
    """The frozen language model of stage 2."""
    report: LoadReport | None
    """What the checkpoint gave to Bridge-Net; None: it starts from a run of stage 1."""
    reference_clips: int = 0
    """Clips of each instruction that a finished run keeps."""


def train(recipe: Recipe, output: Path, examples: Sequence[Example], features: Features, encoder: AudioEncoder) -> Path:
    """Train a recipe into a folder; a run that was interrupted there goes on where it was, a finished one is kept.

    Args:
        recipe: the run.
        output: the folder of the run.
        examples: all examples; those of the split `train` are learnt, and the losses of those of the split
            `validation` measured where the recipe has an `eval_strategy`.
        features: the features of the examples.
        encoder: the frozen encoder, for its width and identity.

    Returns:
        The folder.

    Raises:
        MintError: the folder holds a run of another recipe, or the recipe cannot be trained.
        SystemExit: 143, after a checkpoint, if the process was sent SIGTERM.
    """
    # A name on the hub stands for the commit that the run began with, also where there is a newer one today.
    recipe = pinned(recipe, output)
    if has_begun(output):
        refuse_other_recipe(recipe, output)
    if is_finished(output):
        return output

    # Everything is built, and so checked, before recipe and record are written into the folder.
    prepared = prepare(recipe, output, *split(features.usable(examples)), features.draw, encoder)
    trainer, stop = prepared.trainer, StopOnTerm()
    trainer.add_callback(stop)
    checkpoint = _open_folder(recipe, output, trainer, _record(recipe, output, prepared, encoder))
    is_first_rank = trainer.is_world_process_zero()
    with stop.listening():
        if checkpoint is None and is_first_rank:
            _describe_beginning(recipe, prepared)
        if checkpoint is None and recipe.aligned_start:
            align_start(prepared.model, trainer.dataset, trainer.mixture_sampler, trainer.data_collator)
        run_trainer(prepared, checkpoint)

    # SIGTERM may have come at the very last step: then the run is done, and is saved like any other.
    is_done = trainer.state.global_step >= trainer.state.max_steps
    weights = trainer.whole_weights() if is_done else {}  # a collective: all ranks call it
    if is_done and is_first_rank:
        save_run(output, prepared, features, weights)

    if stop.asked:
        if is_first_rank:
            step = trainer.state.global_step
            print(f"SIGTERM: stopped at step {step} with a checkpoint in {output}", file=sys.stderr)
        raise SystemExit(EXIT_CODE)
    return output


def describe_start(recipe: Recipe, report: LoadReport | None) -> str:
    """Return one line on what Bridge-Net starts from."""
    source = f"{recipe.bridge.weights}: {report}" if report is not None else f"the stage 1 in {recipe.start}"
    return f"Bridge-Net starts from {source}"


def used_splits(recipe: Recipe) -> tuple[str, ...]:
    """Return the splits whose examples a run reads."""
    return ("train", "validation") if validates(recipe) else ("train",)


def split(examples: Sequence[Example]) -> tuple[Sequence[Example], Sequence[Example]]:
    """Return the examples that are learnt, and those that are held out for validation."""
    return of_splits(examples, ("train",)), of_splits(examples, ("validation",))


def prepare(
    recipe: Recipe,
    output: Path,
    learnt: Sequence[Example],
    held_out: Sequence[Example],
    draw: Callable[[Example, int], Tensor],
    encoder: AudioEncoder,
    weightless: bool = False,
) -> Prepared:
    """Build the models and the trainer of a run.

    Args:
        recipe: the run.
        output: the folder of the run.
        learnt: examples to train on.
        held_out: examples to validate on.
        draw: from an example and a number to a window of its features [T, D].
        encoder: the frozen encoder, for its width.
        weightless: the language model has sizes and no weights, so that nothing can be trained.

    Raises:
        MintError: the recipe cannot be trained.
    """
    arguments = training_arguments(recipe, output)
    # A plan may have an encoder without weights, whose identity says nothing.
    if not weightless:
        check_models(recipe, encoder)
    tokenizer = build_tokenizer(recipe.bridge)
    max_tokens = recipe.bridge.max_text_tokens

    language = None
    report: LoadReport | None
    model: Any
    collator: Any
    measure: Measure
    if recipe.stage == 1:
        model, report = build_stage1(recipe, encoder.width, len(tokenizer))
        items, held_out_items = caption_items(learnt), caption_items(held_out)
        collator, measure = Stage1Collator(tokenizer, max_tokens), Retrieval()
    else:
        assert recipe.language is not None
        language = build_language(recipe.language, arguments.device, weightless)
        model, report = build_stage2(recipe, encoder.width, len(tokenizer), language)
        items, held_out_items = instruction_items(learnt), instruction_items(held_out)
        collator = Stage2Collator(tokenizer, max_tokens, language)
        # Candidates are read from all items, which takes its time: only where they are asked for.
        measure = accuracy = Accuracy(items, held_out_items) if validates(recipe) else Accuracy()
        if held_out_items and not set(held_out_items.tasks()) & set(accuracy.candidates):
            _refuse_accuracy(recipe, arguments.metric_for_best_model)

    validation = Validation(held_out_items, draw, collator, measure) if validates(recipe) else None
    trainer = build_trainer(recipe, arguments, model, items, draw, collator, validation)
    return Prepared(trainer, model, tokenizer, language, report, recipe.reference_clips)


def run_trainer(prepared: Prepared, checkpoint: Path | None) -> None:
    """Train from a checkpoint to the end; a checkpoint of the end gives its weights and history."""
    trainer = prepared.trainer
    if checkpoint is not None:
        state = TrainerState.load_from_json(str(checkpoint / STATE))
        if state.global_step >= trainer.steps()[1]:  # the Trainer would train one step more
            prepared.model.load_state_dict(load_weights(checkpoint))
            trainer.state = state
            return
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def save_run(output: Path, prepared: Prepared, features: Features, weights: dict[str, Tensor]) -> None:
    """Write a finished run; `model.safetensors` comes last, so that a folder that has it is whole."""
    prepared.tokenizer.save_pretrained(output / "tokenizer")
    write_skipped(output / "skipped.jsonl", features.skipped)
    if prepared.reference_clips:
        reference_of(prepared.trainer, prepared.reference_clips).save(output)
    # A loss may be NaN, which `write_json` refuses.
    write_whole(output / "history.json", json.dumps(prepared.trainer.state.log_history, indent=1))
    with writing(output / "model.safetensors") as file:
        save_file(weights, file.name)


def reference_of(trainer: StageTrainer, count: int) -> ReferenceClips:
    """Return the first clips that the first epoch draws for each instruction but that for captions.

    Args:
        trainer: the trainer of a stage 2.
        count: the most clips of an instruction.
    """
    items, sampler = trainer.dataset.items, trainer.mixture_sampler
    # The first epoch, however long the run was, so that a resumed run keeps the same clips.
    sampler.set_epoch(0)
    drawn: dict[str, list[Tensor]] = {}
    for draw in islice(sampler, DRAWS):
        prompt = items[draw[0]].prompt
        clips = drawn.setdefault(prompt, [])
        if prompt != CAPTION_PROMPT and len(clips) < count:
            clips.append(trainer.dataset.features(items[draw[0]].example, 0))

    prompts: list[str] = []
    features: list[Tensor] = []
    for prompt, clips in drawn.items():
        prompts += [prompt] * len(clips)
        features += clips
    return ReferenceClips(prompts, features)


def _open_folder(recipe: Recipe, output: Path, trainer: StageTrainer, record: dict[str, Any]) -> Path | None:
    """Return the checkpoint to go on from, as rank 0 sees it, which also writes the recipe and the record."""
    # One rank alone looks: the folders of several machines need not show the same at the same moment.
    shared: list[Path | None] = [None]
    if trainer.is_world_process_zero():
        checkpoint = shared[0] = last_checkpoint(output)
        if checkpoint is not None:
            refuse_foreign_files(checkpoint)
            _refuse_other_models(output, record)
            _describe_other_ranks(checkpoint, trainer.args.world_size)
        output.mkdir(parents=True, exist_ok=True)
        save_recipe(recipe, output / "recipe.yaml")
        write_json(output / "run.json", record)
    common: Path | None = broadcast_object_list(shared)[0]
    return common


def _refuse_other_models(output: Path, record: dict[str, Any]) -> None:
    """Refuse other frozen models than a run began with; a record that is missing or broken is written anew."""
    try:
        load_record(output)
    except MintError:
        return
    for part, identity in record["frozen"].items():
        check_frozen(output, part, identity)


def _describe_other_ranks(checkpoint: Path, ranks: int) -> None:
    """Say what is exact, and what is not, when another number of ranks goes on."""
    before = ranks_of(checkpoint)
    if before != ranks:
        print(
            f"{checkpoint} was written by {before} rank(s), and {ranks} continue: weights and optimiser are restored, "
            "but the global batch, the position in the epoch and dropout differ",
            file=sys.stderr,
        )


def _describe_beginning(recipe: Recipe, prepared: Prepared) -> None:
    """Print what Bridge-Net starts from, and what may not be as it was meant."""
    trainer = prepared.trainer
    print(describe_start(recipe, prepared.report), file=sys.stderr)
    steps, items, ranks = trainer.steps()[1], trainer.dataset.items, trainer.args.world_size
    for note in notes_of(recipe, trainer.args, steps, items, ranks):
        print(f"note: {note}", file=sys.stderr)


def _record(recipe: Recipe, output: Path, prepared: Prepared, encoder: AudioEncoder) -> dict[str, Any]:
    """Return what `run.json` says: with which models and versions the run is trained."""
    frozen = {"encoder": encoder.identity}
    if prepared.language is not None:
        frozen["language"] = prepared.language.identity
    return {
        "bridge": bridge_sizes(recipe.bridge, encoder.width, len(prepared.tokenizer)),
        "bridge_start": None if prepared.report is None else asdict(prepared.report),
        "frozen": frozen,
        "mint": mint.__version__,
        PATHS: relative_paths(recipe, output),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _refuse_accuracy(recipe: Recipe, metric: str | None) -> None:
    """Refuse to choose by the accuracy where nothing that is held out is ranked."""
    if validates(recipe) and metric in ("accuracy", "eval_accuracy"):
        raise MintError(
            f"recipe {recipe.name}: training.metric_for_best_model is {metric!r}, but no held-out task has so few "
            f"answers ({CANDIDATES} at most) that they are ranked; choose 'loss'"
        )
