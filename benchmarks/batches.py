"""How fast are many files captioned and classified, beside one call for each file, as the verbs did before?

The generators of `Mint` decode in threads ahead of the models and ask about clips in groups. The answers must be the
same before anything is timed.

    python benchmarks/batches.py --run runs/quickstart [--files 200]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import alternate, compare, parser, report
from inference import LABELS, LENGTH, RATE, SECONDS, make_run, write_clips
from mint import Mint


def main() -> None:
    options = read_options()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        paths = write_clips(folder, RATE, SECONDS, 4 if options.quick else options.files)
        run = options.run or make_run(folder / "run", paths, options.quick)
        mint = Mint.from_pretrained(run)
        rows = []
        for name, (many, one) in verbs(mint).items():
            assert_same(list(many(paths[:8])), [one(path) for path in paths[:8]])
            variants: dict[str, Callable[[], object]] = {
                "MINT": lambda many=many: list(many(paths)),  # type: ignore[misc]
                "one call a file": lambda one=one: [one(path) for path in paths],  # type: ignore[misc]
            }
            rounds = alternate(variants, options.rounds)
            rows += compare(
                f"{len(paths)} files of {SECONDS:g} s, each", name, rounds, {"one call a file": 2.0}, len(paths)
            )
    report("batches", rows, options, run=str(options.run or "one step of training"))


def read_options() -> argparse.Namespace:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--run", type=Path, help="folder of a finished run (a model trained for one step)")
    options.add_argument("--files", type=int, default=200, help="number of files (200)")
    return options.parse_args()


def verbs(mint: Mint) -> dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]]:
    """Each verb over many files, and over one."""
    return {
        "caption": (
            lambda paths: (answer.get() for answer in mint.caption_each(paths, **LENGTH)),
            lambda path: mint.caption(path, **LENGTH),
        ),
        "class, 10 labels": (
            lambda paths: (answer.get() for answer in mint.classify_each(paths, LABELS)),
            lambda path: mint.classify(path, LABELS),
        ),
    }


def assert_same(ours: list[Any], theirs: list[Any]) -> None:
    """Texts word by word, scores to 1e-3."""
    for mine, other in zip(ours, theirs, strict=True):
        if isinstance(mine, str):
            assert mine == other, (mine, other)
        else:
            assert max(abs(mine[label] - other[label]) for label in LABELS) < 1e-3


if __name__ == "__main__":
    main()
