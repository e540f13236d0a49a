"""The examples of large manifests, read where they are drawn: a million of them need some 100 MB, not some GB.

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
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from mint.assets import cache_folder
from mint.data.audio.members import clear_abandoned
from mint.data.id_tables import SUFFIX, Ids, as_ids, id_of, read_table, write_table
from mint.data.manifests.manifest import PARQUET, SPLITS, manifest_lines, parse_line, parse_record
from mint.types import CAPTION_PROMPT, Example, MintError

ROW = np.dtype(
    [
        ("offset", "<i8"),
        ("start", "<f8"),
        ("duration", "<f8"),
        ("text", "V16"),
        ("file", "<i4"),
        ("task", "<i4"),
        ("corpus", "<i4"),
        ("question", "<i4"),
        ("captions", "<i4"),
        ("caption", "<i4"),
        ("manifest", "<i2"),
        ("split", "<i2"),
        ("asks", "?"),
    ]
)
"""Of a line: where it begins; its part of the file, in seconds (no duration: NaN); the id of its text; numbers of its
file, task and corpus; characters of prompt and answer (0: not both there); captions, and characters of the first;
whether it asks for something else than a caption."""
FORM = 3
"""Of what is kept on disk; another one is made anew."""
LINES_AT_ONCE = 1 << 16


@dataclass(frozen=True, eq=False)
class Lines(Sequence[Example]):
    """Examples of manifests, in their order, each read when it is asked for."""

    manifests: tuple[Path, ...]
    tasks: tuple[str, ...]
    corpora: tuple[str, ...]
    rows: NDArray[Any]
    """[N] of `ROW`."""
    files: bytes
    """Absolute paths of the audio files with a zero byte after each."""
    file_ids: Ids

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Lines: ...
    def __getitem__(self, index: int | slice) -> Example | Lines:
        """One example, or some.

        Raises:
            MintError: the manifest was changed since it was indexed.
        """
        if isinstance(index, slice):
            return replace(self, rows=self.rows[index])
        row = self.rows[index]
        path = self.manifests[row["manifest"]]
        try:
            with path.open("rb") as file:
                file.seek(int(row["offset"]))
                line = file.readline().strip()
        except OSError:
            line = b""
        if id_of(line) != row["text"].tobytes():
            raise MintError(f"{path} was changed while it was in use; start again")
        return parse_line(line, path.absolute().parent)

    def chosen(self, which: NDArray[np.bool_]) -> Lines:
        """Those of some rows, [N]."""
        return self if which.all() else replace(self, rows=self.rows[which])

    def of_splits(self, splits: Sequence[str]) -> Lines:
        """Those of some splits."""
        return self.chosen(np.isin(self.rows["split"], [SPLITS.index(split) for split in splits]))

    def file_paths(self) -> list[str]:
        """Absolute paths of the audio files, [F]."""
        return self.files.decode("utf-8", "surrogatepass").split("\0")[:-1]


def of_splits(examples: Sequence[Example], splits: Sequence[str]) -> Sequence[Example]:
    """The examples of some splits."""
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
    tasks = tuple(dict.fromkeys(task for index in indices for task in index.tasks))
    corpora = tuple(dict.fromkeys(corpus for index in indices for corpus in index.corpora))
    first = 0
    for number, index in enumerate(indices):
        index.rows["manifest"] = number
        index.rows["file"] += first
        index.rows["task"] = _numbers(index.tasks, tasks)[index.rows["task"]]
        index.rows["corpus"] = _numbers(index.corpora, corpora)[index.rows["corpus"]]
        first += len(index.file_ids)
    if len(indices) == 1:
        return indices[0]
    return Lines(
        paths,
        tasks,
        corpora,
        np.concatenate([index.rows for index in indices]),
        b"".join(index.files for index in indices),
        np.concatenate([index.file_ids for index in indices]),
    )


def _numbers(names: Sequence[str], among: Sequence[str]) -> NDArray[np.int32]:
    return np.array([among.index(name) for name in names], np.int32)


def can_be_indexed(manifests: Sequence[str | Path]) -> bool:
    """Whether manifests have lines; Parquet has not."""
    return all(Path(manifest).suffix.lower() != PARQUET for manifest in manifests)


def _index(path: Path) -> Lines:
    """The index of one manifest, from the disk or made and put there."""
    next(manifest_lines(path), None)  # complains of a path that is no file
    place = cache_folder() / "manifests" / f"{id_of(str(path.absolute())).hex()}{SUFFIX}"
    state = path.stat()
    stamp = [FORM, state.st_size, state.st_mtime_ns, state.st_ctime_ns]
    kept = read_table(place, ("stamp", "words", "rows", "files", "file_ids"))
    if kept is not None and kept["stamp"].tolist() == stamp:
        tasks, corpora = map(tuple, json.loads(kept["words"].tobytes()))
        return Lines((path,), tasks, corpora, kept["rows"], kept["files"].tobytes(), kept["file_ids"])
    made = _read(path)
    words, files = (
        np.frombuffer(text, np.uint8) for text in (json.dumps([made.tasks, made.corpora]).encode(), made.files)
    )
    clear_abandoned(place.parent)
    write_table(place, {"stamp": stamp, "words": words, "rows": made.rows, "files": files, "file_ids": made.file_ids})
    return made


def _read(path: Path) -> Lines:
    """Read all lines of a manifest."""
    folder = str(path.absolute().parent)
    files: dict[str, int] = {}
    tasks: dict[str, int] = {}
    corpora: dict[str, int] = {}
    parts = [np.zeros(0, ROW)]
    rows = _rows(path, folder, files, tasks, corpora)
    while chunk := list(islice(rows, LINES_AT_ONCE)):
        parts.append(np.array(chunk, ROW))
    ids = as_ids(b"".join(map(id_of, files)))
    joined = "".join(file.replace("\0", "?") + "\0" for file in files)  # a name with a zero byte is no file's
    return Lines(
        (path,), tuple(tasks), tuple(corpora), np.concatenate(parts), joined.encode("utf-8", "surrogatepass"), ids
    )


def _rows(
    path: Path, folder: str, files: dict[str, int], tasks: dict[str, int], corpora: dict[str, int]
) -> Iterator[tuple[Any, ...]]:
    """The row of each line; files, tasks and corpora get their numbers."""
    split_numbers = {split: number for number, split in enumerate(SPLITS)}
    offset = number = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            begin, offset = offset, offset + len(line)
            if line.isspace():
                continue
            try:
                record = parse_record(line)
            except MintError as error:
                raise MintError(f"{path}, line {number}: {error}") from None
            audio, prompt, answer = record["audio"], record.get("prompt"), record.get("answer")
            captions, duration = record.get("captions", ()), record.get("duration")
            yield (
                begin,
                record.get("start", 0.0),
                math.nan if duration is None else duration,
                id_of(line.strip()),
                files.setdefault(_joined(folder, audio), len(files)),
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
    """An absolute path, written as `Path` writes it."""
    if "//" in audio or "./" in audio or audio.endswith((".", "/")) or os.sep != "/":
        return str(Path(folder) / audio)
    return audio if audio.startswith("/") else f"{folder}/{audio}"
