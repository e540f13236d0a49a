"""*csv*: a table of one's own with a line for each clip, read as a stream: for what `folder` has no room for.

`audio` is a path relative to the table, or to the folder that is said to hold the recordings. `label` is one label,
`labels` several with semicolons between them; `caption`, `caption_1`, `caption_2`, ... are descriptions. `id`, `start`,
`duration`, `task`, `prompt`, `answer`, `split` and `corpus` are as in a manifest. Other columns are kept as metadata.
Fields stand between commas, semicolons or tabs, as the first line shows. Unlike `folder`, captions alone will do,
nothing is decoded, and labels need not have clips for testing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

from mint.data.corpora.own.folder import ALIASES
from mint.data.corpora.public.reading import Skip, csv_lines, ignore
from mint.data.manifests.manifest import SPLITS
from mint.data.manifests.prompts import SOUND_PROMPT
from mint.types import CAPTION_PROMPT, Example, MintError

DELIMITERS = ",;\t"
SHARES = {"test": 0.1, "validation": 0.1, "train": 0.8}
"""Where the table has no splits."""
KNOWN = ("audio", "label", "labels", "id", "start", "duration", "task", "prompt", "answer", "split", "corpus")


def read_table(source: Path, skip: Skip = ignore, audio: Path | None = None, seed: int = 0) -> Iterator[Example]:
    """Yield the clips of a table; a line that says nothing, or has an unknown split or no number, is skipped.

    Without a split column each recording is drawn into one by its path and the seed, whatever else is in the table.

    Raises:
        MintError: no such file, or no column `audio`.
    """
    if not source.is_file():
        raise MintError(f"{source}: no such table; give a .csv or .tsv file with a column 'audio'")
    lines = csv_lines(source, _delimiter(source))
    header = _header(lines)
    if "audio" not in header:
        found = ", ".join(header) or "none"
        raise MintError(f"{source}, line 1: no column 'audio' (found: {found}); name the columns in the first line")
    for number, line in lines:
        given = {key: value.strip() for key, value in zip(header, line, strict=False) if value.strip()}
        try:
            yield _example(given, source.stem, audio or source.parent, seed)
        except MintError as error:
            skip(f"{source.name}, line {number}", str(error))


def _delimiter(source: Path) -> str:
    """What sets off the column `audio` in the first line; a comma where nothing does."""
    return next((mark for mark in DELIMITERS if "audio" in _header(csv_lines(source, mark))), DELIMITERS[0])


def _header(lines: Iterator[tuple[int, list[str]]]) -> list[str]:
    _, names = next(lines, (1, []))
    return [name.strip() for name in names]


def _example(row: dict[str, str], corpus: str, folder: Path, seed: int) -> Example:
    if "audio" not in row:
        raise MintError("audio is empty; name a file")
    labels = tuple(filter(None, (label.strip() for label in row.get("labels", "").split(";"))))
    labels = labels or ((row["label"],) if "label" in row else ())
    spoken = [key for key in row if key == "caption" or key.startswith("caption_")]
    answer = row.get("answer") or ", ".join(labels) or None
    if answer is None and not spoken:
        raise MintError("it has no label, caption or answer; fill one in")
    return Example(
        id=row.get("id") or _name(row),
        audio=folder / row["audio"],
        start=_seconds(row, "start") or 0.0,
        duration=_seconds(row, "duration"),
        task=row.get("task") or ("labels" if answer else "captioning"),
        split=_split(row, seed),
        corpus=row.get("corpus") or corpus,
        prompt=row.get("prompt") or (SOUND_PROMPT if answer else CAPTION_PROMPT),
        answer=answer,
        labels=labels,
        captions=tuple(row[key] for key in spoken),
        metadata={key: value for key, value in row.items() if key and key not in (*KNOWN, *spoken)},
    )


def _name(row: dict[str, str]) -> str:
    return f"{row['audio']}@{row['start']}" if "start" in row else row["audio"]


def _seconds(row: dict[str, str], key: str) -> float | None:
    if key not in row:
        return None
    try:
        seconds = float(row[key])
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf or (key == "duration" and seconds == 0):
        raise MintError(f"{key} is {row[key]!r}; give seconds")
    return seconds


def _split(row: dict[str, str], seed: int) -> str:
    if "split" in row:
        split = ALIASES.get(row["split"].lower(), row["split"].lower())
        if split not in SPLITS:
            raise MintError(f"split is {row['split']!r}; it must be one of {', '.join(SPLITS)}")
        return split
    return random.Random(f"{seed} {row['audio']}").choices(list(SHARES), list(SHARES.values()))[0]
