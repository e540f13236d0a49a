"""A corpus of tones and a cache of its features, for all tests of training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tiny_runs import write_corpus

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of the tones."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(autouse=True)
def cache(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep features beside the corpus."""
    monkeypatch.setenv("MINT_CACHE", str(corpus.parent / "cache"))
