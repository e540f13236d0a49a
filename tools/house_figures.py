"""How the code reads, in figures: sizes, comments, air, comprehensions, documentation.

    python tools/house_figures.py              # one column of figures for src/mint
    python tools/house_figures.py --by-room    # one line for each folder
    python tools/house_figures.py --worst      # what is over a limit, and where

A function's body is what follows its docstring; a function within another belongs to the body of the outer one.
"""

from __future__ import annotations

import argparse
import ast
import io
import math
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "src" / "mint"
MOST_LINES_OF_FILE = 400
MOST_LINES_OF_FUNCTION = 80

Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
COMPOUND = (*FUNCTIONS, ast.ClassDef, ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match)
"""Statements that hold other statements, which are looked at by themselves."""


@dataclass(frozen=True)
class Figures:
    """The counts of some modules."""

    files: tuple[int, ...] = ()
    """Lines of each file."""
    functions: tuple[int, ...] = ()
    """Lines of each function, from `def` to its end."""
    comments: int = 0
    body_lines: int = 0
    """Lines of the bodies of functions."""
    blank_lines: int = 0
    """Empty ones among them."""
    code_lines: int = 0
    """Lines that are neither empty, nor a comment, nor a docstring."""
    code_characters: int = 0
    comprehensions: int = 0
    """Comprehensions in the bodies of functions."""
    nested: int = 0
    """Statements with a comprehension inside another."""
    public: int = 0
    """Functions whose names begin with a letter."""
    documented: int = 0
    typed: int = 0

    def __add__(self, other: Figures) -> Figures:
        """Return the counts of both."""
        return Figures(*(ours + theirs for ours, theirs in zip(vars(self).values(), vars(other).values(), strict=True)))

    def table(self) -> dict[str, str]:
        """Return the figures by name, as they are printed."""
        return {
            "files": str(len(self.files)),
            "lines": f"{sum(self.files):,}",
            "file p50/p90/max": spread(self.files),
            "function p50/p90/max": spread(self.functions),
            "comments / 100 lines": f"{self.comments_per_100_lines:.1f}",
            "blank lines in bodies": f"{self.blank_share:.1f} %",
            "mean code line": f"{self.code_characters / max(1, self.code_lines):.1f}",
            "comprehensions / 100 body lines": f"{self.comprehensions_per_100_lines:.1f}",
            "nested comprehensions": str(self.nested),
            "public functions documented": f"{self.documented_share:.1f} %",
            "typed": f"{100 * self.typed / max(1, self.public):.1f} %",
        }

    @property
    def comments_per_100_lines(self) -> float:
        """Comments, also those at the end of a line, for 100 lines of any kind."""
        return 100 * self.comments / max(1, sum(self.files))

    @property
    def blank_share(self) -> float:
        """Percentage of empty lines in the bodies of functions."""
        return 100 * self.blank_lines / max(1, self.body_lines)

    @property
    def comprehensions_per_100_lines(self) -> float:
        """Comprehensions for 100 lines of the bodies of functions."""
        return 100 * self.comprehensions / max(1, self.body_lines)

    @property
    def documented_share(self) -> float:
        """Percentage of public functions that have a docstring."""
        return 100 * self.documented / max(1, self.public)


@dataclass
class Module:
    """One file, read."""

    path: Path
    text: str
    tree: ast.Module = field(init=False)
    lines: list[str] = field(init=False)

    def __post_init__(self) -> None:
        """Parse the file."""
        self.tree = ast.parse(self.text)
        self.lines = self.text.splitlines()

    def functions(self) -> list[Function]:
        """Return all functions and methods."""
        return [node for node in ast.walk(self.tree) if isinstance(node, FUNCTIONS)]

    def bodies(self) -> Iterator[tuple[Function, range]]:
        """Yield the outermost functions with the numbers of the lines of their bodies, without the docstring."""
        inner: set[Function] = set()
        for function in self.functions():
            if function not in inner:
                inner.update(node for node in ast.walk(function) if isinstance(node, FUNCTIONS))
                first = function.body[0]
                start = last_line(first) + 1 if ast.get_docstring(function) is not None else first.lineno
                yield function, range(start, last_line(function) + 1)

    def figures(self) -> Figures:
        """Count."""
        bodies = list(self.bodies())
        blank = comprehensions = 0
        for function, numbers in bodies:
            blank += sum(not self.lines[number - 1].strip() for number in numbers)
            comprehensions += sum(isinstance(node, COMPREHENSIONS) for node in ast.walk(function))
        code = self._code_lines()
        public = [function for function in self.functions() if not function.name.startswith("_")]

        return Figures(
            files=(len(self.lines),),
            functions=tuple(length(function) for function in self.functions()),
            comments=sum(token.type == tokenize.COMMENT for token in self._tokens()),
            body_lines=sum(len(numbers) for _, numbers in bodies),
            blank_lines=blank,
            code_lines=len(code),
            code_characters=sum(map(len, code)),
            comprehensions=comprehensions,
            nested=len(self.nested_comprehensions()),
            public=len(public),
            documented=sum(ast.get_docstring(function) is not None for function in public),
            typed=sum(is_typed(function) for function in public),
        )

    def nested_comprehensions(self) -> list[int]:
        """Return the lines of the simple statements that have a comprehension inside another."""
        return [
            node.lineno
            for node in ast.walk(self.tree)
            if isinstance(node, ast.stmt) and not isinstance(node, COMPOUND) and has_nested_comprehension(node)
        ]

    def _tokens(self) -> Iterator[tokenize.TokenInfo]:
        return tokenize.generate_tokens(io.StringIO(self.text).readline)

    def _code_lines(self) -> list[str]:
        documentation: set[int] = set()
        for node in ast.walk(self.tree):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                documentation.update(range(node.lineno, last_line(node) + 1))
        code = []
        for number, line in enumerate(self.lines, start=1):
            if line.strip() and not line.strip().startswith("#") and number not in documentation:
                code.append(line)
        return code


def read_modules(root: Path = ROOT) -> list[Module]:
    """Return the Python files below a folder, read."""
    return [Module(path, path.read_text(encoding="utf-8")) for path in sorted(root.rglob("*.py"))]


def figures_of(modules: Sequence[Module]) -> Figures:
    """Return the figures of some modules together."""
    return sum((module.figures() for module in modules), Figures())


def offenders(modules: Sequence[Module], root: Path = ROOT) -> list[str]:
    """Return what is over a hard limit, one line each: `FILE:LINE: what`."""
    found = []
    for module in modules:
        path = module.path.relative_to(root)
        if len(module.lines) > MOST_LINES_OF_FILE:
            found.append(f"{path}:1: file of {len(module.lines)} lines")
        for function in module.functions():
            if length(function) > MOST_LINES_OF_FUNCTION:
                found.append(f"{path}:{function.lineno}: {function.name} has {length(function)} lines")
        for line in module.nested_comprehensions():
            found.append(f"{path}:{line}: a comprehension inside another")
    return found


def undocumented(modules: Sequence[Module], root: Path = ROOT) -> list[str]:
    """Return the public functions without a docstring, one line each."""
    found = []
    for module in modules:
        for function in module.functions():
            if not function.name.startswith("_") and ast.get_docstring(function) is None:
                found.append(f"{module.path.relative_to(root)}:{function.lineno}: {function.name} has no docstring")
    return found


def has_nested_comprehension(statement: ast.stmt) -> bool:
    """Return whether a statement has a comprehension inside another."""
    for node in ast.walk(statement):
        if isinstance(node, COMPREHENSIONS):
            inside = [inner for inner in ast.walk(node) if inner is not node and isinstance(inner, COMPREHENSIONS)]
            if inside:
                return True
    return False


def is_typed(function: Function) -> bool:
    """Return whether a function names the types of its result and of all arguments but `self` and `cls`."""
    given = function.args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    named = [one for one in arguments if one.arg not in ("self", "cls")]
    return function.returns is not None and all(one.annotation is not None for one in named)


def last_line(node: ast.stmt) -> int:
    """Return the number of a statement's last line."""
    assert node.end_lineno is not None
    return node.end_lineno


def length(function: Function) -> int:
    """Return the lines of a function, from `def` to its end."""
    return last_line(function) - function.lineno + 1


def spread(values: Sequence[int]) -> str:
    """Return the median, the 90th percentile and the largest of some numbers."""
    if not values:
        return "-"
    ordered = sorted(values)
    median, ninetieth = (ordered[min(len(ordered) - 1, math.floor(share * len(ordered)))] for share in (0.5, 0.9))
    return f"{median}/{ninetieth}/{ordered[-1]}"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="How the code reads, in figures.")
    parser.add_argument("root", nargs="?", type=Path, default=ROOT, help="The folder of the package.")
    parser.add_argument("--by-room", action="store_true", help="Print one line for each folder.")
    parser.add_argument("--worst", action="store_true", help="Print what is over a limit.")
    arguments = parser.parse_args()
    modules = read_modules(arguments.root)

    if arguments.by_room:
        print(" | ".join(["room", *Figures().table()]))
        rooms: dict[Path, list[Module]] = {}
        for module in modules:
            rooms.setdefault(module.path.parent.relative_to(arguments.root), []).append(module)
        for room, some in sorted(rooms.items()):
            print(" | ".join([str(room), *figures_of(some).table().values()]))
    elif arguments.worst:
        print("\n".join([*offenders(modules, arguments.root), *undocumented(modules, arguments.root)]))
    else:
        for name, value in figures_of(modules).table().items():
            print(f"{name:32} {value}")


if __name__ == "__main__":
    main()
