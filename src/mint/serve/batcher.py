"""Dynamic batching: one thread asks the models, for all requests that wait with the same question at once."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from mint.inference.loading import MODELS
from mint.serve.limits import Refused
from mint.serve.questions import ROWS_AT_ONCE
from mint.types import MintError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mint.inference import Mint
    from mint.serve.counters import Counters
    from mint.serve.questions import Job

SHORT_PAUSE, LONG_PAUSE = 0.005, 0.05
"""Seconds that a batch waits for company: always, and while further requests are on their way in."""


class Batcher:
    """The queue of questions, and the thread that asks them.

    Args:
        run: the models.
        counters: where batches are counted.
    """

    def __init__(self, run: Mint, counters: Counters) -> None:
        self._run = run
        self._counters = counters
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._arriving = 0
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="models", daemon=True)
        self._thread.start()

    def expect(self, change: int) -> None:
        """Note that some more (or fewer) requests are on their way to `submit`."""
        with self._changed:
            self._arriving += change
            self._changed.notify()

    def submit(self, job: Job) -> None:
        """Let a question wait for its turn.

        Raises:
            Refused: the server stops.
        """
        with self._changed:
            if self._is_closed:
                raise Refused(503, "the server is stopping; ask another one, or later")
            self._waiting.append(job)
            self._counters.add("mint_questions_waiting")
            self._changed.notify()

    def withdraw(self, job: Job) -> None:
        """Forget a question that nobody waits for; a text that is being written ends at its next token."""
        with self._changed:
            job.is_gone = True
            if job in self._waiting:
                self._waiting.remove(job)
                self._counters.add("mint_questions_waiting", -1)
        job.answer.cancel()

    def close(self) -> None:
        """Answer what waits, and end the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        """Ask batch after batch until the batcher is closed and nothing waits."""
        while (jobs := self._take()) is not None:
            # A job whose reader left in this moment is not asked.
            asked = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
            if asked:
                self._answer(asked)

    def _take(self) -> list[Job] | None:
        """Return questions that are asked together, the oldest first; None when there will be no more."""
        with self._changed:
            while not self._waiting and not self._is_closed:
                self._changed.wait()
            if not self._waiting:
                return None

            # Clients that have just been answered ask again within milliseconds, and uploads take some to decode.
            begin = time.monotonic()
            while len(self._batch()) < ROWS_AT_ONCE and not self._is_closed:
                pause = LONG_PAUSE if self._arriving > 0 else SHORT_PAUSE
                rest = begin + pause - time.monotonic()
                if rest <= 0:
                    break
                self._changed.wait(rest)

            batch = self._batch()
            for job in batch:
                self._waiting.remove(job)
            self._counters.add("mint_questions_waiting", -len(batch))
            return batch

    def _batch(self) -> list[Job]:
        """Return the oldest question with those that may share its batch."""
        batch: list[Job] = []
        rows = 0

        for job in self._waiting:
            if batch and (job.question != batch[0].question or rows + job.size > ROWS_AT_ONCE):
                continue
            batch.append(job)
            rows += job.size
        return batch

    def _answer(self, jobs: Sequence[Job]) -> None:
        """Ask the models, and hand out the answers; what fails together is asked one by one."""
        question, begin = jobs[0].question, time.monotonic()
        try:
            # Other threads may use the models too, as a timeline does.
            with MODELS:
                answers: Sequence[Any] = question.ask(self._run, jobs)
        except Exception as error:
            # One question must not take its neighbours with it.
            if len(jobs) > 1:
                for job in jobs:
                    self._answer([job])
                return
            answers = [error]

        self._counters.add("mint_batches_total", kind=question.name)
        self._counters.add("mint_batch_requests_total", len(jobs), kind=question.name)
        self._counters.add("mint_model_seconds_total", time.monotonic() - begin, kind=question.name)
        for job, answer in zip(jobs, answers, strict=True):
            if isinstance(answer, Exception):
                job.answer.set_exception(answer)
            else:
                job.answer.set_result(answer)


def refusal(error: Exception) -> Refused:
    """Return what a request is told whose question failed."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, MintError):
        return Refused(422, str(error))
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower() or "allocate memory" in str(error):
        return Refused(503, "the server has not enough memory for this now; try again, or with a shorter sound")
    return Refused(500, "the server failed on this request; its log says why")
