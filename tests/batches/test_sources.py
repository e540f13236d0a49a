"""Which clips an argument names."""

from __future__ import annotations

from pathlib import Path

import pytest

from mint.batches.sources import ClipKey, gather, key_of, key_of_row, row_of
from mint.data.manifests.manifest import write_manifest
from mint.types import Example, MintError


def example(path: Path, id_: str, **values: float) -> Example:
    return Example(id_, path, "tones", "test", "tones", **values)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("set/b.wav", "set/deep/a.FLAC", "set/.hidden.wav", "set/notes.md", "other/c d.mp3"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_files_folders_lists_and_manifests(folder: Path) -> None:
    (folder / "set" / "list.txt").write_text("b.wav\r\n\n../other/c d.mp3\n/away/x.wav\n", encoding="utf-8-sig")
    parts = [
        example(folder / "set" / "b.wav", "one", start=1.0, duration=2.0),
        example(folder / "set" / "b.wav", "two"),
    ]
    write_manifest(folder / "clips.jsonl", parts)

    assert gather(["missing.wav", "set"]) == ["missing.wav", "set/b.wav", "set/deep/a.FLAC"]
    assert gather(["set/list.txt"]) == ["set/b.wav", "set/../other/c d.mp3", "/away/x.wav"]
    assert gather(["clips.jsonl"]) == parts
    assert gather(["set/b.wav", "set", "set/b.wav"]) == ["set/b.wav", "set/deep/a.FLAC"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", "there are no audio files in 'empty'"),
        ("empty.txt", "there are no audio files in 'empty.txt'"),
        ("empty.jsonl", "there are no audio files in 'empty.jsonl'"),
        ("bad.jsonl", "bad.jsonl, line 1: not valid JSON"),
        ("gone.jsonl", "gone.jsonl: no such manifest"),
    ],
)
def test_what_names_no_clip(folder: Path, name: str, message: str) -> None:
    (folder / "empty").mkdir()
    (folder / "empty.txt").write_text("\n \n")
    (folder / "empty.jsonl").touch()
    (folder / "bad.jsonl").write_text("{\n")
    with pytest.raises(MintError, match=message):
        gather([name])


def test_rows_name_their_clips(folder: Path) -> None:
    whole, part = "set/b.wav", example(folder / "set" / "b.wav", "one", start=1.0, duration=2.0)
    assert row_of(whole, False) == {"audio": "set/b.wav"}
    assert row_of(part, True) == {"id": "one", "audio": str(part.audio), "start": 1.0, "duration": 2.0}
    keys = [
        key_of_row(row_of(source, with_parts)) for source, with_parts in ((whole, False), (whole, True), (part, True))
    ]
    assert keys == [ClipKey(whole), ClipKey(whole), key_of(part)]
