"""One thin subclass of transformers' `Trainer` for both stages.

The stage model gives its loss and, by name, the parts to log; the sampler is the mixture's. Everything else (schedule,
clipping, accumulation, precision, distribution, checkpoints, resume) is the Trainer's own, steered by the recipe's
`training` section. The frozen models are no children of the stage models, so that no checkpoint holds them.

The training loop is `Trainer._inner_training_loop`. What it calls and `StageTrainer` changes, in the order in which a
run meets it:

| point | why it is changed |
|---|---|
| `get_train_dataloader` | each rank gets its part of a global batch, and no clip comes twice at the end of an epoch |
| `create_optimizer` | Bridge-Net may have a learning rate of its own (`bridge_lr_share`) |
| `get_decay_parameter_names` | queries and temperature are not decayed either |
| `get_batch_samples` | a step must know all its micro-batches, to weigh them or to contrast them with each other |
| `training_step` | with accumulated negatives a micro-batch is told first what it needs to know of the others |
| `compute_loss` | the model's own losses are weighed, and kept for the log beside the shares of padding |
| `log` | means of these over the steps and ranks since the last record |
| `evaluate` | validation by `mint.training.validation`, not by a second data loader |
| `_save_rng_state` | seals a checkpoint once every rank has written its files |

Private parts of the Trainer that this leans on: `_save_rng_state` is the last that every rank writes of a checkpoint,
before `trainer_state.json`; `_train_batch_size` is the batch of one rank; `set_initial_training_values` returns the
steps of an epoch at position 1 and those of the run at position 6. `tests/training/test_trainer.py` holds them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from mint.config import Recipe
from mint.data.batches.items import Item, ItemDataset, Items
from mint.data.batches.sampler import MixtureSampler, RankBatches
from mint.model.accumulated import MicroBatch
from mint.model.bridge_net import BridgeNet
from mint.training.accumulation import micro_batches_of, seeded, weighed, weights_of
from mint.training.arguments import validates
from mint.training.checkpoints import seal
from mint.training.progress import EpochOfSampler, LossProgress
from mint.training.validation import Validation
from mint.types import MintError

NO_DECAY = ("bias", "norm", "queries", "temperature")
"""Parameters whose name contains one of these are not decayed."""

PADDING = "padding_"
"""Opens the names under which the share of padding is logged: of `audio`, `text`, ..."""


class StageTrainer(Trainer):
    """Train a stage model on a mixture of items.

    Args:
        model: `Stage1` or `Stage2`.
        dataset: the items with their features.
        sampler: the mixture, which draws the items of an epoch.
        validation: the held-out part, if the run is validated.
        bridge_lr_share: the learning rate of Bridge-Net as a share of the others'.
        accumulate_negatives: whether the micro-batches of a step are contrasted with each other.
        **options: those of the Trainer.
    """

    def __init__(
        self,
        *,
        model: Any,
        dataset: ItemDataset,
        sampler: MixtureSampler,
        validation: Validation | None = None,
        bridge_lr_share: float = 1.0,
        accumulate_negatives: bool = False,
        **options: Any,
    ) -> None:
        # The Trainer refuses an `eval_strategy` without a dataset, and reads it nowhere: `evaluate` is ours.
        held_out = validation.items if validation is not None else None
        super().__init__(model=model, train_dataset=dataset, eval_dataset=held_out, **options)
        self.dataset = dataset
        self.validation = validation
        self.bridge_lr_share = bridge_lr_share
        self.mixture_sampler = sampler
        self.accumulate_negatives = accumulate_negatives

        # The micro-batches of the step under way, and what each of them counts for or needs to know of the others.
        self._step_batches: list[Any] = []
        self._micro_batches: Iterator[tuple[MicroBatch, int]] = iter(())
        self._step_weights: Iterator[dict[str, Tensor]] = iter(())

        # The losses and shares of padding since the last record of the log, and the number of steps.
        self._logged: dict[str, list[Tensor]] = {}
        self._logged_steps = 0

        # `LossProgress` takes the place of both: a bar, or lines where there is no terminal.
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        self.add_callback(LossProgress())
        self.add_callback(EpochOfSampler(sampler))

    def steps(self, ranks: int | None = None) -> tuple[int, int]:
        """Return the optimiser steps of an epoch and of the whole run.

        Args:
            ranks: the number of ranks that would train; None: those of this run.
        """
        batches: Any = self._batches(ranks)  # the Trainer wants a loader, and asks for its length alone
        # Positions 1 and 6: steps of an epoch, and of the run.
        values = self.set_initial_training_values(self.args, batches)
        return int(values[1]), int(values[6])

    def _batches(self, ranks: int | None = None) -> RankBatches:
        """Return this rank's part of each batch of an epoch.

        Raises:
            MintError: an epoch has no whole batch.
        """
        ranks = ranks or self.args.world_size
        batch_size = self._train_batch_size * ranks
        batches = RankBatches(
            self.mixture_sampler, batch_size, self.args.process_index, ranks, self.args.dataloader_drop_last
        )
        if not len(batches):
            raise MintError(
                f"an epoch of {len(self.mixture_sampler)} draws has no batch of {batch_size} to train on; set "
                "training.dataloader_drop_last to false, or use fewer ranks"
            )
        return batches

    def get_batch_samples(self, *args: Any) -> Any:
        """Return the micro-batches of a step, as the Trainer does, and note what each of them counts for."""
        self._step_batches, count = super().get_batch_samples(*args)
        # With accumulated negatives the stage model weighs its losses itself.
        if not self.accumulate_negatives:
            self._step_weights = iter(weights_of(self.model, self._step_batches))
        self._logged_steps += 1
        return self._step_batches, count

    def training_step(self, model: Any, inputs: Any, *args: Any) -> Tensor:
        """Run forward and backward of a micro-batch, with accumulated negatives as a part of its whole step."""
        if not self.accumulate_negatives or len(self._step_batches) == 1:
            return super().training_step(model, inputs, *args)

        # Before the first micro-batch all of them are embedded.
        if inputs is self._step_batches[0]:
            model.train()
            batches: Any = [self._prepare_inputs(batch) for batch in self._step_batches]
            stage: Any = self.model
            self._micro_batches = micro_batches_of(stage, batches, self.accelerator.autocast)

        micro_batch, seed = next(self._micro_batches)
        with seeded(seed):
            return super().training_step(model, {**inputs, "micro_batch": micro_batch}, *args)

    def compute_loss(  # type: ignore[override]  # the Trainer gives a token count that the stage models do not need
        self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any
    ) -> Any:
        """Return the model's loss as a share of its step; the single losses and the padding are kept for the log."""
        outputs = weighed(model(**inputs), next(self._step_weights, {}))

        # `loss` is logged by the Trainer.
        logged = {name: value for name, value in outputs.items() if name != "loss"}
        for name, mask in inputs.items():
            if name.endswith("_mask"):
                logged[PADDING + name.removesuffix("_mask")] = 1 - mask.float().mean()
        for name, value in logged.items():
            # On the device until the log is written: reading a number here would wait for it at every step.
            self._logged.setdefault(name, []).append(value.detach() / len(self._step_batches))

        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Write a record, with the means over steps and ranks since the last one of the losses and the padding."""
        # Records of validation and of the run's end come through here too, and have no losses of steps.
        if "loss" in logs:
            for name, values in self._logged.items():
                mean = torch.stack(values).sum() / self._logged_steps
                logs[name] = float(self.accelerator.reduce(mean, reduction="mean"))
            self._logged.clear()
            self._logged_steps = 0
        super().log(logs, *args, **kwargs)

    def _save_rng_state(self, output_dir: str) -> None:
        """Write the state of the random numbers, each rank's last file, and seal the checkpoint."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            seal(Path(output_dir))

    def whole_weights(self) -> dict[str, Tensor]:
        """Return the weights of the stage on the CPU, by name.

        A collective: every rank must call it, and with FSDP and DeepSpeed rank 0 alone may get them.
        """
        # DeepSpeed's engine knows where its shards are; all else is reached through the model.
        model = self.deepspeed if self.is_deepspeed_enabled and self.deepspeed is not None else self.model
        # safetensors wants tensors whose numbers lie one after the other.
        weights = self.accelerator.get_state_dict(model)
        return {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Return losses and figures of the held-out part, under names that begin with `eval_`."""
        assert self.validation is not None
        assert self.model is not None
        figures = self.validation.run(
            self.model, self.args.eval_batch_size, self.args.device, self.accelerator.autocast
        )
        metrics = {f"eval_{name}": value for name, value in figures.items()}
        self.log(metrics)
        # What the Trainer's own `evaluate` does after measuring: early stopping and the choice of the best wait for it.
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def create_optimizer(self, *args: Any) -> Any:
        """Return the Trainer's optimiser, with a learning rate of its own for Bridge-Net where the recipe has one."""
        optimizer = super().create_optimizer(*args)
        if self.bridge_lr_share == 1.0:
            return optimizer

        # By identity: `in` would compare the parameters number by number.
        stage: Any = self.model
        bridge = set(map(id, stage.bridge.parameters()))

        # Each group, with decay and without, gives its part of Bridge-Net to a group beside it.
        for group in list(optimizer.param_groups):
            slow: list[Tensor] = []
            others: list[Tensor] = []
            for parameter in group["params"]:
                (slow if id(parameter) in bridge else others).append(parameter)
            group["params"] = others
            optimizer.add_param_group({**group, "params": slow, "lr": group["lr"] * self.bridge_lr_share})
        return optimizer

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Return the names of the dense layers and embeddings, not of biases, norms, queries and temperature."""
        names = []
        for name, _ in model.named_parameters():
            if not any(word in name for word in NO_DECAY):
                names.append(name)
        return names

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return a loader of this rank's part of each batch."""
        args = self.args
        loader = DataLoader(
            self.dataset,
            batch_sampler=self._batches(),
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
        )
        # The batches are shared out already, so the loader is prepared as that of one process.
        return prepare_data_loader(loader, args.device, num_processes=1, process_index=0, put_on_device=True)


def build_trainer(
    recipe: Recipe,
    arguments: TrainingArguments,
    model: Any,
    items: Items,
    features: Any,
    collator: Any,
    validation: Validation | None = None,
) -> StageTrainer:
    """Build the trainer of a stage model on items.

    Args:
        recipe: the run.
        arguments: from `mint.training.arguments`.
        model: `Stage1` or `Stage2`.
        items: what is learnt.
        features: from an example and the number of a draw to frozen features [T, D].
        collator: the collator of the stage.
        validation: the held-out part, where the recipe has an `eval_strategy`.

    Raises:
        MintError: there are no items, or nothing is held out to validate on, or the mixture does not fit them.
    """
    _refuse_too_few(recipe, arguments.world_size, items, validation)

    if arguments.activation_checkpointing:
        checkpoint_blocks(model.bridge)
        # The Trainer's own way is for transformers' models.
        arguments.activation_checkpointing = arguments.gradient_checkpointing = False

    sampler = MixtureSampler(
        items.groups(recipe.data.mixture),
        recipe.data.mixture,
        recipe.data.examples_per_epoch,
        recipe.seed,
        sizes=items.sizes() if recipe.data.group_by_length else None,
        batch_size=arguments.train_batch_size * arguments.world_size * arguments.gradient_accumulation_steps,
    )
    return StageTrainer(
        model=model,
        dataset=ItemDataset(items, features),
        sampler=sampler,
        validation=validation,
        bridge_lr_share=recipe.bridge_lr_share,
        accumulate_negatives=recipe.accumulate_negatives,
        args=arguments,
        data_collator=collator,
    )


def _refuse_too_few(recipe: Recipe, ranks: int, items: Sequence[Item], validation: Validation | None) -> None:
    """Refuse a run without items, or with fewer items than ranks, to train on or to validate on."""
    if not items:
        raise MintError(f"recipe {recipe.name}: nothing to train on; the manifests have no usable training example")
    if validates(recipe) and (validation is None or not validation.items):
        raise MintError(
            f"recipe {recipe.name}: training.eval_strategy is {recipe.training['eval_strategy']!r}, but the manifests "
            "have no example of the split 'validation'; leave it out, or hold some out"
        )
    if validation is not None and len(validation.items) < ranks:
        raise MintError(
            f"recipe {recipe.name}: {len(validation.items)} validation items cannot be shared by "
            f"{ranks} ranks; hold more out, or use fewer ranks"
        )
    if len(items) < ranks:
        raise MintError(
            f"recipe {recipe.name}: {len(items)} training items cannot be shared by {ranks} ranks; use fewer ranks"
        )


def checkpoint_blocks(bridge: BridgeNet) -> None:
    """Keep only the input of each block, and run the block again in the backward pass: less memory, more time."""
    for block in bridge.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def is_checkpointed(bridge: BridgeNet) -> bool:
    """Return whether `checkpoint_blocks` has changed the blocks."""
    return any("forward" in vars(block) for block in bridge.blocks)
