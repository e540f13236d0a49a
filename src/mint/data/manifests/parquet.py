"""Parquet manifests as JSON Lines, so that the examples of large ones are read where they are drawn too.

Parquet has no lines that could be read one by one. At its first use a copy in JSON Lines is made in the cache folder,
some thousands of rows in memory at a time, with absolute audio paths; a file that was changed gets a new copy.
"""

from __future__ import annotations

from pathlib import Path

from mint.assets import cache_folder
from mint.data.id_tables import id_of
from mint.data.manifests.manifest import PARQUET, manifest_rows, parse_record, to_json
from mint.files import clear_abandoned, writing
from mint.types import MintError


def json_lines_of(manifest: str | Path) -> Path:
    """Return a manifest itself or, for a Parquet file, its copy; the file itself where no copy can be written.

    Raises:
        MintError: as `read_manifest`.
    """
    path = Path(manifest)
    if path.suffix.lower() != PARQUET or not path.is_file():
        return path
    folder, name, state = cache_folder() / "manifests", id_of(str(path.absolute())).hex(), path.stat()
    copy = folder / f"{name}-{state.st_size}-{state.st_mtime_ns}.jsonl"
    # Size and time stand in the name, so that a changed file has another copy.
    if copy.is_file():
        return copy

    try:
        folder.mkdir(parents=True, exist_ok=True)
        clear_abandoned(folder)
        _write_lines(path, copy)
    except OSError:
        return path
    # Copies of what the file was before serve nobody.
    for old in set(folder.glob(f"{name}-*.jsonl")) - {copy}:
        old.unlink(missing_ok=True)
    return copy


def _write_lines(path: Path, copy: Path) -> None:
    """Write the rows of a Parquet file as JSON Lines."""
    folder = path.absolute().parent
    with writing(copy) as file:
        for number, row in manifest_rows(path):
            try:
                record = parse_record(row)
            except MintError as error:
                raise MintError(f"{path}, line {number}: {error}") from None
            file.write(to_json({**record, "audio": str(folder / record["audio"])}) + b"\n")
