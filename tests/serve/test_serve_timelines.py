"""`/timeline`: the rows that `Mint.timeline` gives, at once and line by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

from tiny_runs import LABELS, RATE
from tiny_server import Running, form, wait_for

if TYPE_CHECKING:
    from mint import Mint

NAMES = ",".join(LABELS)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds of three tones."""
    times = np.arange(2 * RATE) / RATE
    tones = [0.5 * np.sin(2 * np.pi * pitch * times) for pitch in LABELS.values()]
    path = tmp_path_factory.mktemp("long") / "long.flac"
    soundfile.write(path, np.concatenate(tones), RATE)
    return path


def rows_of(mint: Mint, path: Path, **arguments: Any) -> list[tuple[float, float, str]]:
    return [(one.start, one.end, one.answer) for one in mint.timeline(path, **arguments)]


def as_tuples(rows: list[dict[str, Any]]) -> list[tuple[float, float, str]]:
    return [(row["start"], row["end"], row["answer"]) for row in rows]


def test_rows(server: Running, mint: Mint, recording: Path) -> None:
    status, answer = server.send("/timeline", recording, every=1, labels=NAMES)
    assert status == 200
    assert as_tuples(answer["rows"]) == rows_of(mint, recording, every=1, labels=list(LABELS))
    assert (answer["rows"][0]["start"], answer["rows"][-1]["end"]) == (0, pytest.approx(6))

    status, answer = server.send("/timeline", recording, every=2, hop=1, prompt="The pitch is")
    assert (status, as_tuples(answer["rows"])) == (200, rows_of(mint, recording, every=2, hop=1, prompt="The pitch is"))


def test_lines(server: Running, mint: Mint, recording: Path) -> None:
    body, kind = form(recording.read_bytes(), every=1, labels=NAMES, stream="true")
    status, content, found = server.raw("POST", "/timeline", body, {"Content-Type": kind})
    assert (status, found) == (200, "application/x-ndjson")
    rows = [json.loads(line) for line in content.splitlines()]
    assert as_tuples(rows) == rows_of(mint, recording, every=1, labels=list(LABELS))


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "'every' is missing; give the seconds of each step"),
        ({"every": "0"}, "'every' is '0'; give a number from 0.1 to 3600"),
        ({"every": "1", "hop": "nan"}, "'hop' is 'nan'"),
        ({"every": "1", "hop": "2"}, "hop"),
    ],
)
def test_what_is_wrong_has_a_status(server: Running, recording: Path, fields: dict[str, str], line: str) -> None:
    for stream in ("true", "false"):
        status, answer = server.send("/timeline", recording, **fields, stream=stream)
        assert (status, line in answer["error"]["message"]) == (422, True)
    status, answer = server.send("/timeline", b"no sound", every=1)
    assert (status, "upload: not audio" in answer["error"]["message"]) == (422, True)
    wait_for(lambda: server.service.open_requests == 0)
    assert list(Path(server.service.uploads._folder.name).iterdir()) == []
