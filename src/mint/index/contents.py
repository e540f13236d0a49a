"""`index.json`: what an index says of itself, and which segments it consists of.

It is replaced whole, and no other file of an index is ever changed: a reader sees the index before or after a step of
an update, and a writer that is killed leaves what it had reached.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mint.files import write_json
from mint.index.segment import Segment
from mint.text_files import read_json
from mint.types import MintError

CONTENTS = "index.json"
FORMAT, VERSION = "mint-index", 1
ATTEMPTS = 5
"""How often an index is opened anew because another process merges its segments."""


@dataclass(frozen=True)
class Origin:
    """What made the vectors of an index; those of another origin cannot be compared with them."""

    stage1: str
    """SHA-256 of the weights of stage 1."""
    encoder: str
    """Identity of the frozen encoder."""

    def __str__(self) -> str:
        return f"stage 1 with the weights {self.stage1[:12]} over the encoder {self.encoder!r}"


@dataclass(frozen=True)
class Contents:
    """What `index.json` says."""

    origin: Origin
    run: str
    """The folder of the run, or its name on the hub."""
    window_seconds: float
    """Seconds of the longest window."""
    queries: int = 0
    """Q; 0 until the first clip is added."""
    width: int = 0
    """E; 0 until the first clip is added."""
    sources: list[str] = field(default_factory=list)
    """What was indexed: folders, manifests and files."""
    finished: bool = False
    """Whether the last update came to its end."""
    segments: list[dict[str, Any]] = field(default_factory=list)
    """Of each: the name of its file, and the rows of its clips that were removed."""


def is_index(folder: str | Path) -> bool:
    """Return whether a folder holds an index."""
    return (Path(folder) / CONTENTS).is_file()


def open_contents(folder: Path) -> tuple[Contents, list[Segment]]:
    """Return what an index holds."""
    for attempt in range(ATTEMPTS):
        contents = _read_contents(folder)

        try:
            segments = []
            for listed in contents.segments:
                missing = folder / listed["file"]
                segments.append(Segment(missing, listed["removed"]))
            return contents, segments
        except FileNotFoundError:
            # Between the two reads, another process may have merged the segment into another one.
            if attempt + 1 == ATTEMPTS:
                raise MintError(f"{missing} of an index is missing; copy the whole folder, or index again") from None
    raise AssertionError


def _read_contents(folder: Path) -> Contents:
    """Return what `index.json` says."""
    path = folder / CONTENTS
    if not is_index(folder):
        raise MintError(
            f"{folder} holds no index (no {CONTENTS}); make one with `mint index RUN FOLDER --output INDEX`"
        )
    values = read_json(path)

    try:
        form, version = values.pop("format"), values.pop("version")
        if (form, version) != (FORMAT, VERSION):
            raise MintError(f"{path} is of the format {form!r} {version!r}, not {FORMAT!r} {VERSION}; index again")
        return Contents(**{**values, "origin": Origin(**values["origin"])})
    except (AttributeError, KeyError, TypeError) as error:
        raise MintError(f"{path} is damaged ({error}); remove the folder and index again") from None


def write_contents(folder: Path, contents: Contents) -> None:
    """Write `index.json`, whole or not at all."""
    write_json(folder / CONTENTS, {"format": FORMAT, "version": VERSION, **asdict(contents)})
