"""The recipe's `training` section as transformers' `TrainingArguments`.

`TrainingArguments` takes nearly any value, and what it takes may fail hours later, once the features are there, or mean
nothing here. Such values are refused before anything is built, in one line that names the value and the cure.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import math
import os
import types
import typing
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.integrations.integration_utils import get_reporting_integration_callbacks

from mint.config import Recipe
from mint.data.features.prepare import launched_rank
from mint.training.validation import figure_names
from mint.types import MintError

DEFAULTS: dict[str, Any] = {
    "lr_scheduler_type": "linear",  # paper, section 3.2
    "learning_rate": 1e-4,  # paper, section 3.2
    "logging_steps": 10,
    "logging_nan_inf_filter": False,  # a loss that is not finite is to be seen
    "save_total_limit": 2,
    "dataloader_pin_memory": torch.cuda.is_available(),
}
"""Our defaults where `TrainingArguments` has others; a recipe overrides them."""

LEAST: dict[str, int | float] = {
    "learning_rate": 0.0,
    "weight_decay": 0.0,
    "max_grad_norm": 0.0,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "dataloader_num_workers": 0,
}
"""The smallest value of each."""

ABOVE_ZERO = ("num_train_epochs", "logging_steps", "save_steps", "eval_steps")

UNUSABLE = {
    "save_only_model": "no run can continue from weights alone; a finished run holds its weights alone, and "
    "`save_strategy: no` writes no checkpoints",
    "label_smoothing_factor": "the models give their own losses; stage 1 has objectives.label_smoothing",
    "neftune_noise_alpha": "it is for transformers' own models",
    "use_liger_kernel": "it is for transformers' own models",
    "push_to_hub": "a finished run is uploaded by `Mint.push_to_hub`",
}
"""Arguments that say nothing to our models, or harm, and why."""

NEED_VALIDATION = {"load_best_model_at_end": True, "eval_on_start": True, "save_strategy": "best"}


def training_arguments(recipe: Recipe, output: Path) -> TrainingArguments:
    """Return the arguments of a run.

    Raises:
        MintError: a key that `TrainingArguments` does not have, or a value that cannot be used.
    """
    _refuse_keys(recipe)
    _refuse_types(recipe)
    _refuse_numbers(recipe)
    _refuse_validation(recipe)

    fixed = {"output_dir": str(output), "seed": recipe.seed, "remove_unused_columns": False}
    try:
        arguments = TrainingArguments(**{**DEFAULTS, **recipe.training, **_derived(recipe), **fixed})
        _try_parts(arguments)
    except (ImportError, TypeError, ValueError) as error:
        raise MintError(f"recipe {recipe.name}: training: {error}") from None

    _refuse_lone_ranks(arguments)
    _refuse_shards(recipe, arguments)
    return arguments


def validates(recipe: Recipe) -> bool:
    """Return whether a run looks at its held-out part."""
    return recipe.training.get("eval_strategy", "no") not in ("no", False, None)  # YAML reads a bare no as false


def _refuse_keys(recipe: Recipe) -> None:
    """Refuse keys that do not exist, or that mean nothing to our models or cannot be used here."""
    known = {field.name for field in dataclasses.fields(TrainingArguments)} - {"output_dir", "seed"}
    for key, value in recipe.training.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            cure = f"did you mean {near[0]!r}?" if near else "see transformers' TrainingArguments for what there is"
            raise MintError(f"recipe {recipe.name}: unknown key 'training.{key}'; {cure}")
        if key in UNUSABLE and value:
            raise _refusal(recipe, key, f"{UNUSABLE[key]}; leave it out")

    if recipe.training.get("deepspeed"):
        if importlib.util.find_spec("deepspeed") is None:
            raise _refusal(recipe, "deepspeed", "the package is not installed; `pip install deepspeed`")
        if "RANK" not in os.environ:
            raise _refusal(
                recipe, "deepspeed", "the run was not started by a launcher; use torchrun, even for one process"
            )


def _refuse_types(recipe: Recipe) -> None:
    """Refuse what is no number or no truth value where `TrainingArguments` declares one: it checks neither."""
    for field in dataclasses.fields(TrainingArguments):
        if field.name not in recipe.training:
            continue
        value = recipe.training[field.name]
        # `int | None` has arguments, `int` has none.
        kinds = set(typing.get_args(field.type) or [field.type])
        if value is None and types.NoneType in kinds:
            continue

        kinds.discard(types.NoneType)
        if kinds == {bool} and not isinstance(value, bool):
            raise _refusal(recipe, field.name, "it must be true or false")
        # In Python True is a whole number too.
        if kinds == {int} and (isinstance(value, bool) or not isinstance(value, int)):
            raise _refusal(recipe, field.name, f"it must be a whole number{_from(field.name)}")
        if kinds == {float} and not _is_finite(value):
            raise _refusal(recipe, field.name, f"it must be a number{_from(field.name)}")


def _refuse_numbers(recipe: Recipe) -> None:
    """Refuse numbers out of range."""
    for key, value in recipe.training.items():
        if key in LEAST and value < LEAST[key]:
            kind = "whole number" if isinstance(LEAST[key], int) else "number"
            raise _refusal(recipe, key, f"it must be a {kind}{_from(key)}")
        if key in ABOVE_ZERO and value is not None and value <= 0:
            raise _refusal(recipe, key, "it must be a number above 0")
    if recipe.training.get("max_steps") == 0:
        raise _refusal(recipe, "max_steps", "nothing would be trained; give a number above 0, or -1 to count in epochs")


def _refuse_validation(recipe: Recipe) -> None:
    """Refuse what needs a validation that the recipe does not ask for, and a metric that is not measured."""
    if not validates(recipe):
        for key, value in NEED_VALIDATION.items():
            if recipe.training.get(key) == value:
                raise _refusal(recipe, key, "it needs an eval_strategy; set `eval_strategy: steps`")
        return

    metric, names = recipe.training.get("metric_for_best_model"), figure_names(recipe)
    if metric is None and recipe.training.get("save_strategy") == "best":
        raise _refusal(recipe, "save_strategy", f"it needs a metric_for_best_model; give one of {', '.join(names)}")
    if metric is not None and str(metric).removeprefix("eval_") not in names:
        near = difflib.get_close_matches(str(metric), names, n=1)
        cure = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
        raise _refusal(recipe, "metric_for_best_model", f"stage {recipe.stage} does not measure it; {cure}")


def _derived(recipe: Recipe) -> dict[str, Any]:
    """Return the arguments that follow from others of the recipe, or from how the run was launched."""
    given = recipe.training
    derived: dict[str, Any] = {"report_to": _reports(given.get("report_to", ["tensorboard"]))}
    for key, value in given.items():
        if key.endswith("_strategy") and value is False:  # YAML reads a bare no as false
            derived[key] = "no"

    if launched_rank()[1] == 1:
        derived["ddp_backend"] = None  # it is for ranks, and a recipe may be run with and without them
    elif "use_cpu" not in given and not torch.accelerator.is_available():
        derived["use_cpu"] = True  # else transformers joins no ranks

    if "ddp_find_unused_parameters" not in given:
        # Without ALC some weights of the last block have no gradient; else DDP need not look for such in every step.
        derived["ddp_find_unused_parameters"] = recipe.objectives is not None and not recipe.objectives.alc

    if given.get("greater_is_better") is None and (metric := given.get("metric_for_best_model")) is not None:
        losses = ("loss", "alc", "alm", "atg")  # of these, transformers knows the first alone for a loss
        derived["greater_is_better"] = metric.removeprefix("eval_") not in losses
    return derived


def _reports(asked: str | list[str] | None) -> list[str]:
    """Return TensorBoard and what the recipe names beside it; nothing where it names nothing or `none`."""
    names = [asked] if isinstance(asked, str) else list(asked or [])
    if names in ([], ["none"]):
        return []
    return names if {"all", "tensorboard"} & set(names) else ["tensorboard", *names]


def _try_parts(arguments: TrainingArguments) -> None:
    """Make the logs' callbacks, an optimiser and a schedule once, and throw them away.

    Raises:
        ImportError: a package that one of them needs is missing.
        ValueError: a value that one of them refuses.
    """
    try:
        for callback in get_reporting_integration_callbacks(arguments.report_to):  # type: ignore[no-untyped-call]
            callback()
    except RuntimeError as error:  # a package is missing
        raise ImportError(f"report_to is {arguments.report_to}, but {error}") from None

    if arguments.optim_target_modules is None:  # else it looks for modules of the model itself
        stand_in: Any = nn.ParameterList([torch.zeros(1, device=arguments.device)])
        kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments, stand_in)
        schedule: Any = arguments.lr_scheduler_kwargs
        get_scheduler(arguments.lr_scheduler_type, kind(stand_in.parameters(), **options), 0, 1, schedule)


def _refuse_lone_ranks(arguments: TrainingArguments) -> None:
    """Refuse ranks that were launched and that transformers would not join: each would train a run of its own."""
    ranks = launched_rank()[1]
    if arguments.world_size < ranks:
        raise MintError(
            f"{ranks} ranks were launched, but training.use_cpu is false and there is no accelerator, so that each "
            "would train alone; set training.use_cpu=true"
        )


def _refuse_shards(recipe: Recipe, arguments: TrainingArguments) -> None:
    """Refuse what cannot be spread over ranks, before a model is built."""
    fsdp = bool(arguments.fsdp) or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    deepspeed: Any = arguments.deepspeed_plugin  # also where a launcher asks for it
    if recipe.accumulate_negatives and (fsdp or deepspeed is not None):
        raise MintError("accumulate_negatives needs whole weights and excludes FSDP and DeepSpeed; set it to false")

    if arguments.fsdp and arguments.world_size == 1:
        raise _refusal(recipe, "fsdp", "FSDP needs at least two processes; launch several, or leave it out")
    options = arguments.fsdp_plugin_args or {}
    names = options.get("transformer_cls_names_to_wrap") or os.environ.get("FSDP_TRANSFORMER_CLS_TO_WRAP")
    if fsdp and names:
        raise MintError(
            f"fsdp_config.transformer_layer_cls_to_wrap is {names}, but FSDP must gather Bridge-Net as a whole: "
            "its passes share what a block computes; leave the key out"
        )

    if deepspeed is not None and deepspeed.zero_stage > 2:
        raise MintError(
            f"DeepSpeed's ZeRO stage {deepspeed.zero_stage} spreads the weights, but Bridge-Net is run in several "
            "passes that share them; choose stage 1 or 2, and `language.shard: true` for a large language model"
        )


def _from(key: str) -> str:
    """Return what to say of the smallest value of a number, if it has one."""
    return f" from {LEAST[key]:g} on" if key in LEAST else ""


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _refusal(recipe: Recipe, key: str, reason: str) -> MintError:
    return MintError(f"recipe {recipe.name}: training.{key} is {recipe.training[key]!r}, but {reason}")
