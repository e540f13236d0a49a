"""Requests made of noise, and of good ones with something broken: no traceback, a right status, a server that lives."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path
from typing import Any

import pytest

from tiny_server import Running, audio_part, form, message, wait_for

STATUSES = {200, 403, 404, 405, 408, 413, 422, 429, 503}
PATHS = ("/caption", "/ask", "/classify", "/attention", "/picture", "/search", "/timeline")
VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1e308, 2**70, 0.5, "", " ", "a", "nan", "\ud800", "\x00", "x" * 5000, "é" * 9),
    *([], {}, [[]], {"a": []}, [None], ["a", 1], {"type": "text"}, {"role": "user"}),
)
FIELDS = ("prompt", "labels", "method", "max_tokens", "temperature", "top_p", "seed", "query", "top", "every", "hop")
CHAT = ("model", "messages", "max_tokens", "temperature", "top_p", "seed", "stream", "n", "stop", "tools", "input")


def broken(draw: random.Random, content: bytes) -> bytes:
    """Bytes of a sound with something wrong: cut off, changed, noise, or nothing."""
    kind = draw.randrange(5)
    if kind == 0:
        return content[: draw.randrange(len(content))]
    if kind == 1:
        changed = bytearray(content)
        for _ in range(draw.randrange(1, 20)):
            changed[draw.randrange(min(len(changed), 200))] = draw.randrange(256)
        return bytes(changed)
    if kind == 2:
        return draw.randbytes(draw.randrange(300))
    return b"" if kind == 3 else content


def a_form(draw: random.Random, clip: bytes) -> tuple[str, bytes, dict[str, str]]:
    fields: dict[str, Any] = {"prompt": "The pitch is", "labels": "low,high", "query": "a tone", "every": "0.2"}
    fields |= {"max_tokens": "3"}
    for name in draw.sample(FIELDS, draw.randrange(4)):
        value = draw.choice(VALUES)
        fields[name] = value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
    body, kind = form(None if draw.random() < 0.1 else broken(draw, clip), **fields)
    if draw.random() < 0.2:
        body = broken(draw, body)
    if draw.random() < 0.1:
        kind = draw.choice(["", "text/plain", "multipart/form-data", "multipart/form-data; boundary=x", kind[:-4]])
    return draw.choice(PATHS), body, {"Content-Type": kind}


def an_object(draw: random.Random, clip: Path) -> tuple[str, bytes, dict[str, str]]:
    path = draw.choice(["/v1/chat/completions", "/v1/embeddings"])
    value: dict[str, Any] = {"messages": [message(clip, "The pitch is")], "input": ["a", audio_part(clip)]}
    value |= {"max_tokens": 3, "stream": draw.random() < 0.3}
    for name in draw.sample(CHAT, draw.randrange(4)):
        value[name] = draw.choice(VALUES)
    if draw.random() < 0.3:
        value["messages"] = [draw.choice([{"role": "user", "content": draw.choice(VALUES)}, draw.choice(VALUES)])]
    body = json.dumps(value).encode()
    if draw.random() < 0.2:
        body = broken(draw, body)
    return path, body, {"Content-Type": "application/json"}


def anything(draw: random.Random) -> tuple[str, bytes, dict[str, str]]:
    letters = string.ascii_letters + "/.%-_~"
    return "/" + "".join(draw.choices(letters, k=draw.randrange(30))), draw.randbytes(draw.randrange(100)), {}


@pytest.mark.parametrize("requests", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_requests_made_of_noise(
    server: Running, clips: list[Path], requests: int, capfd: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(requests)
    clip = min(clips, key=lambda path: path.stat().st_size)
    content = clip.read_bytes()
    answered = set()
    for _ in range(requests):
        kind = draw.random()
        if kind < 0.5:
            path, body, headers = a_form(draw, content)
        elif kind < 0.9:
            path, body, headers = an_object(draw, clip)
        else:
            path, body, headers = anything(draw)

        method = draw.choice(["GET", "PUT", "DELETE", "PATCH"]) if draw.random() < 0.05 else "POST"
        status, text, form_ = server.raw(method, path, body, headers)
        answered.add(status)
        assert status in STATUSES, (path, text)
        assert b"Traceback" not in text
        if status != 200:
            assert form_ == "application/json"
            assert isinstance(json.loads(text)["error"]["message"], str)

    assert {200, 404, 422} <= answered
    assert capfd.readouterr().err == ""
    assert server.send("/caption", clips[0])[0] == 200
    # A place is free when the last byte of the answer was sent, which the client may read before.
    wait_for(lambda: server.service.open_requests == 0)
    assert list(Path(server.service.uploads._folder.name).iterdir()) == []
