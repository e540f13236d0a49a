"""Processes as ranks (gloo, on CPU), for tests of what several of them do together."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import torch
from torch import distributed, multiprocessing

Work = Callable[[int, Path], None]
"""What each process does, given its rank and a folder; a function of a module, which opens a process group itself."""


def run_ranks(work: Work, folder: Path, ranks: int, seconds: float = 240.0) -> None:
    """Run some work in each of several new processes, which find one another as `torchrun`'s do."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    spawned = multiprocessing.spawn(_rank, args=(work, folder, ranks, port), nprocs=ranks, join=False)  # type: ignore[attr-defined, no-untyped-call]
    try:
        for _ in range(ranks):
            spawned.join(timeout=seconds)
    finally:
        alive = [process for process in spawned.processes if process.is_alive()]
        for process in alive:
            process.kill()
    assert not alive, f"{len(alive)} of {ranks} processes did not come to an end"


def _rank(rank: int, work: Work, folder: Path, ranks: int, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
    work(rank, folder)
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()
