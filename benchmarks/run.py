"""Run the benchmarks one after another and print what they compare in one table of ratios.

    python benchmarks/run.py            the short set, minutes
    python benchmarks/run.py --all      the paper's longest shape and how cost grows too
    python benchmarks/run.py --quick    the smallest sizes, to see that everything works
    python benchmarks/run.py stage1_step ranking    these alone

Each runs in a process of its own and writes `NAME.json` into the output folder; one that fails stops no other.
"""

from __future__ import annotations

import subprocess
import sys

from common import HERE, parser, read_rows, table

SHORT = ("stage1_step", "stage2_step", "ranking", "inference", "audio", "loader", "roofline", "serve")
LONG = ("growth", "startup", "batches")


def main() -> int:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("names", nargs="*", metavar="NAME", help=f"benchmarks: {', '.join((*SHORT, *LONG))}")
    chosen = options.parse_args()
    unknown = [name for name in chosen.names if name not in (*SHORT, *LONG)]
    if unknown:
        options.error(f"no benchmark {unknown[0]!r}; choose from {', '.join((*SHORT, *LONG))}")
    names = chosen.names or (*SHORT, *(LONG if chosen.all or chosen.quick else ()))
    level = [flag for flag in ("--quick", "--all") if getattr(chosen, flag[2:])]
    arguments = [*level, "--rounds", str(chosen.rounds), "--output", str(chosen.output)]
    failed = [name for name in names if subprocess.run([sys.executable, HERE / f"{name}.py", *arguments]).returncode]
    done = [name for name in names if name not in failed]
    compared = [row for name in done for row in read_rows(chosen.output / f"{name}.json") if row.ratio is not None]
    print(f"\n# Ratios\n\n{table(compared)}\nIn full, with every round: {chosen.output}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
