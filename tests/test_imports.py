"""Imports point one way, and the light parts stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mint

PACKAGE = Path(mint.__file__).parent

LAYERS: tuple[set[str], ...] = (
    {"types"},
    {"files", "text_files", "machine", "user_input"},
    {"recipe_text"},
    {"config"},
    {"assets"},
    {"encoders", "language"},
    {"model", "data"},
    {"run_folder"},
    {"builders"},
    {"predict"},
    {"training", "evaluation", "index"},
    {"hub"},
    {"inference"},
    {"batches"},
    {"serve"},
    {"quickstart"},
    {"ablation"},
    {"cli"},
    {"__main__"},
)
"""From the bottom up. A part may import itself and the layers below, never its neighbour or what stands above."""

RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imported_parts(source: str, module: str, is_package: bool) -> set[str]:
    """Parts of `mint` (`model`, `data`, ...) that a module imports, at its top or inside functions.

    Args:
        source: the module's text.
        module: its dotted name.
        is_package: whether it is an `__init__.py`, which relative imports start from.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                parents = parents[: len(parents) - node.level + is_package]
                base = ".".join([*parents, *filter(None, [node.module])])
            names.update(f"{base}.{alias.name}" for alias in node.names)
    parts = {name.split(".")[1] for name in names if name.startswith("mint.")}
    return {"inference" if part == "Mint" else part for part in parts} - {"__version__"}


def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_point_one_way(path: Path) -> None:
    module = dotted(path)
    own = module.split(".")[1]
    assert own in RANK, f"{own} has no place in LAYERS"
    imported = imported_parts(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
    assert imported <= RANK.keys(), f"{imported - RANK.keys()} have no place in LAYERS"
    assert {part for part in imported - {own} if RANK[part] >= RANK[own]} == set()


@pytest.mark.parametrize(
    ("source", "module", "is_package", "parts"),
    [
        ("import mint.data.audio", "mint.model.x", False, {"data"}),
        ("from mint.data import audio", "mint.model.x", False, {"data"}),
        ("from mint import data, Mint, __version__", "mint.model.x", False, {"data", "inference"}),
        ("def f():\n    from mint.cli import main", "mint.model.x", False, {"cli"}),
        ("from . import masks", "mint.model.x", False, {"model"}),
        ("from .. import data", "mint.model.x", False, {"data"}),
        ("from ..data.audio import load", "mint.model.x", False, {"data"}),
        ("from ..data.audio import load", "mint.model", True, {"data"}),
        ("from .masks import causal", "mint.model", True, {"model"}),
        ("import torch, mintage\nfrom torch import nn", "mint.model.x", False, set()),
    ],
)
def test_every_form_of_import_is_seen(source: str, module: str, is_package: bool, parts: set[str]) -> None:
    assert imported_parts(source, module, is_package) == parts


@pytest.mark.parametrize("statement", ["import mint", "import mint.types", "import mint.config", "import mint.cli"])
def test_light_modules_import_nothing_heavy(statement: str) -> None:
    code = f"{statement}; import sys; print(sorted({{'torch', 'transformers', 'numpy', 'sklearn'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
