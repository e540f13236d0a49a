"""Manifests: what is written is read again; what is broken is named with its file and line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from mint.data.manifests.manifest import SPLITS, parse_line, read_manifest, write_manifest
from mint.types import Example, MintError

GOOD: dict[str, Any] = {"id": "1", "audio": "a/1.flac", "task": "notes", "split": "train", "corpus": "notes"}

texts = st.lists(st.text(max_size=5), max_size=3).map(tuple)
examples = st.builds(
    Example,
    id=st.text(min_size=1),
    audio=st.sampled_from([Path("/data/a/1.flac"), Path("/data/ü b.wav"), Path("/other/2.ogg")]),
    task=st.text(min_size=1),
    split=st.sampled_from(SPLITS),
    corpus=st.text(min_size=1),
    start=st.floats(0, 1e6),
    duration=st.none() | st.floats(1e-3, 1e6),
    prompt=st.none() | st.text(),
    answer=st.none() | st.text(),
    labels=texts,
    unknown=texts,
    captions=texts,
    metadata=st.dictionaries(st.text(), st.integers() | st.text()),
)


def line(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


@given(st.lists(examples, max_size=5))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, written: list[Example]) -> None:
    path = tmp_path_factory.mktemp("manifest") / "m.jsonl"
    write_manifest(path, written)
    read = list(read_manifest(path))
    assert [example.audio.resolve() for example in read] == [example.audio.resolve() for example in written]
    assert [{**vars(example), "audio": None} for example in read] == [
        {**vars(example), "audio": None} for example in written
    ]


def test_audio_is_relative_to_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("deep").mkdir()
    example = Example("1", Path("clips/1.flac"), "t", "test", "c")
    write_manifest("deep/m.jsonl", [example])
    assert json.loads(Path("deep/m.jsonl").read_text())["audio"] == "../clips/1.flac"
    (read,) = read_manifest("deep/m.jsonl")
    assert read.audio.is_absolute()
    assert read.audio.resolve() == tmp_path / "clips" / "1.flac"
    absolute = parse_line(line(audio="/elsewhere/1.flac"), tmp_path)
    assert absolute.audio == Path("/elsewhere/1.flac")


def test_only_what_says_something_is_written(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.jsonl", [Example("1", tmp_path / "1.flac", "t", "test", "c")])
    assert json.loads((tmp_path / "m.jsonl").read_text()) == {
        "id": "1",
        "audio": "1.flac",
        "task": "t",
        "split": "test",
        "corpus": "c",
    }


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text("before")

    def failing() -> Iterator[Example]:
        yield Example("1", tmp_path / "1.flac", "t", "test", "c")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_manifest(path, failing())
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_lines_are_streamed_and_blank_ones_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(line() + b"\n\n  \n" + line(id="2") + b"\r\n{broken\n")
    reader = read_manifest(path)
    assert next(reader).id == "1"
    assert next(reader).id == "2"
    with pytest.raises(MintError, match=r"m\.jsonl, line 5: not valid JSON"):
        next(reader)


def without(key: str) -> bytes:
    return json.dumps({name: value for name, value in GOOD.items() if name != key}).encode()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (b"{'id': 1}", r"not valid JSON \(.*, column 2\); write one object a line"),
        (b'{"id": "\xff"}', r"not valid UTF-8 \(byte 8\); save the file as UTF-8"),
        (b"[1]", "list in place of an object; write one object a line"),
        *[(without(key), f"key '{key}' is missing; every line needs audio, corpus, id, split, task") for key in GOOD],
        (line(caption="A dog."), "unknown key 'caption'; did you mean 'captions'"),
        (line(xyzzy=1), "unknown key 'xyzzy'; put further facts under 'metadata'"),
        (line(id=1), "id is 1; it must be text, not empty"),
        (line(id=""), "id is ''; it must be text, not empty"),
        (line(audio=None), "audio is None; it must be the path of a file"),
        (line(split="dev"), "split is 'dev'; it must be one of train, validation, test, unseen"),
        (line(split=[]), r"split is \[\]; it must be one of"),
        (line(start=-1), "start is -1; it must be seconds, 0 or more"),
        (line(start=True), "start is True; it must be seconds"),
        (line(start="1"), "start is '1'; it must be seconds"),
        (line(start=float("nan")), "start is nan; it must be seconds"),
        (line(duration=0), "duration is 0; it must be seconds, above 0, or absent"),
        (line(duration=float("inf")), "duration is inf"),
        (line(answer=3), "answer is 3; it must be text, or absent"),
        (line(labels="dog"), "labels is 'dog'; it must be a list of texts"),
        (line(unknown="cat"), "unknown is 'cat'; it must be a list of texts"),
        (line(labels=["dog", 1]), r"labels is \['dog', 1\]; it must be a list of texts"),
        (line(captions={}), "captions is {}; it must be a list of texts"),
        (line(start=10**30), "start is 10+; it must be seconds, 0 or more"),
        (b'{"start": ' + b"1" * 5000 + b"}", r"(start is|not valid JSON \()"),
        (b"[" * 100_000 + b"]" * 100_000, "JSON that is nested too deeply; write one flat object a line"),
        (b'{"metadata": ' * 5000 + b"1" + b"}" * 5000, "JSON that is nested too deeply"),
        (line(caption="x" * 9000), "unknown key 'caption'"),
        (line(answer=["x" * 9000]), r"answer is \['x+\.\.\. \(9,004 characters\); it must be text"),
        *[
            (line(**{key: "\ud83d"}), rf"{key} is '\\ud83d', which holds half a character .*; write it again")
            for key in ("task", "prompt", "answer", "corpus")
        ],
        *[
            (line(**{key: ["dog", "\udc36 cat"]}), rf"{key} is .*, which holds half a character")
            for key in ("labels", "unknown", "captions")
        ],
        (line(metadata=[]), r"metadata is \[\]; it must be an object"),
    ],
)
def test_broken_lines(tmp_path: Path, broken: bytes, message: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(line() + b"\n" + broken + b"\n")
    with pytest.raises(MintError, match=rf"m\.jsonl, line 2: {message}") as caught:
        list(read_manifest(path))
    assert "\n" not in str(caught.value)


def test_whole_emojis_are_text(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_bytes(line(answer="\U0001f436", captions=["\U0001f436 barks"]))
    (read,) = read_manifest(tmp_path / "m.jsonl")
    assert (read.answer, read.captions) == ("\U0001f436", ("\U0001f436 barks",))


def test_a_folder_names_a_manifest_in_it(tmp_path: Path) -> None:
    with pytest.raises(MintError, match=r" is a folder; make one with `mint data prepare`$"):
        next(read_manifest(tmp_path))
    (tmp_path / "b.jsonl").touch()
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(MintError, match=r" is a folder; give a manifest in it, such as .*a\.jsonl$"):
        next(read_manifest(tmp_path))


def test_file_names_of_any_bytes(tmp_path: Path) -> None:
    audio = Path(os.fsdecode(b"/data/\xff.wav"))
    write_manifest(tmp_path / "m.jsonl", [Example("1", audio, "t", "test", "c")])
    (read,) = read_manifest(tmp_path / "m.jsonl")
    assert os.path.normpath(read.audio) == str(audio)


def without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in row.items() if value is not None}
    return {key: without_nulls(value) if isinstance(value, dict) else value for key, value in kept.items()}


def test_parquet(tmp_path: Path) -> None:
    rows = [
        {**GOOD, "labels": ["a", "b"], "metadata": {"pitch": 60, "licence": None}, "start": 1.5, "captions": None},
        {**GOOD, "id": "2", "captions": ["c"], "metadata": {"licence": "CC0"}},
        {**GOOD, "id": "3", "split": "dev"},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "m.parquet")
    reader = read_manifest(tmp_path / "m.parquet")
    expected = [without_nulls(row) for row in rows]
    assert [next(reader), next(reader)] == [parse_line(json.dumps(row).encode(), tmp_path) for row in expected[:2]]
    with pytest.raises(MintError, match=r"m\.parquet, line 3: split is 'dev'"):
        next(reader)
    as_text = {**rows[0], "metadata": json.dumps(expected[0]["metadata"])}
    parquet.write_table(pyarrow.Table.from_pylist([as_text]), tmp_path / "m.parquet")
    assert list(read_manifest(tmp_path / "m.parquet")) == [parse_line(json.dumps(expected[0]).encode(), tmp_path)]


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        MintError, match=r"m\.parquet: Parquet needs pyarrow; `pip install mint-audio\[parquet\]`, or give JSON Lines"
    ):
        list(read_manifest(tmp_path / "m.parquet"))


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.jsonl")
    with pytest.raises(MintError, match=r"m\.jsonl: no such manifest"):
        next(read_manifest(tmp_path / "m.jsonl"))


def test_missing_manifest_and_folder(tmp_path: Path) -> None:
    with pytest.raises(MintError, match=r"m\.jsonl: no such manifest; make one with `mint data prepare`"):
        list(read_manifest(tmp_path / "m.jsonl"))
    with pytest.raises(MintError, match=r"nowhere: no such folder; create it before writing m\.jsonl"):
        write_manifest(tmp_path / "nowhere" / "m.jsonl", [])
