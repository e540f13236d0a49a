"""SIGTERM ends a run with a checkpoint: what schedulers of clusters send before they take a machine away."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

EXIT_CODE = 128 + signal.SIGTERM
"""143, the exit code that a shell gives to a process ended by SIGTERM."""
ECHO = 5.0
"""Seconds after a signal in which another is the same one: schedulers send it to a launcher and to its ranks, and the
launcher passes it on."""


class StopOnTerm(TrainerCallback):
    """Once SIGTERM has come to any rank, all of them save and stop after the step that is under way."""

    def __init__(self) -> None:
        self.asked = False
        self.heard = 0.0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note SIGTERM inside the block; a second one, after `ECHO` seconds or more, ends the process at once.

        Python allows this in its main thread alone; in another thread the block runs without.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # None: the handler was set by something other than Python, and cannot be put back.
        before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL

        def hear(*_: Any) -> None:
            # Only noted: saving in the middle of a step would write weights without their moments.
            if not self.heard:
                self.asked, self.heard = True, time.monotonic()
            elif time.monotonic() - self.heard > ECHO:
                signal.signal(signal.SIGTERM, before)
                signal.raise_signal(signal.SIGTERM)

        signal.signal(signal.SIGTERM, hear)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask the Trainer to save and to stop."""
        if distributed.is_available() and distributed.is_initialized():
            # A scheduler may have told one rank alone; the others would wait for it in the next step for ever.
            asked = torch.tensor(int(self.asked), device=args.device)
            distributed.all_reduce(asked)
            self.asked = bool(asked)
        if self.asked:
            control.should_save = True
            control.should_training_stop = True
