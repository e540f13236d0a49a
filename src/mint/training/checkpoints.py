"""The Trainer's checkpoints in a run's folder: from which of them a run can go on.

The Trainer writes a checkpoint file by file into its final place, `trainer_state.json` last, so that a kill or a full
disk leaves a folder that looks like a checkpoint and is none. Before that last file, and after all ranks have written
theirs, `seal` writes down the digest of each. A checkpoint that is not as it was sealed is set aside, and the one
before it serves.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from transformers import TrainerState

from mint.files import sha256, write_whole
from mint.types import MintError

STATE = "trainer_state.json"
"""The Trainer's last file: the step, and the history."""
SUMS = "SHA256SUMS"
"""The seal, as `sha256sum` writes and checks it."""
DAMAGED = "damaged-"
"""Before the name of what is set aside; the Trainer rotates away whatever is called `checkpoint-N...`."""


def checkpoints(output: Path) -> list[Path]:
    """Return the checkpoints of a run, the newest first."""
    paths = [path for path in output.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    # By number: as text, checkpoint-900 is after checkpoint-1000.
    return sorted(paths, key=_step, reverse=True)


def last_checkpoint(output: Path) -> Path | None:
    """Return the newest whole checkpoint; newer ones that are damaged are renamed to `damaged-checkpoint-N`."""
    for path in checkpoints(output):
        if is_whole(path):
            return path

        aside = path.with_name(DAMAGED + path.name)
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
    return None


def seal(checkpoint: Path) -> None:
    """Write down the digests of what all ranks have written, in folders too; `trainer_state.json` is to follow."""
    lines = []
    for path in _files(checkpoint):
        # Hidden files are the file system's (.nfs..., .DS_Store), and may be gone by the time of checking.
        if path.name not in (STATE, SUMS) and not path.name.startswith("."):
            lines.append(f"{sha256(path)}  {path.relative_to(checkpoint).as_posix()}\n")
    write_whole(checkpoint / SUMS, "".join(lines))


def is_whole(checkpoint: Path) -> bool:
    """Return whether every file is there and as it was sealed."""
    try:
        if TrainerState.load_from_json(str(checkpoint / STATE)).global_step != _step(checkpoint):
            return False
        digests = _sealed(checkpoint)
        # A seal of nothing is one that was cut off, or written before the files.
        return bool(digests) and all(sha256(checkpoint / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def refuse_foreign_files(checkpoint: Path) -> None:
    """Refuse a checkpoint that holds what the training did not write: the Trainer would load some of it by its name.

    Hidden files, such as those that file systems and file managers leave, are passed over.

    Raises:
        MintError: it names the first such file.
    """
    sealed = _sealed(checkpoint)
    for path in _files(checkpoint):
        name = path.relative_to(checkpoint).as_posix()
        if name not in sealed and name not in (STATE, SUMS) and not path.name.startswith("."):
            raise MintError(f"{path} was not written by the training; move it out of the checkpoint")


def ranks_of(checkpoint: Path) -> int:
    """Return how many ranks wrote a checkpoint: each has left the state of its random numbers."""
    return len(list(checkpoint.glob("rng_state*.pth")))


def _sealed(checkpoint: Path) -> dict[str, str]:
    """Return the digests of a seal by the paths of the files."""
    lines = (checkpoint / SUMS).read_text(encoding="utf-8").splitlines()
    # A line is a digest of 64 digits, two spaces and a path.
    return {line[66:]: line[:64] for line in lines}


def _files(checkpoint: Path) -> list[Path]:
    """Return all files in a checkpoint and its folders, in order."""
    return sorted(path for path in checkpoint.rglob("*") if path.is_file())


def _step(checkpoint: Path) -> int:
    """Return the step of a checkpoint, by its name."""
    return int(checkpoint.name.partition("-")[2])
