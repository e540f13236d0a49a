"""The processes that `torchrun` or `accelerate launch` starts for one job, and what they tell each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from torch import distributed

from mint.data.features.prepare import launched_rank

PATIENCE = timedelta(days=30)
"""Ranks wait for the slowest; if one dies, the launcher ends the others."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of its job."""

    rank: int
    count: int

    def gather(self, value: Any) -> list[Any]:
        """Return what each rank gives, by rank; all wait for one another."""
        if self.count == 1:
            return [value]
        values = [None] * self.count
        distributed.all_gather_object(values, value)
        return values


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the ranks that were launched together; a process alone is one rank."""
    rank, count = launched_rank()
    is_new = count > 1 and not distributed.is_initialized()
    if is_new:
        # Only a few numbers are exchanged, so that the CPU's backend serves with accelerators too.
        distributed.init_process_group("gloo", timeout=PATIENCE)

    # A group that the caller opened is left open.
    try:
        yield Ranks(rank, count)
    finally:
        if is_new:
            distributed.destroy_process_group()
