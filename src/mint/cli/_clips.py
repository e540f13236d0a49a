"""What the verbs that use a finished run share: loading it, going through audio files one by one, printing."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mint.cli import describe
from mint.types import MintError

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Iterable, Iterator

    from mint.inference import Mint

Result = TypeVar("Result")


class EachClip:
    """Goes through audio files one by one: a bad one is reported on stderr and the others are still done."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.paths = list(paths)
        self.failures: list[str] = []
        """One line for each file that could not be done."""

    def apply(self, call: Callable[[str], Result]) -> Iterator[tuple[str, Result]]:
        """Yield each path with the result of `call` on it.

        Raises:
            MintError: where there is only one file; or an error that came twice and names no file: the run or an option
                is at fault, and the other files would fare no better.
        """
        for path in self.paths:
            try:
                result = call(path)
            except (MintError, OSError) as error:
                line, _ = describe(error)
                named = Path(path).name in line
                if len(self.paths) == 1 or (line in self.failures and not named):
                    raise
                self.failures.append(line)
                print(f"mint: {line}" if named else f"mint: {path}: {line}", file=sys.stderr)
            else:
                yield path, result

    @property
    def exit_code(self) -> int:
        """Of the command: 2 if any file failed."""
        return 2 if self.failures else 0


def load(run: str) -> Mint:
    """The trained model of a run."""
    from mint.inference import Mint

    return Mint.from_pretrained(run)


def add_run(parser: ArgumentParser) -> None:
    """Add the argument RUN and the option --json."""
    parser.add_argument("folder", metavar="RUN", help="folder of a finished run, or its name on the hub")
    parser.add_argument("--json", action="store_true", help="print one JSON array")


def add_audio(parser: ArgumentParser, text: str = "audio files: wav, flac, ogg, mp3, ...") -> None:
    """Add the arguments AUDIO..."""
    parser.add_argument("audio", metavar="AUDIO", nargs="+", help=text)


def positive(text: str) -> int:
    """An argument that must be a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def print_json(value: Any) -> None:
    """Print one JSON value."""
    print(json.dumps(value, indent=2, allow_nan=False))


def one_line(text: str) -> str:
    """Text of a language model on a single line."""
    return " ".join(text.split())


def audio_below(paths: Iterable[str]) -> list[str]:
    """Audio files given by name, and all those below folders, in sorted order without repetition.

    Raises:
        MintError: a folder without any.
    """
    from mint.data.corpora.recordings import audio_files

    files: dict[str, None] = {}
    for path in paths:
        names = [path]
        if Path(path).is_dir():
            names = sorted(map(str, audio_files(Path(path))))
            if not names:
                raise MintError(f"no audio files below {path!r}; give files or a folder that holds some")
        files.update(dict.fromkeys(names))
    return list(files)
