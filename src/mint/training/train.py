"""A training run from recipe to finished folder, and back.

A run's folder holds from its start `recipe.yaml` (resolved, with commits for hub names) and `run.json` (what it is
trained with), and at its end `model.safetensors` (the trained weights only), `tokenizer/` (Bridge-Net's),
`history.json` (the losses, and what validation gave) and, if clips could not be used, `skipped.jsonl`, beside the
Trainer's checkpoints.
A run that was interrupted goes on from its last whole checkpoint, to the same weights as without the interruption.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from safetensors.torch import save_file
from torch import Tensor
from transformers import TrainerState

import mint
from mint.assets.pretrained import pin
from mint.builders.bridge import TINY, bridge_sizes, build_tokenizer
from mint.builders.language import build_language
from mint.builders.stages import build_stage1, build_stage2
from mint.config import Recipe, load_recipe, recipe_to_dict, save_recipe
from mint.data.batches.collate import Stage1Collator, Stage2Collator
from mint.data.batches.items import caption_items, instruction_items
from mint.data.features.encode import write_skipped
from mint.data.features.prepare import Features, launched_rank
from mint.data.manifests.index import of_splits
from mint.model.convert import LoadReport
from mint.run_folder import PATHS, check_frozen, load_run_recipe, load_weights, relative_paths, with_paths
from mint.run_folder import is_finished as is_finished
from mint.training.align_start import align_start
from mint.training.arguments import training_arguments, validates
from mint.training.checkpoints import STATE, checkpoints, last_checkpoint, ranks_of
from mint.training.sigterm import EXIT_CODE, StopOnTerm
from mint.training.trainer import PADDING, StageTrainer, build_trainer
from mint.training.validation import CANDIDATES, Accuracy, Measure, Retrieval, Validation
from mint.types import AudioEncoder, Example, LanguageModel, MintError


@dataclass(frozen=True)
class Prepared:
    """All that a run needs, built and not started."""

    trainer: StageTrainer
    model: Any
    tokenizer: Any
    language: LanguageModel | None
    report: LoadReport | None
    """What the checkpoint gave to Bridge-Net; None: it starts from a run of stage 1."""


def has_begun(output: Path) -> bool:
    """Whether a folder holds a run, finished or interrupted."""
    return is_finished(output) or bool(checkpoints(output))


def check(recipe: Recipe, output: Path) -> None:
    """Refuse now what would otherwise be refused once the features are there, perhaps hours later.

    Raises:
        MintError: an argument of training that cannot be used, or a start that is no finished stage 1 of this encoder.
    """
    training_arguments(recipe, output)
    if recipe.start is None:
        return
    if not is_finished(Path(recipe.start)):
        raise MintError(f"start: {recipe.start} holds no finished run (no model.safetensors); train its stage 1 first")
    before = load_recipe(Path(recipe.start) / "recipe.yaml")
    if before.stage != 1:
        raise MintError(f"start: {recipe.start} is a run of stage {before.stage}; give the folder of its stage 1")
    for key in ("family", "weights", "layer"):
        here, there = getattr(recipe.encoder, key), getattr(before.encoder, key)
        moved = key == "weights" and Path(here).is_dir()  # `check_models` compares what is in the folders
        if here != there and not moved:
            raise MintError(
                f"start: {recipe.start} was trained with encoder.{key} {there!r}, and this recipe has {here!r}; "
                "give both the same encoder"
            )


def check_models(recipe: Recipe, encoder: AudioEncoder) -> None:
    """The same, of what the models' own configurations say.

    Raises:
        MintError: Bridge-Net cannot have the recipe's sizes, or its start has learnt from another encoder.
    """
    bridge_sizes(recipe.bridge, encoder.width, vocab_size=0)
    if recipe.start is not None:
        check_frozen(Path(recipe.start), "encoder", encoder.identity)


def train(recipe: Recipe, output: Path, examples: Sequence[Example], features: Features, encoder: AudioEncoder) -> Path:
    """Train a recipe into a folder; a run that was interrupted there goes on where it was, a finished one is kept.

    Args:
        recipe: the run.
        output: its folder.
        examples: all examples; those of the split `train` are learnt, and the losses of those of the split
            `validation` looked at where the recipe has an `eval_strategy`.
        features: of the examples.
        encoder: the frozen encoder, for its width and identity.

    Returns:
        The folder.

    Raises:
        MintError: the folder holds a run of another recipe, or the recipe cannot be trained.
        SystemExit: 143, after a checkpoint, if the process was sent SIGTERM.
    """
    recipe = pinned(recipe, output)
    if has_begun(output):
        _refuse_other_recipe(recipe, output)
    if is_finished(output):
        return output
    prepared = prepare(recipe, output, *split(features.usable(examples)), features.draw, encoder)
    record = _record(recipe, output, prepared, encoder)
    trainer, stop = prepared.trainer, StopOnTerm()
    trainer.add_callback(stop)
    checkpoint = _find_checkpoint(recipe, output, trainer, record)
    with stop.listening():
        if checkpoint is None and trainer.is_world_process_zero():
            print(describe_start(recipe, prepared.report), file=sys.stderr)
        if recipe.aligned_start and checkpoint is None:
            align_start(prepared.model, trainer.dataset, trainer.data_collator)
        run_trainer(prepared, checkpoint)
    finished = trainer.state.global_step >= trainer.state.max_steps
    weights = trainer.whole_weights() if finished else {}
    if finished and trainer.is_world_process_zero():
        save_run(output, prepared, features, weights)
    if stop.asked:
        if trainer.is_world_process_zero():
            print(
                f"SIGTERM: stopped at step {trainer.state.global_step} with a checkpoint in {output}", file=sys.stderr
            )
        raise SystemExit(EXIT_CODE)
    return output


def pinned(recipe: Recipe, output: Path) -> Recipe:
    """The recipe with a commit for each hub name.

    It is the one with which the run in the folder began, else that of the stage 1 it starts from, else its main
    branch's. A tag or branch that the recipe names stays as it is.
    """
    folders = [output, *([Path(recipe.start)] if recipe.start is not None else [])]
    before = []
    for folder in folders:
        with suppress(MintError):  # none yet, or a damaged one: `train` says so
            before.append(load_recipe(folder / "recipe.yaml"))
    parts = {}
    for name in ("encoder", "bridge", "language"):
        part = getattr(recipe, name)
        if part is None or part.revision is not None or TINY in (part.weights, getattr(part, "family", None)):
            continue
        same = [other for made in before if (other := getattr(made, name)) and other.weights == part.weights]
        parts[name] = replace(part, revision=same[0].revision if same else pin(part.weights))
    return replace(recipe, **parts)


def describe_start(recipe: Recipe, report: LoadReport | None) -> str:
    """What Bridge-Net starts from, in one line."""
    given = f"{recipe.bridge.weights}: {report}" if report is not None else f"the stage 1 in {recipe.start}"
    return f"Bridge-Net starts from {given}"


def _find_checkpoint(recipe: Recipe, output: Path, trainer: StageTrainer, record: dict[str, Any]) -> Path | None:
    """What to go on from, as rank 0 sees it; it prepares the folder too."""
    found: list[Path | None] = [None]
    if trainer.is_world_process_zero():
        found = [last_checkpoint(output)]
        if found[0] is not None and (output / "run.json").is_file():
            for part, identity in record["frozen"].items():
                check_frozen(output, part, identity)
        if found[0] is not None and (before := ranks_of(found[0])) != trainer.args.world_size:
            print(
                f"{found[0]} was written by {before} rank(s), and {trainer.args.world_size} go on: weights and "
                "optimiser are as they were, but the global batch, where an epoch stands, and dropout are others",
                file=sys.stderr,
            )
        output.mkdir(parents=True, exist_ok=True)
        save_recipe(recipe, output / "recipe.yaml")
        (output / "run.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    checkpoint: Path | None = broadcast_object_list(found)[0]
    return checkpoint


def padding_shares(run: Path) -> dict[str, float]:
    """What share of each input of a finished run was padding, the mean over the records of its history."""
    history = json.loads((run / "history.json").read_text(encoding="utf-8"))
    names = dict.fromkeys(name for record in history for name in record if name.startswith(PADDING))
    return {
        name.removeprefix(PADDING): statistics.mean(record[name] for record in history if name in record)
        for name in names
    }


def used_splits(recipe: Recipe) -> tuple[str, ...]:
    """Splits whose examples a run reads."""
    return ("train", "validation") if validates(recipe) else ("train",)


def split(examples: Sequence[Example]) -> tuple[Sequence[Example], Sequence[Example]]:
    """What is learnt, and what is held out."""
    return of_splits(examples, ("train",)), of_splits(examples, ("validation",))


def prepare(
    recipe: Recipe,
    output: Path,
    learnt: Sequence[Example],
    held: Sequence[Example],
    draw: Callable[[Example, int], Tensor],
    encoder: AudioEncoder,
    weightless: bool = False,
) -> Prepared:
    """Build the models and the trainer of a run.

    Args:
        recipe: the run.
        output: its folder.
        learnt: examples to train on.
        held: examples to validate on.
        draw: (example, number) to a window of its features [T, D].
        encoder: the frozen encoder, for its width.
        weightless: the language model has sizes and no weights: nothing can be trained.
    """
    arguments = training_arguments(recipe, output)
    if not weightless:
        check_models(recipe, encoder)
    tokenizer = build_tokenizer(recipe.bridge)
    language = None
    report: LoadReport | None
    model: Any
    collator: Any
    measure: Measure
    if recipe.stage == 1:
        model, report = build_stage1(recipe, encoder.width, len(tokenizer))
        items, held_items = caption_items(learnt), caption_items(held)
        collator, measure = Stage1Collator(tokenizer, recipe.bridge.max_text_tokens), Retrieval()
    else:
        assert recipe.language is not None
        language = build_language(recipe.language, arguments.device, weightless)
        model, report = build_stage2(recipe, encoder.width, len(tokenizer), language)
        items, held_items = instruction_items(learnt), instruction_items(held)
        collator = Stage2Collator(tokenizer, recipe.bridge.max_text_tokens, language)
        measure = accuracy = Accuracy(chain(items, held_items) if validates(recipe) else ())
        if held_items and not set(held_items.tasks()) & set(accuracy.candidates):
            _refuse_accuracy(recipe, arguments.metric_for_best_model)
    validation = Validation(held_items, draw, collator, measure) if validates(recipe) else None
    trainer = build_trainer(recipe, arguments, model, items, draw, collator, validation)
    return Prepared(trainer, model, tokenizer, language, report)


def run_trainer(prepared: Prepared, checkpoint: Path | None) -> None:
    """Train from a checkpoint to the end; one that is at the end already gives its weights and history."""
    trainer = prepared.trainer
    if checkpoint is not None:
        state = TrainerState.load_from_json(str(checkpoint / STATE))
        if state.global_step >= trainer.steps()[1]:  # the Trainer would train one more
            prepared.model.load_state_dict(load_weights(checkpoint))
            trainer.state = state
            return
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def save_run(output: Path, prepared: Prepared, features: Features, weights: dict[str, Tensor]) -> None:
    """Write a finished run; `model.safetensors` comes last, so that a folder that has it is whole."""
    prepared.tokenizer.save_pretrained(output / "tokenizer")
    write_skipped(output / "skipped.jsonl", features.skipped)
    (output / "history.json").write_text(json.dumps(prepared.trainer.state.log_history, indent=1), encoding="utf-8")
    half_written = output / "model.safetensors.tmp"
    save_file(weights, half_written)
    half_written.replace(output / "model.safetensors")


def _record(recipe: Recipe, output: Path, prepared: Prepared, encoder: AudioEncoder) -> dict[str, Any]:
    """What `run.json` says: with which models and versions the run is trained."""
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


def _refuse_other_recipe(recipe: Recipe, output: Path) -> None:
    path = output / "recipe.yaml"
    if not path.is_file():
        return
    try:
        before = load_recipe(path)
    except MintError as error:
        if is_finished(output):
            raise
        if launched_rank()[0] == 0:  # the checkpoints are worth more than the proof that they are this recipe's
            print(f"{error}; its checkpoints are taken to be of the recipe that is given", file=sys.stderr)
        return
    if with_paths(load_run_recipe(output), _resolved) == with_paths(recipe, _resolved):
        return  # it is the same, though the paths may be written in another way, or from another folder
    begun, wanted = _flat(recipe_to_dict(before)), _flat(recipe_to_dict(recipe))
    for key in [*wanted, *begun]:
        if begun.get(key) != wanted.get(key):
            raise MintError(
                f"{output} holds a run with {key} {begun.get(key)!r}, not {wanted.get(key)!r}; "
                "choose another folder, or give the recipe that it began with"
            )


def _resolved(path: str) -> str:
    """The one path of a file or folder that is there; a name of anything else as it is."""
    return str(Path(path).resolve()) if Path(path).exists() else path


def _flat(values: dict[str, Any], place: str = "") -> dict[str, Any]:
    """Dotted keys of nested values."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{place}{key}.") if isinstance(value, dict) else {f"{place}{key}": value}
    return flat
