"""The application: which path is answered by what, and what holds for every request.

Every refusal is JSON of one form. What goes wrong inside is written to the log, and never into an answer.
"""

from __future__ import annotations

import asyncio
import hmac
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from mint.serve import chat, plain
from mint.serve.limits import Refused
from mint.serve.timelines import timeline

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Message, Receive, Scope, Send

    from mint.serve.service import Service

    Handler = Callable[[Request, Service], Awaitable[Response | None]]

PAGE = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
LOOPBACK = ("localhost", "127.0.0.1", "::1")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers of every answer."""
DRAIN_SECONDS = 5.0
"""Seconds in which the rest of a refused body is read, so that the client reads the refusal and not a closed line."""


class Application:
    """Answers HTTP requests (ASGI).

    Args:
        service: what the endpoints share.
        token: what every request but those of the page must bring; None: nothing.
        hosts: names under which the server may be called; None: any. It keeps other web sites out, which make their
            own name mean this machine.
    """

    def __init__(self, service: Service, token: str | None = None, hosts: tuple[str, ...] | None = None) -> None:
        self.service = service
        self._token = token
        self._hosts = hosts
        self._pages = read_pages()
        self._posts: dict[str, Handler] = {
            "/v1/chat/completions": chat.complete,
            "/v1/embeddings": chat.embed,
            "/caption": plain.caption,
            "/ask": plain.ask,
            "/classify": plain.classify,
            "/attention": plain.attention,
            "/picture": plain.picture,
            "/search": plain.search,
            "/timeline": timeline,
        }
        self._gets: dict[str, Callable[[], Response]] = {
            "/v1/models": lambda: chat.models(service),
            "/about": lambda: plain.about(service),
            "/metrics": lambda: PlainTextResponse(service.counters.text()),
            "/health": self._health,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return

        # Every byte passes through it in both directions, so that no handler can forget the limit or a header.
        exchange = _Exchange(receive, send, self.service.limits.body_bytes)
        request = Request(scope, exchange.receive)
        begin = time.monotonic()
        try:
            await self._respond(request, exchange)
        except ClientDisconnect:
            pass
        finally:
            path = request.url.path
            known = path in self._posts or path in self._gets or path in self._pages
            # Only paths that exist are counted by name: a scanner would fill the memory. 499: the client left.
            labels = {"path": path if known else "other", "status": str(exchange.status or 499)}
            self.service.counters.add("mint_requests_total", **labels)
            self.service.counters.add("mint_request_seconds_total", time.monotonic() - begin, path=labels["path"])

    async def _respond(self, request: Request, exchange: _Exchange) -> None:
        """Send the answer, or the refusal."""
        try:
            self._check(request)
            response = await self._answer(request, exchange)
        except Refused as refused:
            response = JSONResponse(refused.body(), refused.status, refused.headers)
        except ClientDisconnect:
            return
        except Exception as error:
            traceback.print_exception(error, file=sys.stderr)
            # The reason may hold paths or texts of others, and stays in the log.
            response = JSONResponse(Refused(500, "the server failed on this request; its log says why").body(), 500)

        # An answer that has begun cannot be replaced by a refusal.
        if response is not None and not exchange.status:
            await exchange.drain(request)
            await response(request.scope, exchange.receive, exchange.send)

    async def _answer(self, request: Request, exchange: _Exchange) -> Response | None:
        """Return the answer; None where the client went away, or everything was sent.

        Raises:
            Refused: there is none.
        """
        path, method = request.url.path, request.method
        if path in self._posts:
            if method != "POST":
                raise Refused(405, f"{path} takes POST", headers={"Allow": "POST"})
            # A place is held until the last byte of the answer is sent.
            self.service.enter()

            try:
                response = await self._posts[path](request, self.service)
                if response is not None:
                    await response(request.scope, exchange.receive, exchange.send)
            finally:
                self.service.leave()
            return None

        if path not in self._gets and path not in self._pages:
            raise Refused(404, f"there is nothing at {path[:100]!r}; the page is at '/'")
        if method not in ("GET", "HEAD"):
            raise Refused(405, f"{path} takes GET", headers={"Allow": "GET"})
        return self._gets[path]() if path in self._gets else self._page(path)

    def _check(self, request: Request) -> None:
        """Refuse what comes from another web site, or without the token.

        Raises:
            Refused: it does.
        """
        host = request.headers.get("host", "")
        if self._hosts is not None and host_name(host) not in self._hosts:
            raise Refused(403, f"this server is not called {host[:100]!r}; use http://localhost or its address")
        # A browser names the site whose page asks; command lines and programs name none.
        origin = request.headers.get("origin")
        if origin is not None and urlsplit_netloc(origin) != host:
            raise Refused(403, "requests of other web sites are not answered")

        path = request.url.path
        if self._token is None or path == "/health" or path in self._pages:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # Bytes, as texts that are not ASCII cannot be compared in constant time.
        if not hmac.compare_digest(given.strip().encode("latin-1"), self._token.encode()) or scheme.lower() != "bearer":
            raise Refused(
                401,
                "the token is missing or wrong; send 'Authorization: Bearer TOKEN'",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _health(self) -> Response:
        """Answer `GET /health`."""
        if self.service.is_stopping:
            return JSONResponse({"status": "stopping"}, 503)
        return JSONResponse({"status": "ok"})

    def _page(self, path: str) -> Response:
        """Return a file of the page."""
        content, kind = self._pages[path]
        # Asked for anew after each start, since a newer version may have another page.
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})


class _Exchange:
    """Both directions of one request: bodies are limited, answers get the common headers.

    Args:
        receive: the client's side.
        send: ours.
        most_bytes: largest body.
    """

    def __init__(self, receive: Receive, send: Send, most_bytes: int) -> None:
        self._receive = receive
        self._send = send
        self._most_bytes = most_bytes
        self._read = 0
        self._is_read = False
        self.status = 0
        """Status that was sent; 0: none yet."""

    async def receive(self) -> Message:
        """Return the next part of the body.

        Raises:
            Refused: the body is larger than the limit.
        """
        message = await self._receive()
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            self._is_read = not message.get("more_body", False)
            # Counted as it comes: the length that a client announces may be wrong or missing.
            if self._read > self._most_bytes and not self._is_read:
                raise Refused(413, f"the body is larger than {self._most_bytes} bytes; send a shorter sound", "file")
        return message

    async def send(self, message: Message) -> None:
        """Pass a part of the answer on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            common = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *common]}
        await self._send(message)

    async def drain(self, request: Request) -> None:
        """Read what a client still sends, within limits: many read no answer before they have sent all."""
        announced = request.headers.get("content-length", "")
        if self._is_read or (announced.isdecimal() and int(announced[:18]) > 2 * self._most_bytes):
            return
        with suppress(TimeoutError, Refused):
            async with asyncio.timeout(DRAIN_SECONDS):
                rest = self._most_bytes

                while rest > 0:
                    message = await self._receive()
                    rest -= len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        self._is_read = True
                        return


def host_name(host: str) -> str:
    """Return the name in a `Host` header, without its port; empty where it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def urlsplit_netloc(origin: str) -> str:
    """Return name and port in an `Origin` header; empty where it is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def read_pages() -> dict[str, tuple[bytes, str]]:
    """Return the files of the page, with their kinds, by their paths on the server."""
    pages: dict[str, tuple[bytes, str]] = {}
    for file in sorted(PAGE.glob("*")):
        if file.suffix in KINDS:
            path = "/" if file.name == "index.html" else f"/page/{file.name}"
            pages[path] = (file.read_bytes(), KINDS[file.suffix])
    return pages
