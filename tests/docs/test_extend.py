"""What docs/extend.md says to add works: each section is done to a copy of the package, and its check is run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "extend.md"
BLOCK = re.compile(r"<!-- (?P<kind>file|change|check)(?:: (?P<path>\S+))? -->\n```\w+\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A block of code of the page: a new file, a change, or a check."""

    kind: str
    path: str | None
    text: str


def sections() -> dict[str, list[Block]]:
    """Return the blocks of each section, by its heading."""
    found: dict[str, list[Block]] = {}
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        heading, _, text = section.partition("\n")
        found[heading] = [Block(match["kind"], match["path"], match["text"]) for match in BLOCK.finditer(text)]
    return found


def change(source: str, block: Block) -> str:
    """Return a file's text after a block of changes, whose old lines must stand in it exactly once."""
    old, new = [], []
    for line in block.text.splitlines():
        mark, rest = line[:1], line[1:]
        if mark != "+":
            old.append(rest)
        if mark != "-":
            new.append(rest)
    before, after = "\n".join(old) + "\n", "\n".join(new) + "\n"
    assert source.count(before) == 1, f"{block.path} holds {source.count(before)} times:\n{before}"
    return source.replace(before, after)


@pytest.mark.parametrize("heading", sections())
def test_section_works(heading: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src" / "mint", tmp_path / "src" / "mint", ignore=shutil.ignore_patterns("__pycache__"))
    blocks = sections()[heading]
    for block in blocks:
        if block.kind == "file":
            path = tmp_path / str(block.path)
            assert not path.exists()
            path.write_text(block.text, encoding="utf-8")
        elif block.kind == "change":
            path = tmp_path / str(block.path)
            path.write_text(change(path.read_text(encoding="utf-8"), block), encoding="utf-8")

    checks = [block.text for block in blocks if block.kind == "check"]
    assert checks
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "src"), str(ROOT / "tests")])}
    for check in checks:
        command = [sys.executable, "-c", check]
        result = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert result.returncode == 0, result.stderr


def test_every_promised_section_is_there() -> None:
    words = ("encoder", "language model", "objective", "corpus", "metric", "verb")
    for word in words:
        assert any(word in heading for heading in sections()), f"nothing says how to add a {word}"
