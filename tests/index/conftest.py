"""A tiny run of stage 1, a folder of sounds, and what is encoded of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mint import Mint
from mint.data.features import encode, stream
from tiny_index import write_sound
from tiny_runs import recipe, train_recipe, write_corpus


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished stage 1; its cache stays in use, and each module has one of its own."""
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINT_CACHE", str(folder / "cache"))
        manifest = write_corpus(folder)
        train_recipe(recipe(1, manifest, max_steps=10), folder / "run" / "stage1")
        yield folder / "run"


@pytest.fixture(scope="module")
def mint(run: Path) -> Mint:
    return Mint.from_pretrained(run, "cpu")


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder of twelve short sounds, in two levels."""
    folder = tmp_path / "clips"
    (folder / "more").mkdir(parents=True)
    for number in range(12):
        write_sound(folder / ("more" if number % 3 == 0 else "") / f"{number:02d}.wav", number)
    return folder


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note the number of samples of each window that is encoded."""
    counts: list[int] = []
    encode_batch = encode.encode_batch

    def note(encoder: Any, samples: Any) -> Any:
        counts.extend(map(len, samples))
        return encode_batch(encoder, samples)

    monkeypatch.setattr(stream, "encode_batch", note)
    return counts
