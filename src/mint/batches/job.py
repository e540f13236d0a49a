"""Jobs: what a model says of many clips goes to one file, and the same command goes on where it was killed.

Beside the file `FILE` lie, while the job runs:

- `FILE.job.json`: which run and options the results are of, so that others are refused; it stays.
- `FILE.part-R.jsonl`: the results of rank R so far, one a line. One process that writes JSON Lines needs none: its
  lines go to `FILE` itself.
- `FILE.errors.jsonl`: the clips that could not be used, and why; written at the end, if there are any.

At the end the parts are joined to `FILE`, in the order of the clips, and removed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from mint.batches.formats import write_results
from mint.batches.log import Log, parse_row, read_log
from mint.batches.ranks import Ranks, joined_ranks
from mint.batches.sources import ClipKey, key_of, key_of_row, row_of
from mint.data.features.stream import Source
from mint.data.manifests.manifest import to_json
from mint.files import clear_abandoned, write_json, write_whole
from mint.inference import Answer
from mint.text_files import one_line, read_json, shown
from mint.types import Example, MintError

SHOWN_ERRORS = 20
"""Clips that cannot be used are printed, up to this many; the file of errors lists all."""


@dataclass(frozen=True)
class Outcome:
    """What a job came to, over all ranks and all earlier starts."""

    done: int
    failed: int
    is_first_rank: bool


class Job:
    """The results of one verb over many clips, in one file.

    Args:
        output: the file; its suffix names the format.
        description: what the results are of, by name: the verb, the run, the options; JSON values.
    """

    def __init__(self, output: Path, description: dict[str, Any]) -> None:
        self.output = output
        # As the record gives it back, where tuples are lists.
        self.description: dict[str, Any] = json.loads(json.dumps(description))
        self._record = _beside(output, "job.json")
        self.errors = _beside(output, "errors.jsonl")

    def run(
        self,
        sources: Sequence[Source],
        answers: Callable[[Iterable[Source]], Iterator[Answer[Any]]],
        columns: Callable[[Any], dict[str, Any]],
    ) -> Outcome:
        """Ask about the clips that have no result yet, and write the file.

        Args:
            sources: all clips of the job, each once.
            answers: asks the model about clips, in order.
            columns: the columns of an answer in the file; arrays of numbers are NumPy's.

        Raises:
            MintError: the file is another's, or another process is writing it.
        """
        with joined_ranks() as ranks, self._owning(ranks):
            # Every rank refuses, before any has written.
            refusals = ranks.gather(self._refusal() if ranks.rank == 0 else None)
            if refusals[0] is not None:
                raise MintError(refusals[0])

            finished = self._finished(sources)
            if finished is not None:
                return Outcome(*finished, ranks.rank == 0)

            done = self._done()
            if ranks.rank == 0:
                write_json(self._record, self.description)
            ranks.gather(None)  # nobody writes before all have read

            # Each rank writes a file of its own, so that no two writers meet.
            failures = self._ask(sources, done, answers, columns, ranks)
            return self._finish(sources, ranks, ranks.gather(failures))

    def _ask(
        self,
        sources: Sequence[Source],
        done: set[ClipKey],
        answers: Callable[[Iterable[Source]], Iterator[Answer[Any]]],
        columns: Callable[[Any], dict[str, Any]],
        ranks: Ranks,
    ) -> list[dict[str, Any]]:
        """Write this rank's share of the results, and return its clips that could not be used, with the reasons."""
        # The share does not depend on what is done, so that ranks need not agree on it.
        share = sources[ranks.rank :: ranks.count]
        remaining = [source for source in share if key_of(source) not in done]
        with_parts = any(isinstance(source, Example) for source in sources)
        failures: list[dict[str, Any]] = []

        bar = tqdm(
            total=len(share),
            initial=len(share) - len(remaining),
            unit="clip",
            desc=str(self.description["verb"]),
            # In a log file each update is a line.
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
            disable=ranks.rank > 0,
        )
        with bar, closing(self._open_log(ranks)) as log:
            for answer in answers(remaining):
                row = row_of(answer.audio, with_parts)
                if answer.error is None:
                    log.write(row | columns(answer.value))
                else:
                    failures.append(row | {"error": one_line(str(answer.error))})
                    if len(failures) <= SHOWN_ERRORS:
                        tqdm.write(f"mint: {_reason(failures[-1])}", file=sys.stderr)
                bar.update()
        return failures

    def _finish(self, sources: Sequence[Source], ranks: Ranks, failures: list[list[dict[str, Any]]]) -> Outcome:
        """Join the parts, list the failures, and record that the job is finished."""
        failed = [row for rows in failures for row in rows]
        done = len(sources) - len(failed)
        if ranks.rank == 0:
            # One process that wrote JSON Lines has nothing to join.
            if self._parts():
                self._join(sources)
            elif not self.output.exists():  # no clip could be used
                write_results(self.output, (), 0)

            if failed:
                write_whole(self.errors, b"".join(to_json(row) + b"\n" for row in failed))
            else:
                self.errors.unlink(missing_ok=True)

            write_json(self._record, self.description | {"finished": [_digest(sources), done, len(failed)]})
            for part in self._parts():
                part.unlink()
        ranks.gather(None)  # the file is there when any rank returns
        return Outcome(done, len(failed), ranks.rank == 0)

    def _join(self, sources: Sequence[Source]) -> None:
        """Write the file from all logs, in the order of the clips; of two results of one clip the first counts."""
        logs = self._logs()
        # A row may be large. Only its location is kept in memory, and it is read again when it is written.
        locations: dict[ClipKey, tuple[int, int]] = {}

        for index, path in enumerate(logs):
            for position, row in read_log(path):
                locations.setdefault(key_of_row(row), (index, position))

        ordered = [locations.pop(key) for key in map(key_of, sources) if key in locations]
        ordered += locations.values()  # clips of an earlier start that are named no more
        files = [path.open("rb") for path in logs]
        try:
            write_results(self.output, _rows(files, ordered), len(ordered))
        finally:
            for file in files:
                file.close()

    def _done(self) -> set[ClipKey]:
        """Return the clips that have results."""
        done: set[ClipKey] = set()
        for path in self._logs():
            done.update(key_of_row(row) for _, row in read_log(path))
        return done

    def _finished(self, sources: Sequence[Source]) -> tuple[int, int] | None:
        """Return how many clips were done and could not be used if the job has ended; None: there is work to do.

        Raises:
            MintError: the file is finished, and is no log to which the results of other clips could be appended.
        """
        if not self._record.exists() or not self.output.exists() or self._is_log(self.output) or self._parts():
            return None

        # A job that was killed has no such entry.
        finished = read_json(self._record).get("finished")
        if finished is None:
            return None
        digest, done, failed = finished
        if digest != _digest(sources):
            raise MintError(
                f"{self.output} holds the results of other clips; give another --output, or remove it to begin anew"
            )
        return done, failed

    def _refusal(self) -> str | None:
        """Return why the file is another's; None: it is this job's, or there is none."""
        clear_abandoned(self.output.parent)
        logs = self._logs()
        if not logs and not self.output.exists():
            return None
        if not self._record.exists():
            return f"{self.output} is there already, and no job has written it; give another --output, or remove it"

        # The first difference is told; it is most likely the one that was meant.
        recorded = read_json(self._record)
        for name, value in self.description.items():
            if recorded.get(name) != value:
                before, now = shown(recorded.get(name), 60), shown(value, 60)
                files = ", ".join(str(path) for path in dict.fromkeys([self.output, *logs]) if path.exists())
                return (
                    f"{self.output} holds results of another command ({name} was {before}, and is now {now}); "
                    f"give another --output, or remove {files} to begin anew"
                )
        return None

    def _open_log(self, ranks: Ranks) -> Log:
        if ranks.count == 1 and self._is_log(self.output):
            return Log(self.output, plain=True)
        return Log(_beside(self.output, f"part-{ranks.rank}.jsonl"), plain=self._is_log(self.output))

    def _logs(self) -> list[Path]:
        """Return the files that hold results so far."""
        own = [self.output] if self._is_log(self.output) and self.output.exists() else []
        return own + self._parts()

    def _parts(self) -> list[Path]:
        # Compared by name, as a pattern would read brackets in it.
        prefix = f"{self.output.name}.part-"
        return sorted(path for path in self.output.parent.iterdir() if path.name.startswith(prefix))

    @staticmethod
    def _is_log(path: Path) -> bool:
        return path.suffix.lower() == ".jsonl"

    @contextmanager
    def _owning(self, ranks: Ranks) -> Iterator[None]:
        """Let no second command write the file inside the block; the lock ends with the process that holds it."""
        if ranks.rank > 0:
            yield
            return

        path = _beside(self.output, "lock")
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise MintError(
                f"{self.output} is being written by another process; wait for it to end, or give another --output"
            ) from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            lock.release()


def _rows(files: Sequence[IO[bytes]], locations: Iterable[tuple[int, int]]) -> Iterator[dict[str, Any]]:
    """Yield rows of logs by the index of their file and the position of their line."""
    for index, position in locations:
        files[index].seek(position)
        yield parse_row(files[index].readline(), files[index].name)


def _beside(output: Path, suffix: str) -> Path:
    return output.with_name(f"{output.name}.{suffix}")


def _reason(failure: dict[str, Any]) -> str:
    """Return what is printed of a clip that could not be used; most errors name it themselves."""
    error, name = failure["error"], Path(failure["audio"]).name
    return f"error: {error}" if name in error else f"{failure['audio']}: error: {error}"


def _digest(sources: Iterable[Source]) -> str:
    """Return a digest of which clips there are."""
    # Their order says nothing: a folder may be walked in another one.
    state = hashlib.sha256()

    for key in sorted(map(repr, map(key_of, sources))):
        state.update(key.encode(errors="backslashreplace") + b"\n")
    return state.hexdigest()[:32]
