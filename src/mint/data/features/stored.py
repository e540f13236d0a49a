"""Files of features: a clip that has no audio, only what a frozen encoder would have made of it.

A manifest names such a file in the place of audio. It is read where other clips are encoded, keyed by its bytes like
them, and belongs to one encoder: its identity stands in the file.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mint.files import write_whole
from mint.types import Example, MintError

SUFFIX = ".npz"


def is_stored(path: Path) -> bool:
    """Return whether a clip's file holds features in the place of audio."""
    return path.suffix == SUFFIX


def write_stored(path: Path, features: Tensor, identity: str) -> None:
    """Write the features [T, D] of one clip, in half precision; equal features give equal bytes.

    Args:
        path: ends in `.npz`.
        features: finite, within half precision.
        identity: the encoder's.
    """
    content = io.BytesIO()
    # Half precision, as the cache has by default: features of a file and of an encoder are to be alike.
    np.savez_compressed(content, features=features.half().numpy(), encoder=np.array(identity))
    write_whole(path, content.getvalue())


def read_stored(example: Example, identity: str | None) -> Tensor:
    """Return the features [T, D] of a clip, float32.

    Args:
        example: a clip whose file holds features.
        identity: that of the encoder which they must be of; None: any.

    Raises:
        MintError: no such file or a damaged one, features of another encoder, or a part of a file.
    """
    path = example.audio
    if example.start or example.duration is not None:
        raise MintError(f"{path}: a file of features is read as a whole; leave out start and duration")
    try:
        # A pickle could run anything; these files may come from anybody.
        with np.load(path, allow_pickle=False) as content:
            features, encoder = content["features"], str(content["encoder"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise MintError(f"{path}: not a file of features ({error}); make its corpus again") from None

    if identity is not None and encoder != identity:
        raise MintError(
            f"{path}: these are features of another encoder ({encoder!r}); leave its manifest out, "
            f"or make the corpus with {identity!r}"
        )
    # What the cache would refuse of an encoder is refused of a file too.
    if features.dtype.kind != "f" or features.ndim != 2 or not np.isfinite(features).all():
        raise MintError(f"{path}: not features [T, D] of finite numbers; make its corpus again")
    return torch.from_numpy(features).float()
