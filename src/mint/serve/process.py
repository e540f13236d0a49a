"""The process of the server: the socket, the signals, and the end in good order."""

from __future__ import annotations

import ipaddress
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn

from mint.serve.app import LOOPBACK, Application
from mint.types import MintError

if TYPE_CHECKING:
    from types import FrameType

    from mint.serve.service import Service

BACKLOG = 512
"""Connections that wait to be accepted."""


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address.

    Raises:
        MintError: the address is none of this machine, or taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise MintError(f"--host {host!r} is no address ({error}); give one such as 127.0.0.1") from None

    listener = socket.socket(family, kind, protocol)
    # A server that has just ended leaves its port in use for a minute otherwise.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise MintError(f"cannot listen at {host}:{port} ({reason}); choose another --port or --host") from None
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the address of a socket as a browser takes it."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def is_loopback(listener: socket.socket) -> bool:
    """Return whether only this machine reaches a socket."""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


class Server(uvicorn.Server):
    """Ends in good order at SIGTERM and Ctrl-C: no new requests, answers to those that are there.

    Args:
        config: uvicorn's settings.
        service: learns that the server stops.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self.was_interrupted = False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals inside the block; uvicorn would raise them again at its end, and so exit with an error."""
        # Python allows handlers in its main thread alone.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}

        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, _: FrameType | None) -> None:
        # The second Ctrl-C waits for nothing.
        self.force_exit = self.should_exit and number == signal.SIGINT
        self.was_interrupted = self.was_interrupted or number == signal.SIGINT
        self.should_exit = True
        self._service.is_stopping = True


def serve(
    service: Service, listener: socket.socket, token: str | None, announce: Callable[[], Any] = lambda: None
) -> bool:
    """Answer requests until SIGTERM or Ctrl-C, and then those that are in the server.

    Args:
        service: the run and its queue.
        listener: a bound socket.
        token: what requests must bring.
        announce: called when the server is about to listen.

    Returns:
        Whether it was Ctrl-C.
    """
    # A token keeps others out by itself.
    hosts = LOOPBACK if token is None and is_loopback(listener) else None
    config = uvicorn.Config(
        Application(service, token, hosts),
        http="h11",
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=int(service.limits.timeout) + 1,
    )
    server = Server(config, service)
    # The socket is bound already: what connects from now on waits to be answered.
    announce()

    try:
        server.run(sockets=[listener])
    finally:
        service.close()
    return server.was_interrupted
