"""The index of manifests: their examples are read where they are drawn, so that a million need 100 MB, not some GB.

A pass over each manifest notes where its lines begin and the few facts of each that a mixture needs. They are kept on
disk, by the manifest's path, size and times, so that the next start does not read the manifest again; where nothing
can be written, it does. A line that is wanted is read from the manifest, which must stay as it was meanwhile.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from mint.assets import cache_folder
from mint.data.id_tables import SUFFIX, Ids, as_ids, id_of, read_table, write_table
from mint.data.manifests.manifest import PARQUET, SPLITS, manifest_lines, parse_line, parse_record
from mint.files import clear_abandoned
from mint.types import CAPTION_PROMPT, Example, MintError

ROW = np.dtype(
    [
        ("offset", "<i8"),  # where the line begins, in bytes
        ("start", "<f8"),  # the clip's part of its file, in seconds; without a duration: NaN
        ("duration", "<f8"),
        ("text", "V16"),  # id of the line, to notice a change
        ("file", "<i4"),  # number of its file, task and corpus
        ("task", "<i4"),
        ("corpus", "<i4"),
        ("question", "<i4"),  # characters of prompt and answer; 0 unless it has both
        ("captions", "<i4"),  # number of captions, and characters of the first
        ("caption", "<i4"),
        ("manifest", "<i2"),
        ("split", "<i2"),
        ("asks", "?"),  # whether it asks for anything but a caption
    ]
)
"""The facts that are noted of a line."""
FORM = 3
"""Version of what is kept on disk; an index of another one is made anew."""
LINES_AT_ONCE = 1 << 16
"""Rows that are Python's objects at a time."""


@dataclass(frozen=True, eq=False)
class Lines(Sequence[Example]):
    """The examples of manifests, in their order, each read when it is asked for."""

    manifests: tuple[Path, ...]
    tasks: tuple[str, ...]
    corpora: tuple[str, ...]
    rows: NDArray[Any]
    """[N] of `ROW`."""
    files: bytes
    """Absolute paths of the audio files with a zero byte after each."""
    file_ids: Ids
    """Ids of these paths, [F, 2]."""

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Lines: ...
    def __getitem__(self, index: int | slice) -> Example | Lines:
        """Return one example, or those of a slice.

        Raises:
            MintError: the manifest was changed since it was indexed.
        """
        if isinstance(index, slice):
            return replace(self, rows=self.rows[index])

        row = self.rows[index]
        path = self.manifests[row["manifest"]]
        try:
            # Opened anew each time: worker processes and threads read at once, and must not share a position.
            with path.open("rb") as file:
                file.seek(int(row["offset"]))
                line = file.readline().strip()
        except OSError:
            line = b""

        # Any change of the manifest before this line moves it, and any change in it gives it another id.
        if id_of(line) != row["text"].tobytes():
            raise MintError(f"{path} was changed while it was in use; start again")
        return parse_line(line, path.absolute().parent)

    def chosen(self, which: NDArray[np.bool_]) -> Lines:
        """Return the examples of some rows, given by a mask [N]."""
        return self if which.all() else replace(self, rows=self.rows[which])

    def of_splits(self, splits: Sequence[str]) -> Lines:
        """Return the examples of some splits."""
        return self.chosen(np.isin(self.rows["split"], [SPLITS.index(split) for split in splits]))

    def file_paths(self) -> list[str]:
        """Return the absolute paths of the audio files, [F]."""
        return self.files.decode("utf-8", "surrogatepass").split("\0")[:-1]


def of_splits(examples: Sequence[Example], splits: Sequence[str]) -> Sequence[Example]:
    """Return the examples of some splits."""
    if isinstance(examples, Lines):
        return examples.of_splits(splits)
    return [example for example in examples if example.split in splits]


def read_lines(manifests: Sequence[str | Path]) -> Lines:
    """Index JSON Lines manifests.

    Raises:
        MintError: as `read_manifest`.
    """
    paths = tuple(map(Path, manifests))
    indices = [_index(path) for path in paths]
    if len(indices) == 1:
        return indices[0]

    # Numbers of files, tasks and corpora become those among all manifests.
    tasks = tuple(dict.fromkeys(chain.from_iterable(index.tasks for index in indices)))
    corpora = tuple(dict.fromkeys(chain.from_iterable(index.corpora for index in indices)))
    num_files = 0
    for number, index in enumerate(indices):
        index.rows["manifest"] = number
        index.rows["file"] += num_files
        index.rows["task"] = _numbers(index.tasks, tasks)[index.rows["task"]]
        index.rows["corpus"] = _numbers(index.corpora, corpora)[index.rows["corpus"]]
        num_files += len(index.file_ids)

    rows = np.concatenate([index.rows for index in indices])
    files = b"".join(index.files for index in indices)
    return Lines(paths, tasks, corpora, rows, files, np.concatenate([index.file_ids for index in indices]))


def _numbers(names: Sequence[str], all_names: Sequence[str]) -> NDArray[np.int32]:
    """Return the number of each name among all names."""
    return np.array([all_names.index(name) for name in names], np.int32)


def can_be_indexed(manifests: Sequence[str | Path]) -> bool:
    """Return whether all manifests have lines; Parquet has none."""
    return all(Path(manifest).suffix.lower() != PARQUET for manifest in manifests)


def _index(path: Path) -> Lines:
    """Return the index of one manifest, from the disk or made and put there."""
    next(manifest_lines(path), None)  # complains of a path that is no file
    table_path = cache_folder() / "manifests" / f"{id_of(str(path.absolute())).hex()}{SUFFIX}"
    # The time of change beside that of writing: copying tools set the latter back.
    state = path.stat()
    stamp = [FORM, state.st_size, state.st_mtime_ns, state.st_ctime_ns]
    table = read_table(table_path, ("stamp", "words", "rows", "files", "file_ids"))
    if table is not None and table["stamp"].tolist() == stamp:
        tasks, corpora = map(tuple, json.loads(table["words"].tobytes()))
        return Lines((path,), tasks, corpora, table["rows"], table["files"].tobytes(), table["file_ids"])

    lines = _read(path)
    words = json.dumps([lines.tasks, lines.corpora]).encode()
    clear_abandoned(table_path.parent)
    write_table(
        table_path,
        {
            "stamp": stamp,
            "words": np.frombuffer(words, np.uint8),
            "rows": lines.rows,
            "files": np.frombuffer(lines.files, np.uint8),
            "file_ids": lines.file_ids,
        },
    )
    return lines


def _read(path: Path) -> Lines:
    """Read all lines of a manifest."""
    folder = str(path.absolute().parent)
    files: dict[str, int] = {}
    tasks: dict[str, int] = {}
    corpora: dict[str, int] = {}
    # A row as a tuple of Python takes many times the bytes of a `ROW`: some at a time become an array.
    chunks = [np.zeros(0, ROW)]
    rows = _rows(path, folder, files, tasks, corpora)
    while chunk := list(islice(rows, LINES_AT_ONCE)):
        chunks.append(np.array(chunk, ROW))

    joined = "".join(file.replace("\0", "?") + "\0" for file in files)  # no file has a name with a zero byte
    return Lines(
        (path,),
        tuple(tasks),
        tuple(corpora),
        np.concatenate(chunks),
        joined.encode("utf-8", "surrogatepass"),
        as_ids(b"".join(map(id_of, files))),
    )


def _rows(
    path: Path, folder: str, files: dict[str, int], tasks: dict[str, int], corpora: dict[str, int]
) -> Iterator[tuple[Any, ...]]:
    """Yield the row of each line, and number files, tasks and corpora as they appear."""
    split_numbers = {split: number for number, split in enumerate(SPLITS)}
    next_offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            offset, next_offset = next_offset, next_offset + len(line)
            if line.isspace():
                continue
            try:
                record = parse_record(line)
            except MintError as error:
                raise MintError(f"{path}, line {number}: {error}") from None

            # Sizes are noted in characters: batches of like length are made without reading a line again.
            prompt, answer, duration = record.get("prompt"), record.get("answer"), record.get("duration")
            captions = record.get("captions", ())
            # In the order of `ROW`.
            yield (
                offset,
                record.get("start", 0.0),
                math.nan if duration is None else duration,
                id_of(line.strip()),
                files.setdefault(_joined(folder, record["audio"]), len(files)),
                tasks.setdefault(record["task"], len(tasks)),
                corpora.setdefault(record["corpus"], len(corpora)),
                len(prompt) + len(answer) if prompt and answer else 0,
                len(captions),
                len(captions[0]) if captions else 0,
                0,
                split_numbers[record["split"]],
                bool(prompt and answer and prompt != CAPTION_PROMPT),
            )


def _joined(folder: str, audio: str) -> str:
    """Return an absolute path as `Path` would write it, without the time that a `Path` takes if it is plain."""
    if "//" in audio or "./" in audio or audio.endswith((".", "/")) or os.sep != "/":
        return str(Path(folder) / audio)
    return audio if audio.startswith("/") else f"{folder}/{audio}"
