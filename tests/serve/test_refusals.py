"""What the server does not answer: every refusal is one line of JSON with its status, and the server lives on."""

from __future__ import annotations

import io
import json
import socket
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

from mint.data.features.encode import encode_batch
from mint.serve import questions
from mint.serve.limits import Limits
from tiny_server import Running, audio_part, connect, form, message, together, wait_for

if TYPE_CHECKING:
    from mint import Mint

SECRET = "what no client may hear"  # in a file beside the server


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Texts take a while, as with a large model; the prompts of those that were finished."""
    finished: list[str] = []
    write = questions.Watch.__call__

    def slowly(self: questions.Watch, row: int, token: int) -> bool:
        time.sleep(0.02)
        goes_on = write(self, row, token)
        if not goes_on:
            finished.append(self._jobs[row].prompt)
        return goes_on

    monkeypatch.setattr(questions.Watch, "__call__", slowly)
    return finished


def refusal(answer: Any) -> str:
    """The line of a refusal."""
    line = answer["error"]["message"]
    assert "Traceback" not in line
    assert "\n" not in line
    assert isinstance(line, str)
    return line


def test_requests_that_are_wrong(server: Running, clips: list[Path]) -> None:
    clip = clips[0]
    for path, fields, line in (
        ("/ask", {}, "'prompt' is missing; give a text"),
        ("/ask", {"prompt": "  "}, "'prompt' is '  '; give a text"),
        ("/ask", {"prompt": "x" * 4001}, "'prompt' has 4001 characters; give 4000 at most"),
        ("/classify", {}, "'labels' names no label"),
        ("/classify", {"labels": ", ,"}, "'labels' names no label"),
        ("/classify", {"labels": ",".join(map(str, range(1001)))}, "'labels' names 1001 labels; give 1000 at most"),
        ("/classify", {"labels": "a", "method": "guess"}, "'method' is 'guess'; choose one of"),
        ("/caption", {"max_tokens": "many"}, "'max_tokens' is 'many'; give a number from 1"),
        ("/caption", {"max_tokens": "0"}, "'max_tokens' is '0'; give a number from 1"),
        ("/caption", {"max_tokens": "1.5"}, "'max_tokens' is 1.5; give a whole number"),
        ("/caption", {"temperature": "nan"}, "'temperature' is 'nan'; give a number from 0 to 2"),
        ("/caption", {"temperature": "-1"}, "'temperature' is '-1'"),
        ("/caption", {"top_p": "2"}, "'top_p' is '2'; give a number from 0 to 1"),
        ("/caption", {"seed": str(1 << 70)}, "'seed' is '1180591620717411303424'"),
    ):
        status, answer = server.send(path, clip, **fields)
        assert (status, line in refusal(answer)) == (422, True), answer
    assert "the form has no file called 'file'" in refusal(server.send("/caption", None, file="/etc/passwd")[1])
    assert "the form cannot be read" in refusal(
        server.request("POST", "/caption", b"x", {"Content-Type": form(b"")[1]})[1]
    )
    assert "the body is no form" in refusal(server.json("/caption", {"file": "/etc/passwd"})[1])


def test_chats_that_are_wrong(server: Running, clips: list[Path]) -> None:
    sound = audio_part(clips[0])
    for body, status, line in (
        (b"{", 422, "the body is no JSON"),
        (b"\xff", 422, "the body is no JSON"),
        (b"[" * 100_000, 422, "the body is no JSON"),
        (b'{"messages": NaN}', 422, "the body is no JSON"),
        (b"9" * 5000, 422, "the body is no JSON"),
        (b"[]", 422, "the body is no JSON object"),
        ({}, 422, "'messages' is no list of messages"),
        ({"messages": []}, 422, "'messages' is no list"),
        ({"messages": ["a"]}, 422, "a message is 'a'"),
        ({"messages": [{"role": "user", "content": 1}]}, 422, "a message's content is 1"),
        ({"messages": [{"role": "user", "content": [sound, sound]}]}, 422, "a message holds several sounds"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 422, "a part of a message is"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, 422, "'input_audio' has no 'data'"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "/etc/passwd*"}}]}
                ]
            },
            422,
            "holds no base64",
        ),
        ({"messages": [message(clips[0], "\ud800")]}, 422, "half a character"),
        ({"messages": [message(clips[0])], "stream": "yes"}, 422, "'stream' is 'yes'; give true or false"),
        ({"messages": [message(clips[0])], "temperature": True}, 422, "'temperature' is True"),
        ({"messages": [message(clips[0])], "max_tokens": 0}, 422, "'max_tokens' is 0"),
        ({"messages": [message(clips[0])], "tools": [{"type": "function"}]}, 422, "which this model cannot do"),
        ({"messages": [message(clips[0])], "model": 1}, 404, "there is no model 1"),
    ):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        found, answer = server.request("POST", "/v1/chat/completions", content)
        assert (found, line in refusal(answer)) == (status, True), answer

    wrong: list[tuple[Any, str]] = [
        ({}, "'input' is missing"),
        ({"input": []}, "'input' holds 0 texts"),
        ({"input": ["a"] * 257}, "'input' holds 257 texts"),
        ({"input": [sound] * 17}, "'input' holds 17 sounds; give 16 at most"),
        ({"input": [1, 2]}, "'input' is 1; give a text"),
        ({"input": "a", "encoding_format": "int8"}, "'encoding_format' is 'int8'"),
        ({"input": "a", "dimensions": 3}, "'dimensions' is 3; there are"),
    ]
    for given, line in wrong:
        found, answer = server.json("/v1/embeddings", given)
        assert (found, line in refusal(answer)) == (422, True), answer


def test_paths_and_methods(server: Running) -> None:
    for method, path, status in (
        ("GET", "/nowhere", 404),
        ("GET", "/page/../app.py", 404),
        ("GET", "/page/%2e%2e/app.py", 404),
        ("GET", "//etc/passwd", 404),
        ("POST", "/etc/passwd", 404),
        ("GET", "/caption", 405),
        ("DELETE", "/v1/models", 405),
        ("PUT", "/", 405),
    ):
        found, answer = server.request(method, path)
        assert (found, bool(refusal(answer))) == (status, True), path


def test_no_file_of_the_host_is_read(server: Running, tmp_path: Path, clips: list[Path]) -> None:
    """Neither by a name in the form, nor by what an upload itself names, as play lists do."""
    secret = tmp_path / "secret.wav"
    secret.write_bytes(clips[0].read_bytes())
    for content in (
        str(secret).encode(),
        b"file://" + str(secret).encode(),
        b"ffconcat version 1.0\nfile " + str(secret).encode() + b"\n",
        b"#EXTM3U\n#EXTINF:1,\n" + str(secret).encode() + b"\n#EXT-X-ENDLIST\n",
    ):
        for name in ("list.m3u8", "list.m4a", str(secret), "../../secret.wav"):
            body, kind = form(content, name)
            status, answer = server.request("POST", "/caption", body, {"Content-Type": kind})
            assert (status, "upload: not audio" in refusal(answer)) == (422, True)
    status, answer = server.send("/caption", None, file=str(secret), path=str(secret))
    assert status == 422


def test_messages_show_no_path_of_the_server(server: Running) -> None:
    for content in (b"no sound", b"\x00\x00\x00\x18ftypM4A ", b"RIFF\x24\x00\x00\x00WAVE"):
        line = refusal(server.send("/picture", content)[1])
        assert "mint-serve" not in line
        assert "/tmp" not in line


def test_sounds_that_are_too_much(mint: Mint, clips: list[Path], tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.flac", np.zeros(8000 * 11), 8000)
    soundfile.write(tmp_path / "wide.flac", np.zeros((655350, 8)), 655350)
    with Running(mint, Limits(upload_bytes=200_000, seconds=10, timeout=60)) as running:
        assert "the sound lasts 11.0 s, and the server takes 10 s" in refusal(
            running.send("/caption", tmp_path / "long.flac")[1]
        )
        assert running.send("/caption", tmp_path / "long.flac")[0] == 413
        assert running.send("/caption", bytes(200_001))[0] == 413
        body = {
            "messages": [
                {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA" * 400_000}}]}
            ]
        }
        assert running.json("/v1/chat/completions", body)[0] == 413
        assert running.send("/caption", clips[0])[0] == 200

        # A body without a length is counted as it comes, and one that is announced too long is not read.
        part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
        head = b"POST /caption HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        for rest in (
            b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(part), part) + 40 * chunk,
            b"Content-Length: 99999999999\r\n\r\n",
        ):
            with closing(connect(running.port)) as line:
                line.sendall(head + rest)
                assert b" 413 " in line.recv(4096)
        wait_for(lambda: running.service.open_requests == 0)


def test_a_small_file_cannot_fill_the_memory(
    server: Running, monkeypatch: pytest.MonkeyPatch, clips: list[Path]
) -> None:
    monkeypatch.setattr("mint.serve.uploads.MOST_SAMPLES", 5000)
    status, answer = server.send("/caption", clips[0])
    assert (status, "which is too much" in refusal(answer)) == (413, True)


def test_more_than_the_places_are_sent_away(mint: Mint, clips: list[Path], slow: list[str]) -> None:
    with Running(mint, Limits(requests=3, timeout=60)) as running:
        results = together([lambda: running.send("/caption", clips[0])] * 12)
        statuses = [status for status, _ in results]
        assert set(statuses) == {200, 429}
        assert 3 <= statuses.count(200) <= 9
        assert {answer["caption"] for status, answer in results if status == 200} == {mint.caption(clips[0])}
        assert "try again" in next(refusal(answer) for status, answer in results if status == 429)
        assert running.send("/caption", clips[0])[0] == 200


def test_who_takes_too_long_gives_its_place_back(mint: Mint, clips: list[Path], slow: list[str]) -> None:
    with Running(mint, Limits(timeout=0.3)) as running:
        status, answer = running.send("/caption", clips[0], max_tokens=200)
        assert (status, "no answer within 0.3 s" in refusal(answer)) == (503, True)
        wait_for(lambda: running.service.open_requests == 0)

        # Clients that are slow to send are no better off.
        with closing(connect(running.port)) as line:
            line.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            assert b" 408 " in line.recv(4096)
        wait_for(lambda: running.service.open_requests == 0)

        # The end of a stream's time is told in the stream.
        body = {"messages": [message(clips[0])], "stream": True, "max_tokens": 200}
        content = running.raw("POST", "/v1/chat/completions", json.dumps(body).encode())[1].decode()
        assert "no answer within 0.3 s" in content
        assert "[DONE]" not in content


@pytest.mark.parametrize("stream", [False, True])
def test_who_goes_away_gives_its_place_back(mint: Mint, clips: list[Path], slow: list[str], stream: bool) -> None:
    """The text that is being written ends, long before its last token."""
    with Running(mint, Limits(requests=1, timeout=60)) as running:
        body = json.dumps({"messages": [message(clips[0], "leave")], "stream": stream, "max_tokens": 256}).encode()
        line = connect(running.port)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        line.sendall(head.encode() + body)
        wait_for(lambda: running.service.open_requests == 1)
        time.sleep(0.3)
        assert running.send("/caption", clips[0])[0] == 429
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        line.close()

        begin = time.monotonic()
        wait_for(lambda: running.service.open_requests == 0)
        wait_for(lambda: "leave" in slow)
        assert time.monotonic() - begin < 2.5  # 256 tokens would take twice as long
        assert running.send("/caption", clips[0])[0] == 200


def test_what_waits_and_is_left_is_never_asked(mint: Mint, clips: list[Path], slow: list[str]) -> None:
    with Running(mint, Limits(timeout=60)) as running:
        lines = []
        for prompt in ("first", "second"):
            # Other labels: they share no batch.
            body, kind = form(clips[0].read_bytes(), prompt=prompt, max_tokens=60, temperature=1)
            line = connect(running.port)
            head = (
                f"POST /ask HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            line.sendall(head.encode() + body)
            lines.append(line)
            time.sleep(0.3)
        assert running.counter("mint_questions_waiting") == 1
        lines[1].close()
        wait_for(lambda: running.counter("mint_questions_waiting") == 0)
        assert b" 200 " in lines[0].recv(4096)
        lines[0].close()
        assert running.send("/caption", clips[0])[0] == 200
        assert "second" not in slow


def test_other_web_sites_are_kept_out(server: Running, mint: Mint, clips: list[Path]) -> None:
    body, kind = form(clips[0].read_bytes())
    own = {"Content-Type": kind, "Origin": server.address, "Host": server.address.removeprefix("http://")}
    assert server.request("POST", "/caption", body, own)[0] == 200
    for origin in ("https://evil.example", "null", "http://[", ""):
        status, answer = server.request("POST", "/caption", body, {**own, "Origin": origin})
        assert (status, "other web sites" in refusal(answer)) == (403, True)
    for host in ("evil.example", "evil.example:80", "[", ""):
        assert server.request("GET", "/about", b"", {"Host": host})[0] == 403
    assert server.request("GET", "/about", b"", {"Host": "localhost:1"})[0] == 200


def test_the_token(mint: Mint, clips: list[Path]) -> None:
    with Running(mint, token="open-sesame") as running:
        for given in (None, "", "Bearer", "Bearer open-sesam", "Bearer open-sesame2", "Basic open-sesame", "Bearer ä"):
            headers = {} if given is None else {"Authorization": given}
            for method, path in (("GET", "/about"), ("GET", "/metrics"), ("POST", "/caption"), ("GET", "/v1/models")):
                status, answer = running.request(method, path, b"", headers)
                assert (status, "the token is missing or wrong" in refusal(answer)) == (401, True)
        assert running.request("GET", "/about", b"", {"Authorization": "Bearer open-sesame"})[0] == 200
        # The page itself asks for the token, and whoever watches over servers has none.
        assert running.raw("GET", "/")[0] == 200
        assert running.request("GET", "/health")[0] == 200


def test_every_answer_forbids_what_the_page_does_not_need(server: Running) -> None:
    connection = connect(server.port)
    with closing(connection):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        head = connection.makefile("rb").read().partition(b"\r\n\r\n")[0].decode()
    assert "content-security-policy: default-src 'none'; script-src 'self';" in head
    assert "unsafe" not in head
    assert "x-content-type-options: nosniff" in head


def test_a_fault_of_the_server_is_logged_and_not_told(
    server: Running, clips: list[Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(questions.Attend, "ask", fail)
    status, answer = server.send("/attention", clips[0])
    assert (status, refusal(answer)) == (500, "the server failed on this request; its log says why")
    assert SECRET in capfd.readouterr().err
    assert server.send("/caption", clips[0])[0] == 200


def test_noise_of_a_bad_encoder_is_refused(server: Running, clips: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "encode_batch", lambda *given: [one * np.nan for one in encode_batch(*given)])
    status, answer = server.send("/caption", clips[0])
    assert (status, "no finite features" in refusal(answer)) == (422, True)


def test_uploads_leave_nothing_behind(mint: Mint, clips: list[Path]) -> None:
    with Running(mint) as running:
        folder = Path(running.service.uploads._folder.name)
        for sound in (clips[0].read_bytes(), b"no sound"):
            running.send("/caption", sound)
        assert list(folder.iterdir()) == []
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


def test_half_a_flac_file(server: Running, clips: list[Path]) -> None:
    file = io.BytesIO()
    soundfile.write(file, soundfile.read(clips[0])[0], 16000, format="FLAC")
    assert server.send("/caption", file.getvalue()[: len(file.getvalue()) // 2])[0] in (200, 422)
