"""The plain endpoints: the same answers as `Mint` gives, one at a time and many together."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

from tiny_runs import LABELS, RATE
from tiny_server import Running, together

if TYPE_CHECKING:
    from mint import Mint

NAMES = ",".join(LABELS)


def test_texts(server: Running, mint: Mint, clips: list[Path]) -> None:
    status, answer = server.send("/caption", clips[0])
    assert status == 200
    assert answer["caption"] == mint.caption(clips[0])
    assert answer["seconds"] == pytest.approx(0.4, abs=0.01)

    status, answer = server.send("/ask", clips[0], prompt="The pitch is", max_tokens=5)
    assert (status, answer["answer"]) == (200, mint.ask(clips[0], "The pitch is", max_new_tokens=5))
    assert answer["is_cut"] is True


@pytest.mark.parametrize("method", ["vocabulary", "similarity", "auto"])
def test_labels(server: Running, mint: Mint, clips: list[Path], method: Any) -> None:
    expected = mint.classify(clips[5], list(LABELS), prompt="The pitch is", method=method)
    status, answer = server.send("/classify", clips[5], labels=NAMES, prompt="The pitch is", method=method)
    assert status == 200
    assert {row["label"]: row["score"] for row in answer["labels"]} == pytest.approx(expected, abs=1e-3)
    probabilities = [row["probability"] for row in answer["labels"]]
    assert sum(probabilities) == pytest.approx(1)
    assert probabilities == sorted(probabilities, reverse=True)
    assert answer["label"] == max(expected, key=lambda name: expected[name])
    total = sum(math.exp(score) for score in expected.values())
    assert probabilities[0] == pytest.approx(math.exp(max(expected.values())) / total, abs=1e-4)


def test_labels_between_commas_as_lines_and_repeated(server: Running, clips: list[Path]) -> None:
    for labels in ("rain, dog,,rain", "rain\ndog\n", ["rain", "dog"]):
        _, answer = server.send("/classify", clips[0], labels=labels)
        assert {row["label"] for row in answer["labels"]} == {"rain", "dog"}
    _, answer = server.send("/classify", clips[0], labels="rain, heavy\ndog")
    assert {row["label"] for row in answer["labels"]} == {"rain, heavy", "dog"}


def test_where_queries_listen(server: Running, clips: list[Path]) -> None:
    status, answer = server.send("/attention", clips[0], prompt="The pitch is")
    weights = np.array(answer["attention"])
    assert status == 200
    assert weights.shape[0] == 4
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-3)
    assert weights.shape[1] * answer["step_seconds"] == pytest.approx(answer["window_seconds"], rel=0.2)


def test_pictures(server: Running, clips: list[Path]) -> None:
    status, answer = server.send("/picture", clips[0])
    samples = soundfile.read(clips[0], dtype="float32")[0]
    lowest, highest = np.array(answer["waveform"]).T
    assert status == 200
    assert len(lowest) == 600
    assert (lowest.min(), highest.max()) == pytest.approx((samples.min(), samples.max()), abs=1e-3)
    head, _, data = answer["spectrogram"].partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data).startswith(b"\x89PNG")


def test_long_sounds_are_heard_in_windows(server: Running, mint: Mint, tmp_path: Path) -> None:
    times = np.arange(35 * 8000) / 8000
    soundfile.write(tmp_path / "long.flac", 0.3 * np.sin(2000 * times * (1 + times / 40)), 8000)
    assert server.send("/caption", tmp_path / "long.flac")[1]["caption"] == mint.caption(tmp_path / "long.flac")
    assert server.send("/picture", tmp_path / "long.flac")[1]["window_seconds"] == 30
    assert server.send("/attention", tmp_path / "long.flac")[0] == 200


def test_the_format_is_known_by_the_bytes(server: Running, mint: Mint, clips: list[Path]) -> None:
    samples = soundfile.read(clips[0], dtype="float32")[0]
    for form in ("FLAC", "OGG", "MP3", "AIFF"):
        file = io.BytesIO()
        soundfile.write(file, samples, RATE, format=form)
        status, answer = server.send("/caption", file.getvalue())
        assert status == 200, answer


def test_answers_do_not_depend_on_neighbours(server: Running, mint: Mint, clips: list[Path]) -> None:
    """Forty requests of five kinds at once, each compared with the same one alone."""
    captions = [mint.caption(clip) for clip in clips]
    answers = [mint.ask(clip, f"The pitch of {clip.stem} is", max_new_tokens=4 + len(clip.stem)) for clip in clips]
    scores = [mint.classify(clip, list(LABELS)) for clip in clips]
    before = server.counter("mint_batches_total", kind="text")

    calls: list[Any] = []
    for clip in clips:
        calls.append(lambda clip=clip: server.send("/caption", clip))
        calls.append(
            lambda clip=clip: server.send(
                "/ask", clip, prompt=f"The pitch of {clip.stem} is", max_tokens=4 + len(clip.stem)
            )
        )
        calls.append(lambda clip=clip: server.send("/classify", clip, labels=NAMES))
    calls += [lambda: server.json("/v1/embeddings", {"input": ["rain"]}) for _ in range(4)]
    results = together(calls)

    assert {status for status, _ in results} == {200}
    for index in range(len(clips)):
        caption, answer, ranked = (results[3 * index + kind][1] for kind in range(3))
        assert caption["caption"] == captions[index]
        assert answer["answer"] == answers[index]
        found = {row["label"]: row["score"] for row in ranked["labels"]}
        assert found == pytest.approx(scores[index], abs=1e-3)
    expected = mint.embed_text("rain").numpy()
    for _, embedded in results[-4:]:
        np.testing.assert_allclose(embedded["data"][0]["embedding"], expected, atol=1e-5)

    # They were asked together: far fewer batches than the 24 texts.
    assert server.counter("mint_batches_total", kind="text") - before <= 12


def test_one_bad_sound_does_not_take_its_neighbours_with_it(server: Running, mint: Mint, clips: list[Path]) -> None:
    sounds: list[Any] = [clips[0], b"RIFF....WAVE", clips[1], b"no sound at all", clips[2], b""]
    results = together([lambda sound=sound: server.send("/caption", sound) for sound in sounds])  # type: ignore[misc]
    assert [status for status, _ in results] == [200, 422, 200, 422, 200, 422]
    assert [results[index][1]["caption"] for index in (0, 2, 4)] == [mint.caption(clip) for clip in clips[:3]]


def test_search_needs_an_index(server: Running) -> None:
    status, answer = server.send("/search", None, query="rain")
    assert (status, answer["error"]["message"]) == (404, "this server has no index; start it with --index INDEX")


def test_what_the_server_can_do(server: Running) -> None:
    status, answer = server.request("GET", "/about")
    assert status == 200
    assert answer["model"] == "tiny"
    assert (answer["text"], answer["embeddings"], answer["search"]) == (True, True, False)
    assert server.request("GET", "/health") == (200, {"status": "ok"})


def test_counters(server: Running, clips: list[Path]) -> None:
    before = server.counter("mint_requests_total", path="/caption", status="200")
    server.send("/caption", clips[0])
    status, text = server.request("GET", "/metrics")
    assert status == 200
    assert f'mint_requests_total{{path="/caption",status="200"}} {before + 1:g}\n' in text
    assert "# TYPE mint_requests_open gauge\nmint_requests_open 0\n" in text
    for line in text.splitlines():
        assert line.startswith("# ") or float(line.rpartition(" ")[2]) >= 0
