"""Made-up embeddings of clips, and an index of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from torch.nn import functional

from mint import Mint
from mint.index import Entry, Index, Origin, Updated
from tiny_runs import RATE

ORIGIN = Origin("5" * 64, "tiny")
Q, E = 3, 16
QUERIES = ("a low tone", "noise", "high, high")


def vectors(clips: int, seed: int = 0, spread: float = 1.0) -> Tensor:
    """Vectors [N, Q, E] of length 1; the smaller the spread, the more alike they are."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(clips, Q, E, generator=generator)
    return functional.normalize(spread * noise + torch.randn(1, 1, E, generator=generator), dim=-1)


def text(seed: int = 0) -> Tensor:
    """The embedding [E] of a made-up text."""
    return functional.normalize(torch.randn(E, generator=torch.Generator().manual_seed(1000 + seed)), dim=0)


def filled(path: Path, clips: Tensor, at_once: int = 0, name: str = "clip") -> Index:
    """An index of clips of one window each, written some at a time."""
    index = Index.create(path, ORIGIN, "run", 30.0)
    with index.writing() as writer:
        for number, clip in enumerate(clips):
            writer.add(Entry(f"/{name}{number:05d}.wav"), [(0.0, 5.0)], clip[None])
            if at_once and number % at_once == at_once - 1:
                writer.write()
    return index


def write_sound(path: Path, seed: int, seconds: float = 0.4) -> None:
    """A tone of random pitch and loudness in noise."""
    generator = np.random.default_rng(seed)
    times = np.arange(round(seconds * RATE)) / RATE
    noise = generator.standard_normal(len(times))
    samples = generator.random() * np.sin(2 * np.pi * generator.uniform(100, 6000) * times) + 0.1 * noise
    soundfile.write(path, 0.4 * samples, RATE)


def counts(updated: Updated) -> tuple[int, ...]:
    return updated.new, updated.changed, updated.removed, updated.unchanged, len(updated.skipped)


def paths_of(index: Index) -> list[str]:
    return sorted(entry.path for entry in index.entries())


def assert_exact(mint: Mint, index: Index, folder: Path) -> None:
    """The index must rank as the pass over all files does."""
    paths = sorted(map(str, folder.rglob("*.wav")))
    for query in QUERIES:
        expected = [(paths[number], score) for number, score in mint.search(query, paths)]
        hits = index.search(mint.embed_text(query), 1000)
        assert [hit.path for hit in hits] == [path for path, _ in expected]
        assert [hit.score for hit in hits] == pytest.approx([score for _, score in expected], abs=1e-5)
