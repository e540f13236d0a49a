"""The documentation: the map says what the modules say, and every word that it links to is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])


def test_map_is_what_the_modules_say() -> None:
    result = subprocess.run(
        [sys.executable, "tools/module_map.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    linked = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    missing = [name for name in linked if not (page.parent / name).exists()]

    # Paths in code, such as `src/mint/types.py`, or `data/audio/decode.py` within the package.
    for name in re.findall(r"`((?:src|tests|benchmarks|tools|docs)/[\w/.-]+\.(?:py|md|yaml|html))`", text):
        if not (ROOT / name).exists():
            missing.append(name)
    for name in re.findall(r"`((?:model|data|training|evaluation|language|encoders)/[\w/]+\.py)`", text):
        if not (ROOT / "src" / "mint" / name).exists():
            missing.append(name)
    assert not missing


def test_every_page_stands_in_the_site() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in ROOT.glob("docs/*.md"):
        assert f" {page.name}\n" in text, f"{page.name} is missing in mkdocs.yml"


@pytest.mark.slow
def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Bridge-Net" in (tmp_path / "reference" / "index.html").read_text(encoding="utf-8")
