"""Parquet manifests as JSON Lines, so that the examples of large ones are read where they are drawn too.

Parquet has no lines that could be read one by one. At its first use a copy in JSON Lines is made in the cache folder,
some thousands of rows in memory at a time, with absolute audio paths; a file that was changed gets a new one.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from mint.assets import cache_folder
from mint.data.id_tables import id_of
from mint.data.manifests.manifest import PARQUET, manifest_rows, parse_record, to_json
from mint.types import MintError


def json_lines_of(manifest: str | Path) -> Path:
    """A manifest itself or, of a Parquet file, its copy; the file itself where no copy can be written.

    Raises:
        MintError: as `read_manifest`.
    """
    path = Path(manifest)
    if path.suffix.lower() != PARQUET or not path.is_file():
        return path
    folder, name, state = cache_folder() / "manifests", id_of(str(path.absolute())).hex(), path.stat()
    copy = folder / f"{name}-{state.st_size}-{state.st_mtime_ns}.jsonl"
    if not copy.is_file():
        half_written = copy.with_suffix(f".{os.getpid()}.tmp")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write_lines(path, half_written)
            half_written.replace(copy)
        except OSError:
            return path
        finally:
            with suppress(OSError):
                half_written.unlink()
        for old in set(folder.glob(f"{name}-*.jsonl")) - {copy}:
            old.unlink(missing_ok=True)
    return copy


def _write_lines(path: Path, place: Path) -> None:
    folder = path.absolute().parent
    with place.open("wb") as file:
        for number, row in manifest_rows(path):
            try:
                record = parse_record(row)
            except MintError as error:
                raise MintError(f"{path}, line {number}: {error}") from None
            file.write(to_json({**record, "audio": str(folder / record["audio"])}) + b"\n")
