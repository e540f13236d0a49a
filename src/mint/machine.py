"""What a number was made with: the commit, the memory, the machine; and the device that models run on by default."""

from __future__ import annotations

import os
import platform
import reprlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mint.types import MintError

if TYPE_CHECKING:
    import torch


def default_device() -> torch.device:
    """Return the accelerator that torch finds (CUDA, XPU, MPS, ...), of several that of this rank; else the CPU.

    The frozen encoder and the models run on it everywhere, unless a recipe or a caller says otherwise.
    """
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return torch.device("cpu")
    if accelerator.type in ("cuda", "xpu"):  # the others have one device
        return torch.device(accelerator.type, int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device(accelerator.type)


def checked_device(device: Any) -> torch.device:
    """Return a device that a caller names, such as "cpu" or "cuda:1".

    Raises:
        MintError: it is none, or it is not in this machine.
    """
    import torch

    try:
        checked = torch.device(device)
        torch.empty(0, device=checked)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:  # each kind of device refuses in its own way
        reason = " ".join(str(error).split())
        raise MintError(
            f"there is no device {reprlib.repr(device)} here ({reason[:200]}); give another, such as 'cpu'"
        ) from None
    if checked.type == "meta":
        raise MintError("the device 'meta' computes nothing; give 'cpu' or an accelerator, such as 'cuda:0'")
    return checked


def git_commit() -> str | None:
    """Return the commit of the checkout that MINT is imported from, with `-dirty` where tracked files were changed.

    None for an installed package, or without git.
    """
    here = Path(__file__)
    # The first fails for a package that merely lies inside somebody else's checkout, such as in a virtual environment.
    commands = (
        ["ls-files", "--error-unmatch", here.name],
        ["rev-parse", "HEAD"],
        ["status", "--porcelain", "--untracked-files=no"],
    )
    answers = []
    try:
        for command in commands:
            answer = subprocess.run(["git", *command], cwd=here.parent, capture_output=True, text=True, check=True)
            answers.append(answer.stdout.strip())
    except (OSError, subprocess.CalledProcessError):
        return None
    _, commit, changes = answers
    return f"{commit}-dirty" if changes else commit


def peak_memory_bytes() -> int | None:
    """Return the largest resident size so far of this process or of a finished child of it; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    # macOS counts bytes, the others kibibytes.
    unit = 1 if sys.platform == "darwin" else 1024
    child = unit * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    own = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    # Linux counts the size of whoever started a process as that process's own maximum.
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        own = 1024 * int(lines["VmHWM"].split()[0]) if "VmHWM" in lines else own
    return max(own, child)


def describe_machine() -> str:
    """Return the machine in a few words, without its name: system, processor, cores."""
    name = platform.processor() or platform.machine()
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        models = [line.partition(":")[2] for line in listing.read_text().splitlines() if line.startswith("model name")]
        name = " ".join(models[0].split()) if models else name
    # In a container those that it may use, not those of the machine.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.system()} {platform.machine()}, {name}, {cores} CPU cores"
