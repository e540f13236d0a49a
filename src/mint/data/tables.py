"""Arrays of numbers on disk: what was found out once and is found out again where it cannot be kept.

They are written beside their place and renamed, so that a reader sees all of them or none, two writers never mix, and a
writer that is killed leaves what was there. A file that is gone, damaged or of another form reads as nothing.
"""

from __future__ import annotations

import uuid
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUFFIX = ".npz"


def write_table(place: Path, arrays: dict[str, Any]) -> bool:
    """Write named arrays; False, and nothing is changed, where that is not possible (a full disk, no permission)."""
    half_written = place.with_name(f"{uuid.uuid4().hex}.tmp")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with half_written.open("wb") as file:
            np.savez(file, **arrays)
        half_written.replace(place)
    except OSError:
        with suppress(OSError):
            half_written.unlink()
        return False
    return True


def read_table(place: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]] | None:
    """The named arrays; None where one of them cannot be had."""
    try:
        with np.load(place) as kept:
            return {name: kept[name] for name in names}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
