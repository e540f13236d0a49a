"""Plans of clips, made before a sound is: the rendered corpora are lists of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mint.data.corpora.rendered.soundfont import Note


@dataclass(frozen=True)
class ClipPlan:
    """One clip to render."""

    # The order of the fields is part of the stamp of a rendered corpus: another one would render everything anew.
    id: str
    split: str
    seconds: float
    notes: tuple[Note, ...]
    labels: tuple[str, ...]
    """In the corpus's label order."""
    captions: tuple[str, ...]
    metadata: dict[str, Any] = field(default_factory=dict)


def scaled(size: int, scale: float) -> int:
    """Return a number of clips, scaled, at least one."""
    return max(1, round(size * scale))
