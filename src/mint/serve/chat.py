"""`/v1`: the interface that OpenAI's clients speak, for sounds: chat completions, embeddings and the list of models."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import json
import reprlib
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.responses import JSONResponse, Response, StreamingResponse

from mint.serve import reading
from mint.serve.limits import MOST_SOUNDS, MOST_TEXTS, Refused, unprocessable
from mint.serve.questions import EmbedClips, EmbedTexts, Job, Sampling, Write
from mint.serve.service import late
from mint.types import CAPTION_PROMPT

if TYPE_CHECKING:
    from starlette.requests import Request

    from mint.serve.service import Service

ONLY: dict[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "stop": (None, [], ""),
    "tools": (None, []),
    "functions": (None, []),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "logit_bias": (None, {}),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "audio": (None,),
}
"""Fields of a chat that would change the answer in ways that the model cannot, with the values that change nothing."""


@dataclass(frozen=True)
class Chat:
    """What a chat completion asks for."""

    sound: bytes
    prompt: str
    max_tokens: int
    sampling: Sampling | None
    streams: bool
    counts_usage: bool
    """Whether a stream ends with the number of tokens."""


def read_chat(body: dict[str, Any], model: str) -> Chat:
    """Return what the body of a chat completion asks for.

    The instruction is the text of the last message of the user, and the sound the last one of the conversation: the
    model hears one sound and reads one instruction.

    Raises:
        Refused: a field is wrong, or asks for what the model cannot do.
    """
    check_model(body, model)
    # Refused and not passed over: a client that asks for two answers and gets one would believe it has both.
    for name, values in ONLY.items():
        if body.get(name) not in values:
            given = reprlib.repr(body[name])
            raise unprocessable(f"{name!r} is {given}, which this model cannot do; leave it out", name)

    sound, prompt = read_messages(body.get("messages"))
    options = body.get("stream_options")
    return Chat(
        sound=sound,
        prompt=prompt,
        max_tokens=reading.max_tokens(body, ("max_completion_tokens", "max_tokens")),
        sampling=reading.sampling(body),
        streams=switch(body, "stream"),
        counts_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def check_model(body: dict[str, Any], model: str) -> None:
    """Refuse another model than the one that is served; any request may leave it out.

    Raises:
        Refused: another model, with the status 404 as clients expect it.
    """
    wanted = body.get("model")
    if wanted is not None and wanted != model:
        raise Refused(404, f"there is no model {reprlib.repr(wanted)}; this server has {model!r}", "model")


def switch(body: dict[str, Any], name: str) -> bool:
    """Return a truth value, false where there is none.

    Raises:
        Refused: it is something else.
    """
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise unprocessable(f"{name!r} is {reprlib.repr(value)}; give true or false", name)
    return bool(value)


def read_messages(messages: Any) -> tuple[bytes, str]:
    """Return the sound and the instruction of a conversation.

    Raises:
        Refused: there is no sound, or a message has another form.
    """
    if not isinstance(messages, list) or not messages:
        raise unprocessable("'messages' is no list of messages; give one with a sound in it", "messages")

    sounds: list[Any] = []
    instruction = ""
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise unprocessable(f"a message is {reprlib.repr(message)}; give its role and its content", "messages")
        # What the system or the model said before is no instruction for a model that reads one.
        if message["role"] != "user":
            continue

        texts, heard = read_parts(message.get("content"))
        if len(heard) > 1:
            raise unprocessable("a message holds several sounds; the model hears one at a time", "messages")
        sounds += heard
        instruction = " ".join(texts).strip()

    if not sounds:
        raise unprocessable("there is no sound in the messages; add a part of the type 'input_audio'", "messages")
    prompt = reading.checked_string(instruction or CAPTION_PROMPT, "messages")
    return decode_audio(sounds[-1], "messages"), prompt


def read_parts(content: Any) -> tuple[list[str], list[Any]]:
    """Return the texts and the sounds of a message's content.

    Raises:
        Refused: another form, or parts of another type.
    """
    if isinstance(content, str):
        return [content], []
    if not isinstance(content, list):
        given = reprlib.repr(content)
        raise unprocessable(f"a message's content is {given}; give a text or a list of parts", "messages")

    texts, sounds = [], []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "input_audio":
            sounds.append(part)
        else:
            given = reprlib.repr(part)
            raise unprocessable(f"a part of a message is {given}; give 'text' and 'input_audio' parts", "messages")
    return texts, sounds


def decode_audio(part: Any, parameter: str) -> bytes:
    """Return the bytes of an `input_audio` part; the format is known by the bytes, whatever `format` says.

    Raises:
        Refused: there is no base64 in it.
    """
    audio = part.get("input_audio")
    data = audio.get("data") if isinstance(audio, dict) else None
    if not isinstance(data, str):
        raise unprocessable("'input_audio' has no 'data'; give the file in base64, and its 'format'", parameter)
    try:
        # Strict: without it every sign that is no base64 is left out, and noise remains.
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise unprocessable("'input_audio' holds no base64; encode the bytes of the file", parameter) from None


async def complete(request: Request, service: Service) -> Response | None:
    """Answer `POST /v1/chat/completions`."""
    body = await reading.read_json(request, service.limits)
    # In a thread: megabytes of base64 would hold up all other requests.
    chat = await service.in_thread(read_chat, body, service.name)

    # What is drawn must not depend on the requests beside it: each has a batch of its own.
    question = Write(chat.sampling, None if chat.sampling is None else object())
    job = Job(question, prompt=chat.prompt, max_tokens=chat.max_tokens)
    reply = _Reply(service.name)

    async def work() -> str:
        job.windows = (await service.decoded(io.BytesIO(chat.sound))).windows
        return await service.answer(job)

    if not chat.streams:
        text = await service.within_time(request, work())
        return None if text is None else JSONResponse(reply.whole(text, job, service))

    # What is wrong with the sound is told before the stream begins, with a status of its own.
    sound = await service.within_time(request, service.decoded(io.BytesIO(chat.sound)))
    if sound is None:
        return None
    job.windows = sound.windows
    return StreamingResponse(
        _stream(reply, chat, job, service), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
    )


class _Reply:
    """Writes the answers to one chat completion."""

    def __init__(self, model: str) -> None:
        self.head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, text: str, job: Job, service: Service) -> dict[str, Any]:
        """Return the answer that comes at once."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": "length" if job.is_cut else "stop",
        }
        return {**self.head, "object": "chat.completion", "choices": [choice], "usage": usage(job, text, service)}

    def chunk(self, delta: dict[str, str], finish: str | None = None) -> str:
        """Return one event of a stream."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return event({**self.head, "object": "chat.completion.chunk", "choices": [choice]})

    def last(self, job: Job, text: str, service: Service) -> str:
        """Return the event with the numbers of tokens."""
        return event(
            {**self.head, "object": "chat.completion.chunk", "choices": [], "usage": usage(job, text, service)}
        )


def event(value: dict[str, Any]) -> str:
    """Return a value as a server-sent event."""
    return f"data: {json.dumps(value)}\n\n"


def usage(job: Job, text: str, service: Service) -> dict[str, int]:
    """Return the tokens that were read and written, those of the soft prompt among the former."""
    stage = service.run.load_stage2()
    # Each window stands before the prompt as one soft prompt of Q vectors.
    queries = len(job.windows) * stage.model.bridge.queries.shape[-2]
    prompt = queries + stage.model.language.count_tokens(job.prompt)
    written = stage.model.language.count_tokens(text)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


async def _stream(reply: _Reply, chat: Chat, job: Job, service: Service) -> AsyncIterator[str]:
    """Yield the events of a stream: pieces of text as they are written, and the end."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[str | None] = asyncio.Queue()
    job.on_text = lambda text: _post(loop, pieces, text)
    # The answer itself wakes the reader too, also where it is an error.
    answer = asyncio.ensure_future(service.answer(job))
    answer.add_done_callback(lambda _: pieces.put_nowait(None))

    sent = ""
    try:
        async with asyncio.timeout(service.limits.timeout):
            yield reply.chunk({"role": "assistant", "content": ""})
            while (text := await pieces.get()) is not None:
                # Spaces at the ends are no part of the answer.
                text = text.strip()
                # A piece holds the whole text so far; only what is new is sent.
                if text.startswith(sent) and text != sent:
                    yield reply.chunk({"content": text[len(sent) :]})
                    sent = text

            text = await answer
            if text != sent:
                yield reply.chunk({"content": text[len(sent) :] if text.startswith(sent) else text})
            yield reply.chunk({}, "length" if job.is_cut else "stop")
            if chat.counts_usage:
                yield reply.last(job, text, service)
            yield "data: [DONE]\n\n"
    except (Refused, TimeoutError) as error:
        # The status was sent long ago.
        yield event((error if isinstance(error, Refused) else late(service.limits)).body())
    finally:
        answer.cancel()
        service.batcher.withdraw(job)


def _post(loop: asyncio.AbstractEventLoop, pieces: asyncio.Queue[str | None], text: str) -> None:
    """Hand a text from the models' thread to the event loop."""
    loop.call_soon_threadsafe(pieces.put_nowait, text)


async def embed(request: Request, service: Service) -> Response | None:
    """Answer `POST /v1/embeddings`: texts as OpenAI has them, and sounds beside them, which are ours."""
    body = await reading.read_json(request, service.limits)
    check_model(body, service.name)
    if 1 not in service.run.folders:
        raise Refused(404, "this run has no stage 1, which makes embeddings")

    form = body.get("encoding_format")
    if form not in (None, "float", "base64"):
        raise unprocessable(f"'encoding_format' is {reprlib.repr(form)}; give 'float' or 'base64'", "encoding_format")
    inputs = await service.in_thread(read_inputs, body.get("input"))

    rows = await service.within_time(request, _embedded(service, inputs))
    if rows is None:
        return None
    dimensions = body.get("dimensions")
    if dimensions is not None and dimensions != rows[0].shape[-1]:
        raise unprocessable(f"'dimensions' is {reprlib.repr(dimensions)}; there are {rows[0].shape[-1]}", "dimensions")

    data: list[dict[str, Any]] = []
    for index, row in enumerate(rows):
        numbers: Any = row.ravel().tolist()
        if form == "base64":
            # OpenAI's own client asks for this form, little-endian float32, and unpacks it.
            numbers = base64.b64encode(np.ascontiguousarray(row, dtype="<f4").tobytes()).decode()
        entry = {"object": "embedding", "index": index, "embedding": numbers}
        # A sound has one vector for each query, which follow each other.
        data.append(entry if row.ndim == 1 else {**entry, "shape": list(row.shape)})

    # About as many as tokens; embeddings cost nothing here, and nobody counts them more exactly.
    words = sum(len(one.split()) for one in inputs if isinstance(one, str))
    counts = {"prompt_tokens": words, "total_tokens": words}
    return JSONResponse({"object": "list", "data": data, "model": service.name, "usage": counts})


def read_inputs(value: Any) -> list[str | bytes]:
    """Return what is to be embedded: texts, and the bytes of sounds.

    Raises:
        Refused: another form, nothing, or too many.
    """
    values = value if isinstance(value, list) else [value]
    if not 1 <= len(values) <= MOST_TEXTS:
        raise unprocessable(f"'input' holds {len(values)} texts; give 1 to {MOST_TEXTS}", "input")

    # The sounds of a request are decoded together, and are large.
    sounds = sum(isinstance(one, dict) for one in values)
    if sounds > MOST_SOUNDS:
        raise unprocessable(f"'input' holds {sounds} sounds; give {MOST_SOUNDS} at most", "input")

    inputs: list[str | bytes] = []
    for one in values:
        if isinstance(one, dict) and one.get("type") == "input_audio":
            inputs.append(decode_audio(one, "input"))
        else:
            inputs.append(reading.checked_string(one, "input"))
    return inputs


async def _embedded(service: Service, inputs: list[str | bytes]) -> list[Any]:
    """Return a vector [E] of each text, and the vectors [Q, E] of each sound, in order."""
    texts = [one for one in inputs if isinstance(one, str)]
    jobs: list[Job] = []
    if texts:
        jobs.append(Job(EmbedTexts(), texts=texts))
    for one in inputs:
        if isinstance(one, bytes):
            jobs.append(Job(EmbedClips(), windows=(await service.decoded(io.BytesIO(one))).windows))

    answers = await asyncio.gather(*map(service.answer, jobs))
    # All texts were one job and each sound its own: the answers go back to where their inputs stood.
    vectors = iter(answers[0] if texts else ())
    sounds = iter(answers[1:] if texts else answers)
    return [(next(vectors) if isinstance(one, str) else next(sounds)).numpy() for one in inputs]


def models(service: Service) -> JSONResponse:
    """Answer `GET /v1/models`."""
    model = {"id": service.name, "object": "model", "created": 0, "owned_by": "mint"}
    return JSONResponse({"object": "list", "data": [model]})
