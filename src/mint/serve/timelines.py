"""`POST /timeline`: what is heard where in a long sound, row by row as it becomes known."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from mint.serve import reading
from mint.serve.batcher import refusal
from mint.serve.limits import Refused
from mint.serve.service import late
from mint.serve.uploads import without_folder
from mint.types import MintError

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.datastructures import FormData
    from starlette.requests import Request

    from mint.serve.service import Service

SHORTEST, LONGEST = 0.1, 3600.0
"""Seconds of a piece, and from one to the next."""


async def timeline(request: Request, service: Service) -> Response | None:
    """Answer `POST /timeline`: rows of start, end, answer and score, as one object or, with `stream`, as lines."""
    stack = AsyncExitStack()
    form = await reading.read_form(request, service.limits)
    stack.push_async_callback(form.close)

    try:
        arguments = read_arguments(form)
        streams = reading.text(form, "stream", "false").lower() in ("true", "1", "yes")
        path = await stack.enter_async_context(service.stored(reading.file_of(form).file))
        rows = _Rows(service, path, arguments)
        stack.push_async_callback(rows.close)

        # What is wrong with the sound is told with a status, and so before the first row is sent.
        first = await service.within_time(request, rows.next())
        if first is None:
            return None
        if streams:
            held, stack = stack, AsyncExitStack()
            return StreamingResponse(_lines(service, rows, first, held), media_type="application/x-ndjson")

        found = []
        while first:
            found.append(first[0])
            first = await service.within_time(request, rows.next())
            if first is None:
                return None
        return JSONResponse({"rows": found})
    finally:
        await stack.aclose()


def read_arguments(form: FormData) -> dict[str, Any]:
    """Return the arguments of `Mint.timeline` that a form gives.

    Raises:
        Refused: one is missing or wrong.
    """
    every = reading.number(form, "every", SHORTEST, LONGEST)
    if every is None:
        raise Refused(422, "'every' is missing; give the seconds of each step", "every")
    arguments: dict[str, Any] = {"every": every, "hop": reading.number(form, "hop", SHORTEST, LONGEST)}

    # Empty fields of a page count as left out.
    if form.get("labels"):
        arguments["labels"] = list(reading.labels(form))
    if form.get("prompt"):
        arguments["prompt"] = reading.text(form, "prompt")
    return arguments


class _Rows:
    """The rows of one timeline, made in a thread that timelines share.

    Args:
        service: the run.
        path: the stored sound.
        arguments: those of `Mint.timeline`.
    """

    def __init__(self, service: Service, path: Path, arguments: dict[str, Any]) -> None:
        self._service = service
        self._path = path
        self._arguments = arguments
        self._stretches: Iterator[Any] | None = None

    async def next(self) -> tuple[dict[str, Any], ...]:
        """Return the next row; nothing at the end.

        Raises:
            Refused: the sound or an argument is wrong.
        """
        return await asyncio.get_running_loop().run_in_executor(self._service.listening, self._next)

    def _next(self) -> tuple[dict[str, Any], ...]:
        try:
            if self._stretches is None:
                self._service.uploads.checked_seconds(self._path)
                self._stretches = iter(self._service.run.timeline(self._path, **self._arguments))
            stretch = next(self._stretches, None)
        except MintError as error:
            raise Refused(422, without_folder(str(error), self._path), "file") from None
        if stretch is None:
            return ()
        row = {"start": stretch.start, "end": stretch.end, "answer": stretch.answer, "score": stretch.score}
        return (row,)

    async def close(self) -> None:
        """Stop decoding; what is being asked at this moment is waited for."""
        if isinstance(self._stretches, Iterator) and hasattr(self._stretches, "close"):
            await asyncio.get_running_loop().run_in_executor(self._service.listening, self._stretches.close)


async def _lines(
    service: Service, rows: _Rows, first: tuple[dict[str, Any], ...], held: AsyncExitStack
) -> AsyncIterator[str]:
    """Yield each row as a line of JSON; an error, whose status can no longer be sent, is the last line."""
    try:
        while first:
            yield json.dumps(first[0]) + "\n"

            async with asyncio.timeout(service.limits.timeout):
                first = await rows.next()
    except TimeoutError:
        yield json.dumps(late(service.limits).body()) + "\n"
    except Exception as error:
        yield json.dumps(refusal(error).body()) + "\n"
    finally:
        await held.aclose()
