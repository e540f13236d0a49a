"""An index of files by a tiny run: the exact ranking, updates in place, kills, long recordings, the commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mint import Mint
from mint.cli import main
from mint.index import Index
from mint.index import writer as writing
from mint.types import MintError
from tiny_index import assert_exact, counts, paths_of, write_sound
from tiny_runs import RATE


def test_the_index_ranks_as_the_exact_pass(mint: Mint, clips: Path, tmp_path: Path) -> None:
    updated = mint.index(clips, tmp_path / "index")
    assert counts(updated) == (12, 0, 0, 0, 0)
    assert_exact(mint, updated.index, clips)
    assert_exact(mint, mint.open_index(tmp_path / "index"), clips)
    assert [hit.end for hit in updated.index.search(mint.embed_text("a tone"))] == pytest.approx([0.4] * 10)


def test_an_update_reads_what_is_new_or_changed_alone(
    mint: Mint, clips: Path, tmp_path: Path, encoded: list[int]
) -> None:
    mint.index(clips, tmp_path / "index")
    assert len(encoded) == 12

    encoded.clear()
    write_sound(clips / "new.wav", 100)
    write_sound(clips / "01.wav", 101)  # of the same size, in the same second
    write_sound(clips / "02.wav", 102, seconds=0.5)
    os.utime(clips / "04.wav")  # touched
    (clips / "more" / "00.wav").unlink()
    updated = mint.index(clips, tmp_path / "index")
    assert counts(updated) == (1, 2, 1, 9, 0)
    assert len(encoded) == 3
    assert_exact(mint, updated.index, clips)

    encoded.clear()
    old = 1_600_000_000
    for path in clips.rglob("*.wav"):
        os.utime(path, (old, old))
    assert counts(mint.index(clips, tmp_path / "index")) == (0, 0, 0, 12, 0)
    assert encoded == []


def test_unchanged_files_are_not_read(mint: Mint, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, path in enumerate(sorted(clips.rglob("*.wav"))):
        os.utime(path, (1_600_000_000 + number,) * 2)
    mint.index(clips, tmp_path / "index")
    for path in clips.rglob("*.wav"):
        state = path.stat()
        path.write_bytes(bytes(state.st_size))
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert counts(mint.index(clips, tmp_path / "index")) == (0, 0, 0, 12, 0)


def test_sources_are_remembered_and_others_stay(mint: Mint, clips: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_sound(other / "a.wav", 50)
    write_sound(other / "b.wav", 51)
    mint.index(clips, tmp_path / "index")
    assert counts(mint.index(other, tmp_path / "index")) == (2, 0, 0, 0, 0)

    (other / "b.wav").unlink()
    shutil.rmtree(clips / "more")
    assert counts(mint.index(other, tmp_path / "index")) == (0, 0, 1, 1, 0)
    updated = mint.index([], tmp_path / "index")
    assert counts(updated) == (0, 0, 4, 9, 0)
    assert paths_of(updated.index) == sorted(map(str, [*clips.glob("*.wav"), other / "a.wav"]))

    # An unmounted disk looks like an empty folder.
    (other / "a.wav").unlink()
    with pytest.raises(MintError, match="no audio files below"):
        mint.index(other, tmp_path / "index")
    assert len(Index.open(tmp_path / "index")) == 9


def test_manifests_and_parts_of_files(mint: Mint, clips: Path, tmp_path: Path) -> None:
    lines = []
    for number, (name, start, duration) in enumerate(
        [("01.wav", 0.0, None), ("01.wav", 0.1, 0.2), ("01.wav", 0.1, 0.2), ("more/../02.wav", 0.0, None)]
    ):
        line = {"id": str(number), "audio": f"clips/{name}", "task": "t", "split": "train", "corpus": "c"}
        part = {"start": start} if start else {}
        lines.append({**line, **part, **({} if duration is None else {"duration": duration})})
    manifest = tmp_path / "list.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")

    updated = mint.index([manifest, clips / "04.wav"], tmp_path / "index")
    assert counts(updated) == (4, 0, 0, 0, 0)
    assert {(Path(one.path).name, one.start, one.duration) for one in updated.index.entries()} == {
        ("01.wav", 0.0, None),
        ("01.wav", 0.1, 0.2),
        ("02.wav", 0.0, None),
        ("04.wav", 0.0, None),
    }
    samples, _ = soundfile.read(clips / "01.wav", dtype="float32")
    part = samples[round(0.1 * RATE) : round(0.3 * RATE)]
    hit = updated.index.like(mint.embed_audio((part, RATE)), 1)[0]
    assert (Path(hit.path).name, hit.start) == ("01.wav", 0.1)
    assert hit.end == pytest.approx(0.3)
    assert hit.score == pytest.approx(1.0, abs=1e-6)

    manifest.write_text(json.dumps(lines[1]), encoding="utf-8")
    assert counts(mint.index(manifest, tmp_path / "index")) == (0, 0, 2, 1, 0)


def test_bad_files_are_skipped_and_tried_again(mint: Mint, clips: Path, tmp_path: Path) -> None:
    good = (clips / "01.wav").read_bytes()
    (clips / "01.wav").write_bytes(b"no sound")
    updated = mint.index(clips, tmp_path / "index")
    assert counts(updated) == (11, 0, 0, 0, 1)
    assert updated.skipped[0].audio == str(clips / "01.wav")
    assert "01.wav" in updated.skipped[0].reason

    (clips / "01.wav").write_bytes(good)
    (clips / "02.wav").write_bytes(b"no sound any more")
    updated = mint.index(clips, tmp_path / "index")
    assert counts(updated) == (1, 0, 0, 10, 1)
    assert str(clips / "02.wav") not in paths_of(updated.index)


def test_where_in_a_long_recording(mint: Mint, tmp_path: Path, encoded: list[int]) -> None:
    """Of 40 windows of 1 s each, all are heard, and the right one is found."""
    generator = np.random.default_rng(0)
    samples = (0.1 * generator.standard_normal(40 * RATE)).astype("f4")
    times = np.arange(RATE) / RATE
    samples[23 * RATE : 24 * RATE] = 0.5 * np.sin(2 * np.pi * 3520 * times)
    soundfile.write(tmp_path / "long.flac", samples, RATE)
    write_sound(tmp_path / "short.wav", 0)

    index = mint.index([tmp_path / "long.flac", tmp_path / "short.wav"], tmp_path / "index", every=1.0).index
    assert encoded == [RATE] * 40 + [round(0.4 * RATE)]
    assert index.num_windows == 41
    best = index.like(mint.embed_audio((samples[23 * RATE : 24 * RATE], RATE)))[0]
    assert (Path(best.path).name, best.start, best.end) == ("long.flac", 23.0, 24.0)
    assert best.score == pytest.approx(1.0, abs=1e-3)

    # Each window is what a clip of it alone would be.
    text = mint.embed_text("a high tone")
    read, _ = soundfile.read(tmp_path / "long.flac", dtype="float32")
    windows = [(read[number * RATE : (number + 1) * RATE], RATE) for number in range(40)]
    [(best_window, score), *_] = mint.search("a high tone", windows)
    hit = next(hit for hit in index.search(text) if hit.path.endswith("long.flac"))
    assert hit.start == best_window
    assert hit.score == pytest.approx(score, abs=1e-5)

    with pytest.raises(MintError, match="has windows of 1 s, not of 2 s"):
        mint.index([], tmp_path / "index", every=2.0)
    with pytest.raises(MintError, match="more than 0 and at most 30"):
        mint.index([tmp_path / "long.flac"], tmp_path / "other", every=31.0)
    assert not (tmp_path / "other").exists()


KILLED = """
import os, sys
from mint import Mint
from mint.index import writer

writer.SECONDS_AT_ONCE = -1.0  # each clip is written at once
added = []
add = writer.IndexWriter.add

def kill(*arguments):
    add(*arguments)
    added.append(arguments)
    if len(added) == 5:
        os.kill(os.getpid(), 9)

writer.IndexWriter.add = kill
Mint.from_pretrained(sys.argv[1], "cpu").index(sys.argv[2], sys.argv[3])
"""


def test_a_killed_update_is_continued(
    mint: Mint, run: Path, clips: Path, tmp_path: Path, encoded: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "index"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(run), str(clips), str(index)], capture_output=True)
    assert killed.returncode == -9, killed.stderr.decode()
    assert len(Index.open(index)) == 5

    assert main(["search", str(index), "a tone", "--top", "100"]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 5
    assert "index is not finished; `mint index RUN --output" in captured.err

    encoded.clear()
    updated = mint.index(clips, index)
    assert counts(updated) == (7, 0, 0, 5, 0)
    assert len(encoded) == 7
    assert_exact(mint, updated.index, clips)
    assert updated.index.contents.finished


def test_two_updates_at_once(mint: Mint, clips: Path, tmp_path: Path) -> None:
    index = mint.index(clips, tmp_path / "index").index
    with index.writing(), pytest.raises(MintError, match="is being written by another process"):
        mint.index(clips, tmp_path / "index")


def test_vectors_are_written_while_an_update_runs(
    mint: Mint, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "SECONDS_AT_ONCE", -1.0)
    monkeypatch.setattr("mint.index.update.WINDOWS_AT_ONCE", 4)
    lengths: list[int] = []

    def watch(jobs: Any, count: int) -> Iterator[Any]:
        assert count == 12
        for job in jobs:
            lengths.append(len(Index.open(tmp_path / "index")))
            yield job

    mint.index(clips, tmp_path / "index", progress=watch)
    assert lengths == sorted(lengths)
    assert 0 < lengths[-1] < 12
