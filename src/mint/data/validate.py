"""Everything that is wrong with a manifest, not only the first thing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mint.data.audio import check_audio
from mint.data.manifest import manifest_lines, parse_line
from mint.types import Example, MintError


@dataclass(frozen=True)
class Problem:
    """One thing to mend."""

    file: str
    line: int
    message: str


def find_problems(path: Path) -> Iterator[Problem]:
    """Check the schema of each line, that ids are unique, that nothing said is empty, and that the audio decodes.

    Of a long clip the windows are decoded that training and evaluation use.

    Raises:
        MintError: no such manifest, or it has no examples.
    """
    seen: dict[tuple[str, str], int] = {}
    folder = path.absolute().parent
    number = 0
    for number, line in manifest_lines(path):
        try:
            example = parse_line(line, folder)
        except MintError as error:
            yield Problem(str(path), number, str(error))
            continue
        key = (example.corpus, example.id)
        if key in seen:
            yield Problem(str(path), number, f"id {example.id!r} is that of line {seen[key]} too; make ids unique")
        seen.setdefault(key, number)
        for message in _content_problems(example):
            yield Problem(str(path), number, message)
    if number == 0:
        raise MintError(f"{path}: the manifest is empty; make one with `mint data prepare`")


def _content_problems(example: Example) -> Iterator[str]:
    """What is wrong with a line that can be read."""
    for name, texts in (("answer", (example.answer,)), ("labels", example.labels), ("captions", example.captions)):
        if any(text is not None and not text.strip() for text in texts):
            yield f"{name} holds an empty text; fill it or leave it out"
    if example.answer is None and not (example.labels or example.unknown or example.captions):
        yield "there is no answer, no labels and no captions: nothing to learn from; give one of them"
    try:
        check_audio(example.audio, example.start, example.duration)
    except MintError as error:
        yield str(error)
