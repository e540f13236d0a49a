"""A server in a thread, at a free port of the loopback address, and plain requests to it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from mint.serve.app import LOOPBACK, Application
from mint.serve.limits import Limits
from mint.serve.process import Server, open_socket
from mint.serve.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from mint import Mint


class Running:
    """A server that runs inside a block."""

    def __init__(
        self, mint: Mint, limits: Limits | None = None, token: str | None = None, index: str | Path | None = None
    ) -> None:
        self.service = Service(mint, "tiny", limits or Limits(), index)
        self.listener = open_socket("127.0.0.1", 0)
        self.port: int = self.listener.getsockname()[1]
        hosts = LOOPBACK if token is None else None
        config = uvicorn.Config(
            Application(self.service, token, hosts), ws="none", lifespan="off", log_config=None, access_log=False
        )
        self.server = Server(config, self.service)
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],), daemon=True)

    def __enter__(self) -> Running:
        self.thread.start()
        wait_for(lambda: self.server.started)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        self.service.close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and answer, decoded where it is JSON."""
        status, content, kind = self.raw(method, path, body, headers)
        return status, json.loads(content) if kind.startswith("application/json") else content.decode()

    def raw(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, str]:
        """Status, answer and its type."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return response.status, response.read(), response.getheader("content-type") or ""

    def send(self, path: str, file: bytes | Path | None = None, /, **fields: Any) -> tuple[int, Any]:
        """Send a form, as a browser does."""
        body, kind = form(file.read_bytes() if isinstance(file, Path) else file, **fields)
        return self.request("POST", path, body, {"Content-Type": kind})

    def json(self, path: str, value: Any) -> tuple[int, Any]:
        """Send an object."""
        return self.request("POST", path, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def counter(self, name: str, **labels: str) -> float:
        return self.service.counters.value(name, **labels)


def form(file: bytes | None, name: str = "sound.wav", /, **fields: Any) -> tuple[bytes, str]:
    """The body of a form and its content type; a list stands for a field that is repeated."""
    boundary = uuid.uuid4().hex
    parts = []
    for key, value in fields.items():
        for one in value if isinstance(value, list) else [value]:
            parts.append(f'Content-Disposition: form-data; name="{key}"\r\n\r\n{one}'.encode())
    if file is not None:
        head = f'Content-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: audio/wav\r\n\r\n'
        parts.append(head.encode() + file)
    body = b"".join(f"--{boundary}\r\n".encode() + part + b"\r\n" for part in parts)
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def audio_part(path: Path) -> dict[str, Any]:
    """A sound as a part of a message."""
    data = base64.b64encode(path.read_bytes()).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def message(path: Path, text: str | None = None) -> dict[str, Any]:
    """A message of the user with a sound, and perhaps a text."""
    parts: list[dict[str, Any]] = [audio_part(path)]
    return {"role": "user", "content": parts if text is None else [*parts, {"type": "text", "text": text}]}


def together(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Results of calls that are made at the same time, each in a thread."""
    results: list[Any] = [None] * len(calls)
    gate = threading.Barrier(len(calls))

    def run(index: int) -> None:
        gate.wait()
        results[index] = calls[index]()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return results


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not become so"
        time.sleep(0.005)


def connect(port: int) -> socket.socket:
    """A bare connection."""
    return socket.create_connection(("127.0.0.1", port), timeout=30)
