"""SIGTERM ends a run with a checkpoint: what schedulers of clusters send before they take a machine away."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

EXIT_CODE = 128 + signal.SIGTERM
"""143, what a shell says of a process that SIGTERM has ended."""


class StopOnTerm(TrainerCallback):
    """Once SIGTERM has come to any rank, all of them save and stop after the step that is under way."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Heed SIGTERM; a second one ends the process at once. Python allows this in its main thread alone."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL

        def hear(*_: Any) -> None:
            self.asked = True
            signal.signal(signal.SIGTERM, before)

        signal.signal(signal.SIGTERM, hear)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask the Trainer to save and to stop."""
        if distributed.is_available() and distributed.is_initialized():
            asked = torch.tensor(int(self.asked), device=args.device)
            distributed.all_reduce(asked)
            self.asked = bool(asked)
        if self.asked:
            control.should_save = True
            control.should_training_stop = True
