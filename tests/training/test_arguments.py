"""The `training` section of a recipe: what it becomes, and what is refused before anything is built."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerCallback, TrainingArguments
from transformers.integrations import integration_utils

from mint.config import ObjectivesConfig, load_recipe, recipe_from_dict
from mint.training import train as run
from mint.training.arguments import UNUSABLE, training_arguments
from mint.training.checkpoints import ranks_of
from mint.training.checks import check
from mint.types import MintError
from tiny_ranks import run_ranks
from tiny_runs import recipe, recipe_values, train_recipe, write_corpus

VALIDATES = {"eval_strategy": "steps", "eval_steps": 2}


def test_recipe_over_defaults_and_seed_over_both(corpus: Path, tmp_path: Path) -> None:
    arguments = training_arguments(recipe(1, corpus, warmup_steps=7), tmp_path)
    assert arguments.warmup_steps == 7
    assert arguments.lr_scheduler_type == "linear"
    assert (arguments.output_dir, arguments.seed) == (str(tmp_path), 0)


@pytest.mark.parametrize("key", ["save_strategy", "eval_strategy", "logging_strategy"])
def test_a_bare_no_of_yaml(key: str, corpus: Path, tmp_path: Path) -> None:
    assert getattr(training_arguments(recipe(1, corpus, **{key: False}), tmp_path), key) == "no"


def test_unused_parameters_are_looked_for_without_alc_alone(corpus: Path, tmp_path: Path) -> None:
    without = replace(recipe(1, corpus), objectives=ObjectivesConfig(alc=False))
    asked = replace(without, training={**without.training, "ddp_find_unused_parameters": False})
    looks = [training_arguments(wanted, tmp_path) for wanted in (recipe(1, corpus), recipe(2, corpus), without, asked)]
    assert [arguments.ddp_find_unused_parameters for arguments in looks] == [False, False, True, False]


@pytest.mark.parametrize(
    ("metric", "greater"),
    [("loss", False), ("eval_alc", False), ("alm", False), ("atg", False), ("eval_text_to_audio_recall@5", True)],
)
def test_of_losses_the_smaller_is_better(metric: str, greater: bool, corpus: Path, tmp_path: Path) -> None:
    wanted = recipe(1, corpus, **VALIDATES, metric_for_best_model=metric)
    assert training_arguments(wanted, tmp_path).greater_is_better == greater
    asked = replace(wanted, training={**wanted.training, "greater_is_better": not greater})
    assert training_arguments(asked, tmp_path).greater_is_better != greater


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ["tensorboard"]),
        ({"report_to": []}, []),
        ({"report_to": "none"}, []),
        ({"report_to": None}, []),
        ({"report_to": "tensorboard"}, ["tensorboard"]),
        ({"report_to": "wandb"}, ["tensorboard", "wandb"]),
        ({"report_to": ["wandb", "trackio"]}, ["tensorboard", "wandb", "trackio"]),
    ],
)
def test_tensorboard_beside_what_is_named(
    asked: dict[str, Any], expected: list[str], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    callbacks = dict.fromkeys(("tensorboard", "wandb", "trackio"), TrainerCallback)
    monkeypatch.setattr("transformers.integrations.integration_utils.INTEGRATION_TO_CALLBACK", callbacks)
    values = recipe_values(1, corpus)
    del values["training"]["report_to"]
    wanted = recipe_from_dict({**values, "training": {**values["training"], **asked}})
    assert training_arguments(wanted, tmp_path).report_to == expected


def test_what_is_named_gets_the_losses(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in for the callback of Weights & Biases, which is not installed here; TensorBoard writes beside it."""
    heard: list[dict[str, float]] = []

    class Listener(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            heard.append(logs)

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "wandb", Listener)
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    train_recipe(recipe(1, corpus, report_to="wandb"), tmp_path / "run")
    assert [set(logs) >= {"loss", "alc", "alm", "atg", "grad_norm"} for logs in heard[:3]] == [True] * 3
    assert list((tmp_path / "board").glob("events.*"))


def test_the_backend_of_ranks_is_none_of_one_process(corpus: Path, tmp_path: Path) -> None:
    assert training_arguments(recipe(1, corpus, ddp_backend="gloo"), tmp_path).ddp_backend is None


def test_no_random_numbers_are_drawn(corpus: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    training_arguments(recipe(1, corpus), tmp_path)
    assert torch.rand(2).equal(expected)


@pytest.mark.parametrize("key", ["seed", "output_dir"])
def test_what_has_its_home_elsewhere_is_refused(key: str, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(MintError, match=f"unknown key 'training.{key}'"):
        training_arguments(recipe(1, corpus, **{key: 1}), tmp_path)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"learning_rat": 1}, "unknown key 'training.learning_rat'; did you mean 'learning_rate'?"),
        ({"save_strategy": "sometimes"}, "recipe tiny-stage1: training: sometimes is not a valid SaveStrategy"),
        ({"learning_rate": -1}, "training.learning_rate is -1, but it must be a number from 0 on"),
        ({"learning_rate": "fast"}, "training.learning_rate is 'fast', but it must be a number from 0 on"),
        ({"weight_decay": -0.1}, "training.weight_decay is -0.1, but it must be a number from 0 on"),
        ({"max_grad_norm": None}, "training.max_grad_norm is None, but it must be a number from 0 on"),
        ({"per_device_train_batch_size": 0}, "batch_size is 0, but it must be a whole number from 1 on"),
        ({"per_device_eval_batch_size": 2.5}, "batch_size is 2.5, but it must be a whole number from 1 on"),
        ({"gradient_accumulation_steps": 0}, "_steps is 0, but it must be a whole number from 1 on"),
        ({"num_train_epochs": 0}, "training.num_train_epochs is 0, but it must be a number above 0"),
        ({"save_steps": -2}, "training.save_steps is -2, but it must be a number above 0"),
        ({"max_steps": 0}, "training.max_steps is 0, but nothing would be trained"),
        ({"save_only_model": True}, "save_only_model is True, but no run can continue from weights alone"),
        ({"label_smoothing_factor": 0.1}, "stage 1 has objectives.label_smoothing; leave it out"),
        ({"neftune_noise_alpha": 5}, "it is for transformers' own models; leave it out"),
        ({"push_to_hub": True}, "uploaded by `Mint.push_to_hub`; leave it out"),
        ({"load_best_model_at_end": True}, "load_best_model_at_end is True, but it needs an eval_strategy; set"),
        ({"eval_on_start": True}, "eval_on_start is True, but it needs an eval_strategy; set `eval_strategy: steps`"),
        ({"save_strategy": "best"}, "save_strategy is 'best', but it needs an eval_strategy"),
        ({**VALIDATES, "save_strategy": "best"}, "but it needs a metric_for_best_model; give one of loss, alc"),
        ({**VALIDATES, "metric_for_best_model": "text_to_audio_recal@1"}, "did you mean 'text_to_audio_recall@1'?"),
        ({**VALIDATES, "metric_for_best_model": "accuracy"}, "is 'accuracy', but stage 1 does not measure it; there"),
        ({"adam_beta1": 2}, "training: Invalid beta parameter at index 0: 2"),
        ({"lr_scheduler_kwargs": {"slope": 1}}, "unexpected keyword argument 'slope'"),
        ({"report_to": ["smoke-signals"]}, "smoke-signals is not supported, only"),
        ({"fsdp": True}, "training.fsdp is True, but FSDP needs at least two processes; launch several"),
    ],
)
def test_refused_before_anything_is_built(training: dict[str, Any], message: str, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(MintError, match=re.escape(message)) as refused:
        check(recipe(1, corpus, **training), tmp_path)
    assert "\n" not in str(refused.value)


NUMBERS = [
    field.name
    for field in dataclasses.fields(TrainingArguments)
    if field.type in (int, float) and field.name not in ("seed", *UNUSABLE)
]
SWITCHES = [
    field.name for field in dataclasses.fields(TrainingArguments) if field.type is bool and field.name not in UNUSABLE
]


@pytest.mark.parametrize("value", [None, "many", True, float("nan"), [1]])
@pytest.mark.parametrize("key", NUMBERS)
def test_what_is_no_number_is_refused(key: str, value: Any, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(MintError, match=rf"^recipe tiny-stage1: training.{key} is .*, but it must be a .*number"):
        training_arguments(recipe(1, corpus, **{key: value}), tmp_path)


@pytest.mark.parametrize("value", [None, "many", 1])
@pytest.mark.parametrize("key", SWITCHES)
def test_what_is_no_truth_value_is_refused(key: str, value: Any, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(MintError, match=rf"^recipe tiny-stage1: training.{key} is .*, but it must be true or false"):
        training_arguments(recipe(1, corpus, **{key: value}), tmp_path)


def test_the_numbers_that_may_be_missing(corpus: Path, tmp_path: Path) -> None:
    missing = {"eval_steps": None, "save_total_limit": None, "data_seed": None, "tf32": None}
    assert training_arguments(recipe(1, corpus, **missing), tmp_path).save_total_limit is None
    with pytest.raises(MintError, match=r"training.save_total_limit is 'two', but it must be a whole number"):
        training_arguments(recipe(1, corpus, save_total_limit="two"), tmp_path)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="ranks share the accelerators then")
def test_ranks_that_would_train_alone_are_refused(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = "2 ranks were launched, but training.use_cpu is false and there is no accelerator, so that each would"
    with pytest.raises(MintError, match=message):
        training_arguments(recipe(1, corpus, use_cpu=False), tmp_path)


def train_without_use_cpu(rank: int, folder: Path) -> None:
    """Train, as one of the ranks, a recipe that says nothing of the CPU."""
    wanted = recipe(1, folder / "tones.jsonl", max_steps=1)
    training = {key: value for key, value in wanted.training.items() if key != "use_cpu"}
    train_recipe(replace(wanted, training={**training, "save_steps": 1}), folder / "run")


@pytest.mark.slow
@pytest.mark.skipif(torch.accelerator.is_available(), reason="ranks share the accelerators then")
def test_ranks_on_a_machine_without_accelerator_train_one_run(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    run_ranks(train_without_use_cpu, tmp_path, ranks=2)
    assert ranks_of(tmp_path / "run" / "checkpoint-1") == 2
    assert "use_cpu" not in load_recipe(tmp_path / "run" / "recipe.yaml").training


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        (1, {"instruction_aware": False}, "`instruction_aware` belongs to stage 2; remove it or set `stage: 2`"),
        (1, {"objectives": {"label_smoothing": 2}}, "objectives.label_smoothing is 2.0; it must lie in [0, 1)"),
        (1, {"data": {"max_seconds": -1}}, "data.max_seconds is -1; it must be above 0"),
        (1, {"data": {"examples_per_epoch": 0}}, "data.examples_per_epoch is 0; it must be at least 1"),
        (1, {"seed": -1}, "seed is -1; it must lie in [0, 2^32)"),
        (
            2,
            {"language": {"family": "seq2seq"}, "training": {"fp16": True}},
            "training.fp16 is true, but T5 overflows in float16; set `bf16: true` in its place",
        ),
    ],
)
def test_refused_with_the_recipe(stage: int, changes: dict[str, Any], message: str, corpus: Path) -> None:
    with pytest.raises(MintError, match=re.escape(message)):
        recipe_from_dict({**recipe_values(stage, corpus), **changes})


def test_a_package_that_is_missing(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.integrations.integration_utils.is_wandb_available", lambda: False)
    with pytest.raises(MintError, match=r"WandbCallback requires wandb to be installed. Run `pip install wandb`"):
        check(recipe(1, corpus, report_to="wandb"), tmp_path)
    there: list[Any] = [None, "here"]
    monkeypatch.setattr("importlib.util.find_spec", lambda _: there.pop(0))
    with pytest.raises(MintError, match=r"training.deepspeed is 'zero.json', but the package is not installed; `pip"):
        check(recipe(1, corpus, deepspeed="zero.json"), tmp_path)
    with pytest.raises(MintError, match=r"'zero.json', but the run was not started by a launcher; use torchrun, even"):
        check(recipe(1, corpus, deepspeed="zero.json"), tmp_path)


def test_accumulated_negatives_under_fsdp(corpus: Path, tmp_path: Path) -> None:
    wanted = replace(recipe(1, corpus, gradient_accumulation_steps=2, fsdp=True), accumulate_negatives=True)
    message = "accumulate_negatives needs whole weights and excludes FSDP and DeepSpeed; set"
    with pytest.raises(MintError, match=message):
        check(wanted, tmp_path)


@pytest.mark.parametrize("stage", [1, 2])
def test_zero_of_stage_3_is_refused_before_a_model_is_built(
    stage: int, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models that are built under it have no whole weights. The stand-in is what DeepSpeed's configuration becomes."""
    finish = TrainingArguments.__post_init__
    zero = SimpleNamespace(zero_stage=2)

    def with_deepspeed(self: TrainingArguments) -> None:
        finish(self)  # type: ignore[no-untyped-call]
        self.deepspeed_plugin = zero

    monkeypatch.setattr(TrainingArguments, "__post_init__", with_deepspeed)
    for build in ("build_tokenizer", "build_language", "build_stage1", "build_stage2"):
        monkeypatch.setattr(run, build, lambda *_, build=build: pytest.fail(f"{build} comes too early"))
    wanted = recipe(stage, corpus)
    check(wanted, tmp_path)
    zero.zero_stage = 3
    with pytest.raises(MintError, match=r"ZeRO stage 3 spreads the weights, .* choose stage 1 or 2, and"):
        check(wanted, tmp_path)
    with pytest.raises(MintError, match="ZeRO stage 3 spreads the weights"):
        run.prepare(wanted, tmp_path, [], [], pytest.fail, None)  # type: ignore[arg-type]
