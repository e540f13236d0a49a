"""Jobs: one file of results, whatever stops them on the way, and nothing of another job mixed into it."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from mint.batches import job as job_module
from mint.batches.job import Job
from mint.batches.ranks import joined_ranks
from mint.data.features.stream import Source
from mint.files import write_json
from mint.inference import Answer
from mint.types import Example, MintError
from tiny_ranks import run_ranks

CLIPS = [f"folder/{number:02}.wav" for number in range(20)]
CLIPS[7] = CLIPS[7].replace("07", "bad")
GOOD = [clip for clip in CLIPS if "bad" not in clip]
DESCRIPTION = {"verb": "caption", "run": {"stage2": "ab"}, "labels": ["dog", "rain"], "top": None}


def say(path: Source) -> str:
    return f'The sound, "of"\n{Path(str(path)).stem} – ünïcode'


def embed(path: Source) -> np.ndarray:
    return np.random.default_rng(len(str(path)) + int(Path(str(path)).stem)).standard_normal((2, 3)).astype(np.float32)


class Model:
    """Answers by name, notes what it was asked, and may be interrupted."""

    def __init__(self, stop_after: int | None = None, say: Callable[[Source], Any] = say) -> None:
        self.asked: list[Source] = []
        self.stop_after = stop_after
        self.say = say

    def __call__(self, clips: Iterable[Source]) -> Iterator[Answer[Any]]:
        for clip in clips:
            if len(self.asked) == self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(clip)
            if "bad" in str(clip):
                yield Answer(clip, None, MintError(f"{clip}: not audio"))
            else:
                yield Answer(clip, self.say(clip))


def run(output: Path, model: Model, clips: Sequence[Source] = CLIPS, **changes: Any) -> tuple[int, int]:
    outcome = Job(output, DESCRIPTION | changes).run(clips, model, lambda value: {"caption": value})
    assert outcome.is_first_rank
    return outcome.done, outcome.failed


def rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        return parquet.read_table(path).to_pylist()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


EXPECTED = [{"audio": clip, "caption": say(clip)} for clip in GOOD]
FORMATS = pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])


@FORMATS
def test_the_file_holds_every_answer_and_the_errors_lie_beside(tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"out{suffix}"
    assert run(output, Model()) == (19, 1)
    assert rows(output) == EXPECTED
    assert rows(tmp_path / f"out{suffix}.errors.jsonl") == [
        {"audio": "folder/bad.wav", "error": "folder/bad.wav: not audio"}
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"out{suffix}",
        f"out{suffix}.errors.jsonl",
        f"out{suffix}.job.json",
    ]


@FORMATS
@pytest.mark.parametrize("half", [b"", b'{"audio": "folder/0', b'{"audio": "folder/19.wav", "caption": "x"}'])
def test_the_same_command_goes_on_after_a_kill(tmp_path: Path, suffix: str, half: bytes) -> None:
    output, whole = tmp_path / f"out{suffix}", tmp_path / f"whole{suffix}"
    run(whole, Model())
    log = output if suffix == ".jsonl" else tmp_path / f"out{suffix}.part-0.jsonl"
    for stop_after in (5, 0, 6):
        with pytest.raises(KeyboardInterrupt):
            run(output, Model(stop_after))
        with log.open("ab") as file:
            file.write(half)  # what a writer leaves that was killed in the middle of a line

    model = Model()
    assert run(output, model) == (19, 1)
    assert model.asked == ["folder/bad.wav", *CLIPS[11:]]  # bad ones are tried again
    assert output.read_bytes() == whole.read_bytes()
    assert not log.exists() or log == output


@FORMATS
def test_a_kill_between_the_file_and_its_record(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / f"out{suffix}"

    def die(path: Path, value: Any) -> None:
        if "finished" in value:
            raise KeyboardInterrupt
        write_json(path, value)

    monkeypatch.setattr(job_module, "write_json", die)
    with pytest.raises(KeyboardInterrupt):
        run(output, Model())
    monkeypatch.undo()
    model = Model()
    assert run(output, model) == (19, 1)
    assert model.asked == ["folder/bad.wav"]
    assert rows(output) == EXPECTED


def test_json_lines_can_be_read_while_they_come(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"

    def answers(clips: Iterable[Source]) -> Iterator[Answer[Any]]:
        for index, clip in enumerate(clips):
            assert len(output.read_bytes().splitlines()) == index
            yield Answer(clip, "text")

    Job(output, DESCRIPTION).run(GOOD, answers, lambda value: {"caption": value})
    assert len(rows(output)) == 19


def test_a_finished_job_is_not_done_again(tmp_path: Path) -> None:
    for suffix in (".jsonl", ".csv"):
        output, model = tmp_path / f"out{suffix}", Model()
        run(output, Model(), GOOD)
        before = output.read_bytes()
        assert run(output, model, GOOD) == (19, 0)
        assert (model.asked, output.read_bytes()) == ([], before)

    # To JSON Lines new clips are appended; a table is whole.
    assert run(tmp_path / "out.jsonl", Model(), [*GOOD, "new.wav"]) == (20, 0)
    assert rows(tmp_path / "out.jsonl") == [*EXPECTED, {"audio": "new.wav", "caption": say("new.wav")}]
    with pytest.raises(MintError, match=r"out.csv holds the results of other clips; give another --output, or remove"):
        run(tmp_path / "out.csv", Model(), [*GOOD, "new.wav"])
    (tmp_path / "out.csv").unlink()
    assert run(tmp_path / "out.csv", Model(), ["new.wav"], top=5) == (1, 0)


@FORMATS
def test_results_of_another_command_are_refused(tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"out{suffix}"
    with pytest.raises(KeyboardInterrupt):
        run(output, Model(5))
    left = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for changes, message in (
        ({"top": 3}, r"holds results of another command \(top was None, and is now 3\); give another --output, or rem"),
        ({"labels": ["dog"]}, r"labels was \['dog', 'rain'\], and is now \['dog'\]"),
        ({"run": {"stage2": "cd"}}, "run was"),
    ):
        with pytest.raises(MintError, match=message):
            run(output, Model(), **changes)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == left


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    for name in ("out.jsonl", "out.csv"):
        (tmp_path / name).write_text("mine\n")
        with pytest.raises(MintError, match="is there already, and no job has written it"):
            run(tmp_path / name, Model())
        assert (tmp_path / name).read_text() == "mine\n"

    run(tmp_path / "broken.jsonl", Model())
    with (tmp_path / "broken.jsonl").open("a") as file:
        file.write("mine\n")
    with pytest.raises(MintError, match=r"broken.jsonl, line 20: no row of results; remove this line"):
        run(tmp_path / "broken.jsonl", Model())


def test_two_commands_at_once(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"

    def answers(clips: Iterable[Source]) -> Iterator[Answer[Any]]:
        with pytest.raises(MintError, match="is being written by another process"):
            run(output, Model())
        return Model()(clips)

    Job(output, DESCRIPTION).run(CLIPS, answers, lambda value: {"caption": value})
    assert rows(output) == EXPECTED


def test_embeddings_come_back_bit_by_bit(tmp_path: Path) -> None:
    clips: list[Source] = [*GOOD, Example("id", Path("/x/99.wav"), "t", "test", "c", 1.5)]
    names = [99 if isinstance(clip, Example) else int(Path(str(clip)).stem) for clip in clips]

    def vector(clip: Source) -> np.ndarray:
        return embed("/x/99.wav" if isinstance(clip, Example) else clip)

    expected = np.stack([vector(clip) for clip in clips])
    for suffix in (".jsonl", ".parquet", ".safetensors"):
        output = tmp_path / f"out{suffix}"
        job = Job(output, DESCRIPTION)
        job.run(clips, Model(say=vector), lambda value: {"embedding": value})
        table = rows(output) if suffix != ".safetensors" else rows(tmp_path / "out.rows.jsonl")
        assert [int(Path(row["audio"]).stem) for row in table] == names
        assert table[-1]["start"] == 1.5
        if suffix == ".safetensors":
            found = load_file(output)["embeddings"]
        else:
            found = np.array([row["embedding"] for row in table], np.float32)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".safetensors"])
def test_where_no_clip_can_be_used(tmp_path: Path, suffix: str) -> None:
    assert run(tmp_path / f"out{suffix}", Model(), ["bad.wav"]) == (0, 1)
    assert (tmp_path / f"out{suffix}").exists()
    assert run(tmp_path / f"out{suffix}", Model(), ["bad.wav"]) == (0, 1)


def test_names_of_any_bytes(tmp_path: Path) -> None:
    clips = [os.fsdecode(b"caf\xe9.wav"), 'a,"b"\n.wav']
    for suffix in (".jsonl", ".csv", ".parquet"):
        assert run(tmp_path / f"out{suffix}", Model(say=lambda _: "text"), clips) == (2, 0)
        first, second = (row["audio"] for row in rows(tmp_path / f"out{suffix}"))
        assert second == clips[1]
        assert first == (clips[0] if suffix == ".jsonl" else "caf\\udce9.wav")


def slow_job(output: Path) -> None:
    """A job that takes its time, in a process of its own."""

    def answers(clips: Iterable[Source]) -> Iterator[Answer[Any]]:
        for answer in Model()(clips):
            time.sleep(0.05)
            yield answer

    Job(output, DESCRIPTION).run(CLIPS, answers, lambda value: {"caption": value})


def test_a_killed_process_loses_nothing_that_was_written(tmp_path: Path) -> None:
    output, log = tmp_path / "out.csv", tmp_path / "out.csv.part-0.jsonl"
    process = multiprocessing.get_context("spawn").Process(target=slow_job, args=(output,))
    process.start()
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_bytes().count(b"\n") >= 3) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()

    done = log.read_bytes().count(b"\n")
    assert 3 <= done < 19
    model = Model()
    assert run(output, model) == (19, 1)
    assert len(model.asked) == 20 - done
    assert rows(output) == EXPECTED


def job_of_rank(rank: int, folder: Path) -> None:
    model = Model()
    with joined_ranks() as ranks:
        assert ranks.rank == rank
    outcome = Job(folder / "out.csv", DESCRIPTION).run(CLIPS, model, lambda value: {"caption": value})
    assert (outcome.done, outcome.failed, outcome.is_first_rank) == (19, 1, rank == 0)
    (folder / f"asked{rank}.json").write_text(json.dumps(model.asked))


def test_two_ranks_share_the_work_and_go_on_where_one_process_stopped(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out.csv", Model(5))
    run_ranks(job_of_rank, tmp_path, 2)
    asked = [json.loads((tmp_path / f"asked{rank}.json").read_text()) for rank in (0, 1)]
    assert sorted(asked[0] + asked[1]) == sorted(CLIPS[5:])
    assert min(map(len, asked)) >= 7
    assert rows(tmp_path / "out.csv") == EXPECTED
    assert not list(tmp_path.glob("*.part-*"))
