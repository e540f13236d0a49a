"""Reads the bodies of requests: JSON or forms, within the limits, with one line for each mistake."""

from __future__ import annotations

import asyncio
import json
import math
import reprlib
from typing import TYPE_CHECKING, Any

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from mint.serve.limits import MOST_CHARACTERS, MOST_LABELS, MOST_TOKENS, Limits, Refused, unprocessable
from mint.serve.questions import Sampling
from mint.serve.uploads import too_large

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from starlette.requests import Request

DEFAULT_TOKENS = 40
MOST_FIELDS = MOST_LABELS + 20
HOTTEST = 2.0
"""Highest temperature, as in OpenAI's interface."""


async def read_json(request: Request, limits: Limits) -> dict[str, Any]:
    """Return the object that a body holds.

    Raises:
        Refused: it is too large, too slow, or no JSON object.
    """
    body = await in_time(_body(request, limits), limits)

    try:
        # In a thread: a sound in base64 is a long text.
        value = await asyncio.to_thread(json.loads, body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):  # ValueError: no JSON, no UTF-8, or a number of thousands of digits
        raise unprocessable('the body is no JSON; send an object such as {"input": "a dog"}') from None
    if not isinstance(value, dict):
        raise unprocessable('the body is no JSON object; send one such as {"input": "a dog"}')
    return value


async def read_form(request: Request, limits: Limits) -> FormData:
    """Return the fields of a form; files in it are closed by the caller.

    Raises:
        Refused: it is too large, too slow, or no form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise unprocessable("the body is no form; send the sound as multipart/form-data, as `curl -F file=@dog.wav`")

    _refuse_announced(request, limits)
    try:
        form = request.form(max_files=1, max_fields=MOST_FIELDS, max_part_size=1 << 20)
        return await in_time(form, limits)
    except (MultiPartException, HTTPException, ValueError, KeyError, UnicodeError) as error:
        reason = getattr(error, "detail", None) or getattr(error, "message", None) or "it is malformed"
        raise unprocessable(f"the form cannot be read ({reason})") from None


async def in_time(reading: Awaitable[Any], limits: Limits) -> Any:
    """Return what is read from a client.

    Raises:
        Refused: the client is too slow.
    """
    try:
        async with asyncio.timeout(limits.timeout):
            return await reading
    except TimeoutError:
        raise Refused(408, f"the request did not arrive within {limits.timeout:g} s") from None


def _refuse_announced(request: Request, limits: Limits) -> None:
    """Refuse a body whose announced length is above the limit, before it is sent."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:18]) > limits.body_bytes:
        raise too_large(limits)


async def _body(request: Request, limits: Limits) -> bytes:
    _refuse_announced(request, limits)
    return await request.body()


def _refuse_constant(name: str) -> None:
    """Refuse NaN and infinity, which are no JSON."""
    raise ValueError(name)


def file_of(form: FormData) -> UploadFile:
    """Return the sound of a form.

    Raises:
        Refused: there is none, or it is a text.
    """
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise unprocessable("the form has no file called 'file'; send the sound as `curl -F file=@dog.wav`", "file")
    return file


def text(values: Any, name: str, default: str | None = None) -> str:
    """Return a text of a form or object.

    Raises:
        Refused: it is missing without a default, no text, blank, or too long.
    """
    value = values.get(name)
    if value is None or (value == "" and default is not None):
        value = default
    return checked_string(value, name)


def checked_string(value: Any, name: str) -> str:
    """Return a text that is neither blank nor too long; errors as `text`."""
    if value is None:
        raise unprocessable(f"{name!r} is missing; give a text", name)
    if not isinstance(value, str) or not value.strip():
        raise unprocessable(f"{name!r} is {reprlib.repr(value)}; give a text", name)
    if len(value) > MOST_CHARACTERS:
        raise unprocessable(f"{name!r} has {len(value)} characters; give {MOST_CHARACTERS} at most", name)
    if not _is_unicode(value):
        raise unprocessable(f"{name!r} holds half a character; give valid Unicode", name)
    return value


def _is_unicode(value: str) -> bool:
    """Return whether a text can be written as UTF-8: JSON may hold halves of characters."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def number(values: Any, name: str, low: float, high: float) -> float | None:
    """Return a number of a form or object; None where there is none.

    Raises:
        Refused: it is no number, or out of the range.
    """
    value = values.get(name)
    if value is None or value == "":
        return None
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not low <= found <= high:  # NaN, too
        raise unprocessable(f"{name!r} is {reprlib.repr(value)}; give a number from {low:g} to {high:g}", name)
    return found


def whole_number(values: Any, name: str, low: int, high: int) -> int | None:
    """Return a whole number; None where there is none; errors as `number`."""
    # Not by way of a float, which would round a seed of 60 bits.
    value = values.get(name)
    if isinstance(value, str) and value.strip().removeprefix("-").isdecimal() and len(value) < 25:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    found = number(values, name, low, high)
    if found is None:
        return None
    if found != int(found):
        raise unprocessable(f"{name!r} is {found:g}; give a whole number from {low} to {high}", name)
    return int(found)


def max_tokens(values: Any, names: Sequence[str] = ("max_tokens",)) -> int:
    """Return the longest text in tokens: what is asked for, and never more than the server writes.

    Raises:
        Refused: it is no whole number of at least 1.
    """
    for name in names:
        wanted = whole_number(values, name, 1, 1 << 31)
        if wanted is not None:
            return min(wanted, MOST_TOKENS)
    return DEFAULT_TOKENS


def sampling(values: Any) -> Sampling | None:
    """Return how tokens are drawn; None, the likeliest at each step, unless the temperature or top_p asks for draws.

    Raises:
        Refused: a value is out of its range.
    """
    temperature = number(values, "temperature", 0, HOTTEST)
    top_p = number(values, "top_p", 0, 1)
    seed = whole_number(values, "seed", -(1 << 63), (1 << 63) - 1)

    # A seed alone asks for nothing: the likeliest text is the same at every seed.
    if temperature is None and top_p in (None, 1):
        return None
    if temperature == 0 or top_p == 0:
        return None
    return Sampling(1.0 if temperature is None else max(temperature, 0.01), 1.0 if top_p is None else top_p, seed)


def labels(form: FormData) -> tuple[str, ...]:
    """Return the labels of a form: one for each field `labels`, or several in a field as lines or between commas.

    Raises:
        Refused: there are none, or too many, or one is no text.
    """
    found: dict[str, None] = {}

    for value in form.getlist("labels"):
        if not isinstance(value, str):
            raise unprocessable("'labels' is a file; give texts", "labels")
        # Lines come before commas: a label may hold a comma.
        pieces = value.splitlines() if "\n" in value.strip() else value.split(",")

        for piece in pieces:
            if piece.strip():
                found[checked_string(piece.strip(), "labels")] = None

    if not found:
        raise unprocessable("'labels' names no label; give some, such as 'dog,rain,engine'", "labels")
    if len(found) > MOST_LABELS:
        raise unprocessable(f"'labels' names {len(found)} labels; give {MOST_LABELS} at most", "labels")
    return tuple(found)
