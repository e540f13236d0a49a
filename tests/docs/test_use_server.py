"""The page on use: what it says of the server does so, over tiny models."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mint import Mint
from mint.cli.serve import add_parser
from tiny_runs import train_both
from tiny_server import Running

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parent.parent.parent / "docs"
SECTION = (
    (DOCS / "use.md").read_text(encoding="utf-8").partition("\n## A server and a web page\n")[2].partition("\n## ")[0]
)
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL) for line in block.splitlines()]
CURLS = [line for line in COMMANDS if line.startswith("curl ")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with an index, in whose folder lies `dog.wav`."""
    folder = tmp_path_factory.mktemp("use-server")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINT_CACHE", str(folder / "cache"))
        mint = Mint.from_pretrained(train_both(folder, max_steps=2))
        mint.index([folder / "tones.jsonl"], folder / "index")
        shutil.copy(next(folder.glob("*.wav")), folder / "dog.wav")
        patch.chdir(folder)
        with Running(mint, index=folder / "index") as running:
            yield running


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("command", CURLS)
def test_plain_endpoints(command: str, server: Running) -> None:
    arguments = shlex.split(command.replace("http://127.0.0.1:8000", server.address))
    finished = subprocess.run([*arguments, "-s", "-f"], capture_output=True, text=True, check=True)
    if not command.endswith("/metrics"):
        answer = json.loads(finished.stdout)
        # The fields that the table names are there.
        path = command.rpartition("/")[2]
        row = re.search(rf"\| `/{path}` \|[^|]*\|([^|]*)\|", SECTION)
        for field in re.findall(r"`([a-z_]+)`", row[1]) if row else ():
            assert f'"{field}":' in json.dumps(answer), field


def test_python(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    names: dict[str, object] = {}
    exec(code.replace("http://127.0.0.1:8000", server.address), names)
    assert capsys.readouterr().out.strip() == server.service.run.ask("dog.wav", "The pitch is").strip()
    assert len(names["texts"].data) == len(names["both"].data) == 2  # type: ignore[attr-defined]


def test_options_and_statuses_are_those_of_the_command() -> None:
    from argparse import ArgumentParser

    parser = ArgumentParser()
    add_parser(parser.add_subparsers())  # type: ignore[arg-type]
    text = parser.parse_args(["serve", "RUN"])
    for option, default in re.findall(r"`--([a-z-]+)` \((\d+)", SECTION):
        assert getattr(text, option.replace("-", "_")) == int(default)
    assert len(CURLS) == 11
    for command in COMMANDS:
        if command.startswith("mint serve"):
            parser.parse_args(shlex.split(command)[1:])


def test_the_picture_is_there() -> None:
    assert "](serve.png)" in SECTION
    assert (DOCS / "serve.png").read_bytes().startswith(b"\x89PNG")
    assert (DOCS / "serve.png").stat().st_size < 400_000
