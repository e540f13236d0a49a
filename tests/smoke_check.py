"""Check what a run of the quickstart wrote: `python tests/smoke_check.py runs/smoke`.

Exit code 0: results.json is well-formed, report.html opens offline, both stages have weights, and stage 2 recognises
notes better than chance. Exit code 1: it is not so, with one line for each fault. Exit code 2: wrong usage.
"""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

TOP_KEYS = {"rows", "seconds", "peak_memory_bytes", "recipe", "commit", "seed"}
ROW_KEYS = {"task", "split", "metric", "method", "value", "low", "high", "n"}
TASKS = {"notes", "ensembles", "chords", "percussion", "sounds", "retrieval", "captioning"}
FAMILIES = 11
"""Classes of the task `notes`."""
EXTERNAL = re.compile(
    r"""(?:\bsrc\s*=|<link\b[^>]*\bhref\s*=|\burl\(|@import)\s*["']?\s*(?:https?:)?//""", re.IGNORECASE
)


def check(folder: Path) -> list[str]:
    """Faults of a finished run, one line each; none: it is sound."""
    faults = check_report(folder / "report.html")
    for stage in ("stage1", "stage2"):
        weights = list((folder / stage).glob("*.safetensors"))
        if not any(path.stat().st_size for path in weights):
            faults.append(f"{folder / stage} holds no weights (*.safetensors)")
    path = folder / "results.json"
    try:
        results = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse_constant)
    except (OSError, ValueError) as error:
        return [*faults, f"{path} cannot be read: {error}"]
    return faults + [f"{path}: {fault}" for fault in check_results(results)]


def check_results(results: Any) -> list[str]:
    """Faults of the content of results.json."""
    if not isinstance(results, dict) or not results.keys() >= TOP_KEYS:
        missing = TOP_KEYS - results.keys() if isinstance(results, dict) else TOP_KEYS
        return [f"keys are missing: {', '.join(sorted(missing))}"]
    rows = results["rows"]
    if not isinstance(rows, list) or not rows:
        return ["rows is not a list with something in it"]
    faults = [f"row {number}: {fault}" for number, row in enumerate(rows) for fault in check_row(row)]
    if faults:
        return faults
    missing = TASKS - {row["task"] for row in rows}
    if missing:
        faults.append(f"tasks are missing: {', '.join(sorted(missing))}")
    if not is_number(results["seconds"]) or results["seconds"] <= 0:
        faults.append(f"seconds is {results['seconds']!r}")
    return faults + check_above_chance(rows)


def check_row(row: Any) -> list[str]:
    """Faults of one row."""
    if not isinstance(row, dict) or row.keys() != ROW_KEYS:
        return [f"has the keys {sorted(row) if isinstance(row, dict) else row!r}, not {sorted(ROW_KEYS)}"]
    faults = [f"{key} is {row[key]!r}" for key in ("task", "split", "metric", "method") if not is_text(row[key])]
    if not isinstance(row["n"], int) or row["n"] < 1:
        faults.append(f"n is {row['n']!r}")
    if not is_number(row["value"]):
        return [*faults, f"value is {row['value']!r}"]
    for end, sign in (("low", 1), ("high", -1)):
        if row[end] is not None and not (is_number(row[end]) and sign * (row["value"] - row[end]) >= 0):
            faults.append(f"{end} is {row[end]!r} at value {row['value']}")
    return faults


def check_above_chance(rows: list[dict[str, Any]]) -> list[str]:
    """Stage 2 names the family of notes better than chance: the whole 95 % interval lies above it."""
    accuracy = {
        row["method"]: row
        for row in rows
        if (row["task"], row["split"], row["metric"]) == ("notes", "test", "accuracy")
    }
    if "stage2" not in accuracy:
        return ["no accuracy of stage2 on the test split of notes"]
    chance = accuracy["chance"]["value"] if "chance" in accuracy else 1 / FAMILIES
    row = accuracy["stage2"]
    low = row["value"] if row["low"] is None else row["low"]
    if low <= chance:
        return [f"stage2 on notes: {row['value']:.3f} (from {low:.3f}, n {row['n']}) is not above chance, {chance:.3f}"]
    return []


def check_report(path: Path) -> list[str]:
    """Faults of report.html."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        return [f"{path} cannot be read: {error}"]
    if "</html>" not in text.lower():
        return [f"{path} is not a whole page: no </html>"]
    return [f"{path} loads from elsewhere: {found}" for found in EXTERNAL.findall(text)]


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_text(value: Any) -> bool:
    """Whether it is a string with something in it."""
    return isinstance(value, str) and bool(value)


def refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which are not JSON."""
    raise ValueError(f"{name} is not JSON")


def main(arguments: list[str]) -> int:
    """Check the folder named on the command line."""
    if len(arguments) != 1:
        print("usage: python tests/smoke_check.py FOLDER", file=sys.stderr)
        return 2
    faults = check(Path(arguments[0]))
    for fault in faults:
        print(f"smoke check: {fault}", file=sys.stderr)
    if not faults:
        print(f"smoke check: {arguments[0]} is sound")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
