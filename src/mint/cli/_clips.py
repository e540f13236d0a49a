"""The parts that the verbs which use a finished run share: loading it, going through audio files, printing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mint.cli import describe, interrupted
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
            MintError: there is only one file; or an error came twice and names no file: the run or an option is at
                fault, and the other files would fare no better.
        """
        for path in self.paths:
            failure: Exception | None = None
            try:
                result = call(path)
            except (MintError, OSError) as error:
                failure = error

            # libsndfile swallows what is raised while it calls back for bytes.
            if interrupted():
                raise KeyboardInterrupt
            if failure is None:
                yield path, result
                continue

            # An error that names no file, and comes again, is not the fault of the files.
            line, _ = describe(failure)
            named = Path(path).name in line
            if len(self.paths) == 1 or (line in self.failures and not named):
                raise failure
            self.failures.append(line)
            print(f"mint: {line}" if named else f"mint: {path}: {line}", file=sys.stderr)

    @property
    def exit_code(self) -> int:
        """Exit code of the command: 2 if any file failed."""
        return 2 if self.failures else 0


def load(run: str) -> Mint:
    """Return the trained model of a run."""
    from mint.inference import Mint

    return Mint.from_pretrained(run)


def add_run(parser: ArgumentParser, text: str = "The folder of a finished run, or its name on the hub.") -> None:
    """Add the argument RUN and the option --json."""
    parser.add_argument("folder", metavar="RUN", help=text)
    parser.add_argument("--json", action="store_true", help="Print one JSON array in place of lines of text.")


def add_audio(parser: ArgumentParser, text: str = "The audio files: wav, flac, ogg, opus, mp3, aiff, ...") -> None:
    """Add the arguments AUDIO..."""
    parser.add_argument("audio", metavar="AUDIO", nargs="+", help=text)


def print_json(value: Any) -> None:
    """Print one JSON value."""
    print(json.dumps(value, indent=2, allow_nan=False))


def audio_below(paths: Iterable[str]) -> list[str]:
    """Return audio files given by name, and all those below folders, in sorted order without repetition.

    Raises:
        MintError: there are none below a folder.
    """
    from mint.data.corpora.recordings import audio_files

    files: dict[str, None] = {}
    for path in paths:
        names = [path]
        if Path(path).is_dir():
            names = sorted(map(str, audio_files(Path(path))))
            if not names:
                raise MintError(f"there are no audio files below {path!r}; give files, or a folder that holds some")
        files.update(dict.fromkeys(names))
    return list(files)
