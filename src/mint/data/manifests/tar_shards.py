"""Clips in tar shards, as WebDataset reads them: fewer and larger files for clusters and remote storage.

Each sample is `000017.flac`, the file's own bytes, and `000017.json`, its line of the manifest. Where several clips in
succession are parts of one file, that file is stored once and the further lines are `000017.1.json`, `000017.2.json`.
The manifest beside the shards names members as `mint.data.audio.members` reads them. The same manifest and files always
give the same shards.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from mint.data.audio.members import locate, open_stored
from mint.data.manifests.manifest import read_manifest, to_json, to_record, write_manifest
from mint.files import clear_abandoned, writing
from mint.types import Example, MintError

SHARD_BYTES = 1 << 30
"""About 1 GB, as WebDataset advises."""
BLOCK = 512
"""A tar file consists of blocks of so many bytes; each member has one for its name."""


@dataclass
class Sharded:
    """Result of writing shards."""

    manifest: Path
    shards: int = 0
    clips: int = 0
    skipped: tuple[tuple[str, str], ...] = ()
    """Id and reason of each clip whose file cannot be read."""


def write_shards(manifest: Path, output: Path, shard_bytes: int = SHARD_BYTES) -> Sharded:
    """Copy the clips of a manifest into shards, and write a manifest over them.

    Args:
        manifest: of files or of other shards.
        output: a folder, made if it is not there, for `000000.tar`, `000001.tar`, ... and the manifest, which has the
            name of the first and is written last. An interrupted run is begun anew.
        shard_bytes: a shard is no larger, unless it holds one sample.

    Raises:
        MintError: the folder holds a finished manifest already, a line is broken, or no clip can be read.
    """
    result = Sharded(output / f"{manifest.stem}.jsonl")
    if shard_bytes < 1:
        raise MintError(f"shards of {shard_bytes} bytes; give at least 1")

    if result.manifest.exists() or list(output.glob("*.jsonl")):
        raise MintError(f"{output} holds sharded clips already; choose another folder, or remove it first")

    output.mkdir(parents=True, exist_ok=True)
    clear_abandoned(output)
    with _Writer(output, shard_bytes) as writer:
        write_manifest(result.manifest, _stored(manifest, writer, result))
        result.shards = writer.shards

    # Known only when all clips were tried; a manifest of nothing would pass for a finished one.
    if not result.clips:
        result.manifest.unlink()
        reason = f"; the first: {result.skipped[0][1]}" if result.skipped else ""
        raise MintError(f"{manifest}: no clip can be read{reason}; `mint data validate` lists what is wrong")
    return result


def _stored(manifest: Path, writer: _Writer, result: Sharded) -> Iterator[Example]:
    """Yield the examples with the paths of their members; the last shard is finished before the generator ends."""
    # Only clips in succession are grouped, so that the manifest is streamed and its order kept.
    for audio, group in groupby(read_manifest(manifest), key=lambda example: example.audio):
        examples = list(group)
        try:
            file, size = open_stored(audio), locate(audio).size
        except OSError as error:
            reason = f"{audio}: {error.strerror or error}"
            result.skipped += tuple((example.id, reason) for example in examples)
            continue

        with file:
            member = writer.add(audio.suffix.lower() or ".audio", file, size, examples)
        result.clips += len(examples)
        for example in examples:
            yield replace(example, audio=member)
    # Here, and not when the writer is left: the manifest must not be there before the shards that it names.
    writer.finish()


class _Writer:
    """Writes shards in a folder, each whole or not at all.

    Args:
        folder: of the shards.
        shard_bytes: largest size.
    """

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self.folder = folder
        self.shard_bytes = shard_bytes
        self.shards = 0
        """Shards that are finished."""
        self._samples = 0
        self._tar: tarfile.TarFile | None = None
        self._open = ExitStack()
        """Holds the file of the shard that is being written."""
        self._bytes = 0

    def __enter__(self) -> _Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an error the file is given up as it is: closing the tar first would write to it.
        self._open.__exit__(kind, error, trace)

    def add(self, suffix: str, file: BinaryIO, size: int, examples: list[Example]) -> Path:
        """Write one file and its lines, and return the file's path in the shard."""
        # WebDataset takes the files of one stem for one sample.
        key = f"{self._samples:06d}"
        lines = [to_json(_line(example, f"{key}{suffix}")) for example in examples]
        # Each member has a block for its name, and is filled up to whole blocks.
        needed = sum(BLOCK + _padded(length, BLOCK) for length in (size, *map(len, lines)))
        tar = self._shard_with_room(needed)

        self._write(tar, f"{key}{suffix}", file, size)
        for number, line in enumerate(lines):
            self._write(tar, f"{key}.{number}.json" if number else f"{key}.json", io.BytesIO(line), len(line))
        self._samples += 1
        self._bytes += needed
        return self._path().with_name(f"{self._path().name}::{key}{suffix}")

    def finish(self) -> None:
        """Finish the shard that is being written, if there is one."""
        if self._tar is not None:
            self._tar.close()
            self._open.close()
            self._tar, self._bytes = None, 0
            self.shards += 1

    def _shard_with_room(self, needed: int) -> tarfile.TarFile:
        """Return the shard that is being written, or a new one where it has no room for so many bytes."""
        # A tar ends with two empty blocks and is filled up to whole records.
        if self._tar is None or _padded(self._bytes + needed + 2 * BLOCK, tarfile.RECORDSIZE) > self.shard_bytes:
            self.finish()
            file = self._open.enter_context(writing(self._path()))
            self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        return self._tar

    def _write(self, tar: tarfile.TarFile, name: str, file: BinaryIO, size: int) -> None:
        """Write one member."""
        # Name and size alone: owner and times would make other shards of the same files.
        member = tarfile.TarInfo(name)
        member.size = size
        tar.addfile(member, file)

    def _path(self) -> Path:
        """Return the path of the shard that is being written."""
        return self.folder / f"{self.shards:06d}.tar"


def _padded(length: int, unit: int) -> int:
    """Return a length, filled up to whole units."""
    return -(-length // unit) * unit


def _line(example: Example, name: str) -> dict[str, object]:
    """Return the line of a manifest, with the name of the audio in its own shard."""
    return {**to_record(example, example.audio.parent), "audio": name}
