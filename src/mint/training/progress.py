"""What the Trainer's callbacks do here: the epoch of the sampler, and a progress bar with the losses."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mint.data.batches.sampler import MixtureSampler

SHOWN = ("loss", "alc", "alm", "atg")
"""The losses beside the bar."""


class EpochOfSampler(TrainerCallback):
    """Tell the sampler its epoch: with several ranks the Trainer's own way does not reach it in a resumed epoch."""

    def __init__(self, sampler: MixtureSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Pass on the epoch, of which the Trainer counts fractions where a run was interrupted."""
        self.sampler.set_epoch(int(state.epoch or 0))


class LossProgress(TrainerCallback):
    """A bar with the losses and the time left; without a terminal, a line every half minute."""

    def __init__(self) -> None:
        self.bar: Any = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Open the bar where the run stands."""
        if state.is_world_process_zero:
            name = Path(args.output_dir or "").name
            # In a file every refresh is a line.
            seconds = 0.1 if sys.stderr.isatty() else 30.0
            self.bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc=name, unit="step", mininterval=seconds
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Advance."""
        if self.bar is not None:
            # The difference, and not one: a resumed run may begin in the middle of the bar.
            self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Show the losses."""
        if self.bar is not None and logs and "loss" in logs:
            # Not drawn at once: the next step does so, and without a terminal it would be a line more.
            losses = {name: f"{logs[name]:.2f}" for name in SHOWN if name in logs}
            self.bar.set_postfix(losses, refresh=False)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
