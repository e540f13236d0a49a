"""`mint serve RUN`: an HTTP API and a web page over a trained model."""

from __future__ import annotations

import importlib.util
import sys
from argparse import ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING

from mint.cli._clips import load
from mint.cli._parser import positive, positive_number, whole_number
from mint.types import MintError

if TYPE_CHECKING:
    from argparse import Namespace

    from mint.cli import Subparsers

NEEDED = ("starlette", "uvicorn", "python_multipart")


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("serve", description="Serve an HTTP API and a web page over a trained model.")
    parser.add_argument("folder", metavar="RUN", help="The folder of a finished run, or its name on the hub.")
    parser.add_argument("--index", metavar="INDEX", help="The index that /search and the page search in.")
    parser.add_argument(
        "--host", default="127.0.0.1", help="The address to listen at (default: 127.0.0.1, this machine alone)."
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=8000,
        metavar="N",
        help="The port to listen at; 0 takes a free one (default: 8000).",
    )
    parser.add_argument("--token", type=_token, help="Answer only requests that bring 'Authorization: Bearer TOKEN'.")
    parser.add_argument(
        "--max-megabytes", type=positive, default=64, metavar="N", help="The largest sound, in MiB (default: 64)."
    )
    parser.add_argument(
        "--max-seconds", type=positive_number, default=14400, metavar="S", help="The longest sound (default: 14400)."
    )
    parser.add_argument(
        "--max-requests",
        type=positive,
        default=64,
        metavar="N",
        help="The most requests that are in the server together; more are sent away (default: 64).",
    )
    parser.add_argument(
        "--timeout",
        type=positive_number,
        default=120,
        metavar="S",
        help="Seconds after which a request is given up (default: 120).",
    )
    parser.set_defaults(run=run)


def run(arguments: Namespace) -> int:
    """Load the run, and answer requests until SIGTERM or Ctrl-C."""
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            raise MintError(f"`mint serve` needs {name}; `pip install 'mint-audio[serve]'`")

    from mint.serve.limits import MEBIBYTE, Limits
    from mint.serve.process import address_of, is_loopback, open_socket, serve
    from mint.serve.service import Service

    # A port that is taken is told before the model is loaded, which may take minutes.
    listener = open_socket(arguments.host, arguments.port)
    with listener:
        limits = Limits(
            upload_bytes=arguments.max_megabytes * MEBIBYTE,
            seconds=arguments.max_seconds,
            requests=arguments.max_requests,
            timeout=arguments.timeout,
        )
        service = Service(load(arguments.folder), _name(arguments.folder), limits, arguments.index)

        address = address_of(listener)
        if not is_loopback(listener) and arguments.token is None:
            print(
                f"mint: warning: whoever reaches {address} may use this server; give --token, or leave --host out",
                file=sys.stderr,
            )

        def announce() -> None:
            # Flushed, so that a program that started the server can wait for this line.
            print(f"{service.name} is served at {address} (Ctrl-C ends it)", flush=True)

        if serve(service, listener, arguments.token, announce):
            raise KeyboardInterrupt
    return 0


def _name(run: str) -> str:
    """Return what a run is called by clients: its folder, or its name on the hub."""
    path = Path(run).expanduser()
    if not path.exists():
        return run
    path = path.resolve()
    return path.parent.name if path.name in ("stage1", "stage2") else path.name


def _port(text: str) -> int:
    """Return an argument that must be a port."""
    port = whole_number(text)
    if port > 65535:
        raise ArgumentTypeError(f"{text!r} is no port; give 1 to 65535, or 0 for a free one")
    return port


def _token(text: str) -> str:
    """Return an argument that must be fit for a header."""
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ArgumentTypeError("the token must be of printable ASCII characters without spaces")
    return text
