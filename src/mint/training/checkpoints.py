"""The Trainer's checkpoints in a run's folder: which of them can be gone on from.

The Trainer writes a checkpoint file by file into its final place, `trainer_state.json` last, so that a kill or a full
disk leaves a folder that looks like a checkpoint and is none. Before that last file, and after all ranks have written
theirs, `seal` writes down the digest of each. A checkpoint that is not as it was sealed is set aside, and the one
before it serves.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import TrainerState

STATE = "trainer_state.json"
SUMS = "SHA256SUMS"
"""As `sha256sum` writes and checks it."""
WEIGHTS = ({"model.safetensors", "optimizer.pt"}, {"pytorch_model_fsdp.bin", "optimizer.bin"})
"""Files of the weights and of the optimiser: the Trainer's own, and FSDP's. (FSDP and DeepSpeed may write folders.)"""
DAMAGED = "damaged-"
"""Before the name of what is set aside; the Trainer rotates away whatever is called `checkpoint-N...`."""


def checkpoints(output: Path) -> list[Path]:
    """The checkpoints of a run, the newest first."""
    found = [path for path in output.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=_step, reverse=True)


def last_checkpoint(output: Path) -> Path | None:
    """The newest whole checkpoint; newer ones that are damaged are renamed to `damaged-checkpoint-N`."""
    for path in checkpoints(output):
        if is_whole(path):
            return path
        aside = path.with_name(DAMAGED + path.name)
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
    return None


def seal(checkpoint: Path) -> None:
    """Write down the digests of what all ranks have written, in folders too; `trainer_state.json` is to follow."""
    half_written = checkpoint / f"{SUMS}.tmp"
    written = [path for path in _files(checkpoint) if path.name not in (STATE, SUMS, half_written.name)]
    lines = [f"{_digest(path)}  {path.relative_to(checkpoint).as_posix()}\n" for path in written]
    half_written.write_text("".join(lines), encoding="utf-8")
    half_written.replace(checkpoint / SUMS)


def is_whole(checkpoint: Path) -> bool:
    """Whether every file is there and as it was sealed; without a seal, whether each opens and passes its checks."""
    try:
        if TrainerState.load_from_json(str(checkpoint / STATE)).global_step != _step(checkpoint):
            return False
        return _is_as_sealed(checkpoint) if (checkpoint / SUMS).exists() else _opens(checkpoint)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, zipfile.BadZipFile):
        return False


def ranks_of(checkpoint: Path) -> int:
    """How many ranks wrote a checkpoint: each has left the state of its random numbers."""
    return len(list(checkpoint.glob("rng_state*.pth")))


def _is_as_sealed(checkpoint: Path) -> bool:
    lines = (checkpoint / SUMS).read_text(encoding="utf-8").splitlines()
    return bool(lines) and all(_digest(checkpoint / line[66:]) == line[:64] for line in lines)


def _opens(checkpoint: Path) -> bool:
    """Of a checkpoint from before there were seals."""
    files = list(_files(checkpoint))
    names = {path.relative_to(checkpoint).as_posix() for path in files}
    has_folders = any("/" in name for name in names)
    ranks = ranks_of(checkpoint)
    states = {"rng_state.pth"} if ranks == 1 else {f"rng_state_{rank}.pth" for rank in range(ranks)}
    has_weights = has_folders or any(form <= names for form in WEIGHTS)
    return has_weights and ranks > 0 and {"scheduler.pt", *states} <= names and all(map(_passes, files))


def _passes(path: Path) -> bool:
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt"):  # compares the header with the length of the file
            return True
    if path.suffix in (".pt", ".pth", ".bin"):
        with zipfile.ZipFile(path) as archive:  # torch.save writes zip archives with check sums
            return archive.testzip() is None
    return True


def _files(checkpoint: Path) -> list[Path]:
    return sorted(path for path in checkpoint.rglob("*") if path.is_file())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.partition("-")[2])
