"""Where the manifest of a corpus is written, and the list of what was left out of it.

What is left out stands in `NAME.skipped.jsonl` beside `NAME.jsonl`, each with its reason, so that a bad row or a broken
recording costs that clip and no more.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mint.data.manifests.manifest import to_json
from mint.files import clear_abandoned, writing
from mint.types import MintError

OTHER_SUFFIXES = (".parquet", ".json", ".ndjson", ".csv", ".tsv", ".txt")
"""Suffixes that no folder is likely to have."""
REASON_LENGTH = 200
"""Characters of a reason that an error message repeats."""


@dataclass(frozen=True)
class Skip:
    """Told the name and the reason of each clip that is left out."""

    leave_out: Callable[[str, str], None]
    note: Callable[[str], None]
    """Told, in a line, what a person should know of the corpus as a whole."""
    first: list[str] = field(default_factory=list)
    """The name and reason of the first clip that was left out, as one text; empty while there is none."""

    def __call__(self, name: str, reason: str) -> None:
        """Leave a clip out."""
        # A list, since a frozen record cannot be given another text.
        if not self.first:
            self.first.append(f"{name}: {reason[:REASON_LENGTH]}")
        self.leave_out(name, reason)

    def lines_of(self, table: Path) -> Callable[[int, str], None]:
        """Return a function that leaves out the row in a line of a table, for a reason."""
        return lambda line, reason: self(f"{table.name}, line {line}", reason)


ignore = Skip(lambda name, reason: None, lambda line: None)
"""Ignores everything it is told."""


def manifest_file(output: Path, name: str) -> Path:
    """Return the manifest that is asked for: `output` itself, or NAME.jsonl in it where it is a folder.

    The folder is created. Half-written files that a killed process left in it are removed.

    Raises:
        MintError: `output` has the name of another file.
    """
    if output.suffix.lower() in OTHER_SUFFIXES and not output.is_dir():
        cure = f"name it {output.with_suffix('.jsonl').name}, or give a folder"
        raise MintError(f"{output}: a manifest is written as JSON Lines; {cure}")

    manifest = output if output.suffix.lower() == ".jsonl" else output / f"{name}.jsonl"
    manifest.parent.mkdir(parents=True, exist_ok=True)
    clear_abandoned(manifest.parent)
    return manifest


def skipped_file(manifest: Path) -> Path:
    """Return the path of the list of what was left out of a manifest; there is no file if nothing was."""
    return manifest.with_suffix(".skipped.jsonl")


def read_skipped(manifest: Path) -> Iterator[dict[str, str]]:
    """Yield what was left out when a manifest was made: a dictionary with `audio` and `reason` for each clip."""
    path = skipped_file(manifest)
    # Streamed: of YouTube's corpora a million clips may be missing.
    if path.exists():
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


@contextmanager
def listing_skipped(manifest: Path, note: Callable[[str], None]) -> Iterator[Skip]:
    """Write what is left out of a manifest to its list, which replaces an earlier one when the block ends.

    Args:
        manifest: the one that is being written.
        note: told each line about the corpus once, however often the reader notes it.
    """
    path = skipped_file(manifest)
    # Written as a whole, so that a reader that fails leaves the list of the earlier manifest as it was.
    with writing(path) as file:

        def leave_out(audio: str, reason: str) -> None:
            """Write one line."""
            file.write(to_json({"audio": audio, "reason": reason}) + b"\n")

        # A cached function is called once for each line, so that nothing is noted twice.
        yield Skip(leave_out, functools.cache(note))

    # Where nothing was left out, no list stands beside the manifest.
    if not path.stat().st_size:
        path.unlink()
