"""`mint serve` as a process: its messages, SIGTERM, Ctrl-C, and what it refuses before it starts."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mint.cli import main
from mint.serve.process import address_of, is_loopback, open_socket
from tiny_server import form, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mint import Mint


@contextmanager
def serving(run: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server as a process of its own, and its port."""
    command = [sys.executable, "-m", "mint", "serve", str(run), "--port", "0", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.fullmatch(r"run is served at http://127\.0\.0\.1:(\d+)/ \(Ctrl-C ends it\)\n", line)
            assert match, line
            port = int(match[1])
            wait_for(lambda: answers(port))
            yield process, port
        finally:
            process.kill()


def answers(port: int) -> bool:
    try:
        return send(port, "GET", "/health")[0] == 200
    except OSError:
        return False


def send(port: int, method: str, path: str, body: bytes = b"", kind: str = "") -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path, body, {"Content-Type": kind} if kind else {})
        response = connection.getresponse()
        return response.status, response.read()


def test_answers_in_flight_are_finished_at_sigterm(served_run: Path, mint: Mint, clips: list[Path]) -> None:
    """Twelve requests, of which some are being answered and others wait: none is lost."""
    with serving(served_run) as (process, port):
        results: list[Any] = [None] * 12

        def ask(index: int) -> None:
            body, kind = form(clips[index].read_bytes(), prompt="The pitch is", max_tokens=200)
            try:
                results[index] = send(port, "POST", "/ask", body, kind)
            except OSError as error:
                results[index] = error

        threads = [threading.Thread(target=ask, args=(index,)) for index in range(12)]
        for thread in threads:
            thread.start()
        wait_for(lambda: b"mint_requests_open 12\n" in send(port, "GET", "/metrics")[1])
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(60)
        assert process.wait(60) == 0

        for index, (status, content) in enumerate(results):
            expected = mint.ask(clips[index], "The pitch is", max_new_tokens=200)
            assert status == 200
            assert json.loads(content)["answer"] == expected
        with pytest.raises(OSError):  # noqa: PT011  # refused, or reset
            socket.create_connection(("127.0.0.1", port), timeout=5)
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_ctrl_c_ends_it(served_run: Path) -> None:
    with serving(served_run) as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr is not None
        assert process.stderr.read() == "mint: interrupted\n"


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(open_socket("127.0.0.1", 0)) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", str(tmp_path), "--port", str(port)]) == 2
    assert f"cannot listen at 127.0.0.1:{port}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--port", "70000"], "'70000' is no port"),
        (["--port", "-1"], "'-1' is not a whole number"),
        (["--token", ""], "the token must be of printable ASCII"),
        (["--token", "a b"], "the token must be of printable ASCII"),
        (["--timeout", "0"], "'0' is not a number above 0"),
        (["--max-requests", "0"], "'0' is not a whole number of at least 1"),
        (["--host", "no such host"], "--host 'no such host' is no address"),
        (["--index", "nowhere", "--port", "0"], "nowhere"),
    ],
)
def test_arguments_that_are_wrong(
    served_run: Path, capsys: pytest.CaptureFixture[str], options: list[str], line: str
) -> None:
    assert main(["serve", str(served_run), *options]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_a_run_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path), "--port", "0"]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("mint.cli.serve.NEEDED", ("uvicorn", "nowhere_to_be_found"))
    assert main(["serve", "run"]) == 2
    assert "`mint serve` needs nowhere_to_be_found; `pip install 'mint-audio[serve]'`" in capsys.readouterr().err


def test_who_listens_wider_without_a_token_is_warned(
    served_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mint.serve.process.Server.run", lambda self, sockets: None)
    for options, warns in ((["--host", "0.0.0.0"], True), (["--host", "0.0.0.0", "--token", "t"], False), ([], False)):
        assert main(["serve", str(served_run), "--port", "0", *options]) == 0
        captured = capsys.readouterr()
        assert ("warning: whoever reaches http://0.0.0.0:" in captured.err) is warns
        assert "run is served at http://" in captured.out


def test_addresses() -> None:
    for host, expected in (("127.0.0.1", "http://127.0.0.1:"), ("localhost", "http://"), ("::1", "http://[::1]:")):
        try:
            with closing(open_socket(host, 0)) as listener:
                assert address_of(listener).startswith(expected)
                assert is_loopback(listener)
        except Exception as error:
            if ":" not in host or "Cannot assign" not in str(error):  # a machine without IPv6
                raise
