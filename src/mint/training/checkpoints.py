"""The Trainer's checkpoints in a run's folder: which of them can be gone on from.

The Trainer writes a checkpoint file by file into its final place, `trainer_state.json` last, so that a kill or a full
disk leaves a folder that looks like a checkpoint and is none. Such a one is set aside, and the one before it serves.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

STATE = "trainer_state.json"
WEIGHTS = ({"model.safetensors", "optimizer.pt"}, {"pytorch_model_fsdp.bin", "optimizer.bin"})
"""Files of the weights and of the optimiser: the Trainer's own, and FSDP's. (FSDP and DeepSpeed may write folders.)"""
DAMAGED = "damaged-"
"""Before the name of what is set aside; the Trainer rotates away whatever is called `checkpoint-N...`."""


def checkpoints(output: Path) -> list[Path]:
    """The checkpoints of a run, the newest first."""
    found = [path for path in output.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]), reverse=True)


def last_checkpoint(output: Path) -> Path | None:
    """The newest whole checkpoint; newer ones that are damaged are renamed to `damaged-checkpoint-N`."""
    for path in checkpoints(output):
        if is_whole(path):
            return path
        aside = path.with_name(DAMAGED + path.name)
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
    return None


def is_whole(checkpoint: Path) -> bool:
    """Whether every file that the Trainer needs is there and every file opens and passes its own checks."""
    entries = list(checkpoint.iterdir())
    files = [path for path in entries if path.is_file()]
    names = {path.name for path in files}
    has_weights = len(files) < len(entries) or any(form <= names for form in WEIGHTS)
    return has_weights and {"scheduler.pt", STATE} <= names and all(_opens(path) for path in files)


def _opens(path: Path) -> bool:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt"):  # compares the header with the length of the file
                return True
        if path.suffix in (".pt", ".pth", ".bin"):
            with zipfile.ZipFile(path) as archive:  # torch.save writes zip archives with check sums
                return archive.testzip() is None
        if path.name == STATE:
            return isinstance(json.loads(path.read_text(encoding="utf-8"))["global_step"], int)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, zipfile.BadZipFile):
        return False
    return True
