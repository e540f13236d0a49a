"""The machine: commit, memory, processor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mint import machine
from mint.machine import git_commit, peak_memory_bytes


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_commit_is_that_of_the_checkout_the_package_lies_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "machine.py"
    source.write_text("")
    monkeypatch.setattr(machine, "__file__", str(source))
    assert git_commit() is None
    git(tmp_path, "init", "-q")
    assert git_commit() is None  # installed inside somebody else's checkout
    git(tmp_path, "add", "machine.py")
    git(tmp_path, "commit", "-q", "-m", "first")
    assert git_commit() == git(tmp_path, "rev-parse", "HEAD")
    source.write_text("# changed")
    assert git_commit() == git(tmp_path, "rev-parse", "HEAD") + "-dirty"
    monkeypatch.setenv("PATH", "")
    assert git_commit() is None


def test_peak_memory_grows_with_what_is_held() -> None:
    script = """
from mint.machine import peak_memory_bytes
before = peak_memory_bytes()
held = b"x" * 100_000_000
print(peak_memory_bytes() - before)
"""
    grown = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert 90_000_000 < int(grown) < 150_000_000
    own = peak_memory_bytes()
    assert own is not None
    assert own > 100_000_000  # the child's, at the least
