"""Made-up embeddings of clips, and an index of them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from mint.index import Entry, Index, Origin

ORIGIN = Origin("5" * 64, "tiny")
Q, E = 3, 16


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
