"""The house: limits of the code's form that can be counted. `python tools/house_figures.py --worst` says where."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

import house_figures
from house_figures import Figures, Module, figures_of, offenders, read_modules

LEFT: dict[str, int] = {}
"""File -> what of it is still over a limit; the numbers may only fall, and no file may be added."""


@pytest.fixture(scope="module")
def modules() -> list[Module]:
    return read_modules()


def test_no_file_function_or_comprehension_is_over_its_limit(modules: list[Module]) -> None:
    found = offenders(modules)
    counts = Counter(line.partition(":")[0] for line in found)
    worse = [line for line in found if counts[line.partition(":")[0]] > LEFT.get(line.partition(":")[0], 0)]
    assert worse == []


def test_figures_do_not_fall(modules: list[Module]) -> None:
    figures = figures_of(modules)
    assert figures.documented_share >= 95
    assert figures.typed == figures.public
    assert figures.comments_per_100_lines >= 4.0
    assert figures.blank_share >= 6.5
    assert figures.comprehensions_per_100_lines <= 4.0


TEXT = '''"""A module."""

from pathlib import Path  # a comment at the end of a line

NAMES = [name.strip() for name in "a b".split()]


def public(path: Path) -> list[list[int]]:
    """Return something."""
    # A reason.
    rows = [[int(cell) for cell in row] for row in path.read_text()]

    def inner(row: list[int]):
        return (cell for cell in row)

    return rows


class Shape:
    """A shape."""

    def _hidden(self):
        values = []

        return values
'''


def test_what_is_counted() -> None:
    module = Module(Path("a.py"), TEXT)
    figures = module.figures()
    assert figures == Figures(
        files=(25,),
        functions=(9, 2, 4),
        comments=2,
        body_lines=10,  # seven of `public`, which has `inner` within it, and three of `_hidden`
        blank_lines=3,
        code_lines=11,
        code_characters=figures.code_characters,
        comprehensions=3,
        nested=1,
        public=2,
        documented=1,
        typed=1,
    )
    assert figures.code_characters == sum(
        len(line) for line in TEXT.splitlines() if line.strip() and not re.match(r'\s*(#|""")', line)
    )
    assert figures_of([module, module]).files == (25, 25)


def test_what_is_over_a_limit_is_named() -> None:
    long = "def far(path: str) -> None:\n" + "    print(path)\n" * 400
    found = offenders([Module(Path("/package/a.py"), TEXT), Module(Path("/package/b.py"), long)], Path("/package"))
    assert found == [
        "a.py:11: a comprehension inside another",
        "b.py:1: file of 401 lines",
        "b.py:1: far has 401 lines",
    ]


def test_the_figures_are_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ([], ["--by-room"], ["--worst"]):
        monkeypatch.setattr(sys, "argv", ["house_figures.py", *options])
        house_figures.main()
    printed = capsys.readouterr().out
    assert "file p50/p90/max" in printed
    assert "evaluation/metrics | " in printed
