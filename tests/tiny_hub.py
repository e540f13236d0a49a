"""A hub without a network: commits of tiny models in the hub's cache folder, as if they had been downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants


class TinyHub:
    """Publishes models under names; only what is published is there.

    Args:
        folder: of the cache.
        patch: undoes it.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        patch.setattr(constants, "HF_HUB_CACHE", str(folder))
        patch.setattr(constants, "HF_HUB_OFFLINE", True)

    def publish(self, name: str, commit: str, *parts: Any, branch: str = "main") -> Path:
        """Save parts of a model (weights, tokenizer) as a commit, to which the branch moves; returns its folder."""
        place = self.folder / f"models--{name.replace('/', '--')}"
        snapshot = place / "snapshots" / commit
        for part in parts:
            part.save_pretrained(snapshot)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / branch).write_text(commit)
        return snapshot
