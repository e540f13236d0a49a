"""A server over a tiny run, in a thread of this process, and clients for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mint import Mint
from mint.serve.limits import Limits
from tiny_runs import shared_run
from tiny_server import Running

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def served_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of both stages, which ranks labels by calibrated scores; the clips lie beside it."""
    yield from shared_run(tmp_path_factory, reference_clips=2, max_steps=30)


@pytest.fixture(scope="session")
def mint(served_run: Path) -> Mint:
    return Mint.from_pretrained(served_run)


@pytest.fixture(scope="session")
def clips(served_run: Path) -> list[Path]:
    """Twelve clips of several lengths."""
    return sorted(served_run.parent.glob("*.wav"))


@pytest.fixture(scope="session")
def server(mint: Mint) -> Iterator[Running]:
    """A server with the usual limits, and a place less than twice the clients of any test."""
    with Running(mint, Limits(timeout=60, upload_bytes=1 << 20)) as running:
        yield running
