"""What the endpoints share: places for requests, uploads, the queue of questions, and answers within their time."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from mint.data.audio.ahead import read_threads
from mint.serve.batcher import Batcher, refusal
from mint.serve.counters import Counters
from mint.serve.limits import Limits, Refused, busy
from mint.serve.uploads import Sound, Uploads
from mint.types import MintError

if TYPE_CHECKING:
    from starlette.requests import Request

    from mint.inference import Mint
    from mint.serve.questions import Job

Result = TypeVar("Result")


class Service:
    """A run that answers requests.

    Args:
        run: the models.
        name: the run's name, as clients see it.
        limits: what is taken on.
        index: folder of the index that is searched.

    Raises:
        MintError: there is no such index, or another run made it.
    """

    def __init__(self, run: Mint, name: str, limits: Limits, index: str | Path | None = None) -> None:
        self.run = run
        self.name = name
        self.limits = limits
        self.index = None if index is None else run.open_index(index)
        self.counters = Counters()
        self.open_requests = 0
        self.is_stopping = False

        # Both stages are loaded before the first request comes.
        stages = [load() for stage, load in ((1, run.load_stage1), (2, run.load_stage2)) if stage in run.folders]
        window_seconds = stages[-1].max_seconds
        self.uploads = Uploads(run.encoder.sample_rate, window_seconds, limits, self.counters)
        self.batcher = Batcher(run, self.counters)
        # The models run in a thread of the batcher's own, so that decoding never waits for them.
        self._threads = ThreadPoolExecutor(read_threads(), "decode")
        # Timelines take long: they share a thread, and leave the others to short requests.
        self.listening = ThreadPoolExecutor(1, "timeline")

    def close(self) -> None:
        """Answer what waits, and let go of threads and uploads."""
        self.batcher.close()
        self._threads.shutdown()
        self.listening.shutdown()
        self.uploads.close()

    def enter(self) -> None:
        """Take a place for a request, which `leave` gives back.

        Raises:
            Refused: the server stops, or all places are taken.
        """
        if self.is_stopping:
            raise Refused(503, "the server is stopping; ask another one, or later")
        if self.open_requests >= self.limits.requests:
            raise busy(self.limits)
        self.open_requests += 1
        self.counters.add("mint_requests_open")

    def leave(self) -> None:
        """Give the place of a request back."""
        self.open_requests -= 1
        self.counters.add("mint_requests_open", -1)

    async def in_thread(self, call: Callable[..., Result], *arguments: Any) -> Result:
        """Call something that reads or decodes, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    @asynccontextmanager
    async def stored(self, content: BinaryIO) -> AsyncIterator[Path]:
        """Keep an uploaded sound as a file inside the block; errors as `Uploads.write`."""
        # The folder goes even where the request is cancelled while a thread still writes into it.
        with self.uploads.new_path() as path:
            await self.in_thread(self.uploads.write, path, content)
            yield path

    async def decoded(self, content: BinaryIO) -> Sound:
        """Return the windows of an uploaded sound; errors as `Uploads.write` and `Uploads.decode`."""
        # Told before decoding begins: the batcher may wait a moment for this sound.
        self.batcher.expect(1)
        try:
            async with self.stored(content) as path:
                return await self.in_thread(self.uploads.decode, path)
        finally:
            self.batcher.expect(-1)

    async def answer(self, job: Job) -> Any:
        """Return the answer of a question; a request that ends before takes its question with it.

        Raises:
            Refused: the question failed.
        """
        self.batcher.submit(job)

        try:
            return await asyncio.wrap_future(job.answer)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # What is no mistake of the client's is written down in full.
            if refusal(error).status == 500:
                traceback.print_exception(error, file=sys.stderr)
            raise refusal(error) from None
        finally:
            # Also where the client went away or the time was up: nobody would read the answer.
            self.batcher.withdraw(job)

    async def within_time(self, request: Request, work: Awaitable[Result]) -> Result | None:
        """Return what `work` gives; None if the client went away.

        Raises:
            Refused: it took longer than the limit.
        """
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_until_gone(request))

        try:
            await asyncio.wait({task, gone}, timeout=self.limits.timeout, return_when=asyncio.FIRST_COMPLETED)
            # An answer that is there counts, even where the client went away in the same moment.
            if task.done():
                return task.result()
            if gone.done():
                return None
            raise late(self.limits)
        finally:
            for one in (task, gone):
                one.cancel()
            # Cancelling only asks for the end; it is waited for here, and its errors are of no interest.
            await asyncio.gather(task, gone, return_exceptions=True)


def late(limits: Limits) -> Refused:
    """Return the refusal of a request that took too long."""
    return Refused(
        503, f"no answer within {limits.timeout:g} s; the server has too much to do", headers={"Retry-After": "5"}
    )


async def _until_gone(request: Request) -> None:
    """Wait until the client of a request, whose body was read, has gone away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def checked(call: Callable[..., Result], *arguments: Any, parameter: str | None = None) -> Result:
    """Return the result of a check that raises `MintError`.

    Raises:
        Refused: the check failed.
    """
    try:
        return call(*arguments)
    except MintError as error:
        raise Refused(422, str(error), parameter) from None
