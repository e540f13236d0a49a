"""Own tables as people save them, with columns of any name, read alike by `folder` and `csv`."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import pytest

from mint.cli import main
from mint.data.corpora.outputs import read_skipped
from mint.data.corpora.own.folder import read_source
from mint.data.corpora.own.rows import KNOWN, read_columns
from mint.data.corpora.own.table import read_own_table
from mint.data.corpora.public.prepare import prepare_table
from mint.data.manifests.manifest import read_manifest
from mint.types import Example, MintError
from tiny_corpora import tone, write

CAPTIONS = ["Un chien aboie très fort.", "“Zwei” Häuser", "it’s a dog"]


def clips(folder: Path, count: int = 12) -> list[tuple[str, str, str]]:
    """Recordings, and their rows: audio, label and caption."""
    rows = []
    for number in range(count):
        tone(folder / f"{number}.wav", number)
        rows.append((f"{number}.wav", ("chien", "chat")[number % 2], CAPTIONS[number % 3]))
    return rows


def prepare(corpus: str, source: Path, output: Path, *options: str) -> list[Example]:
    assert main(["data", "prepare", corpus, "--source", str(source), "--output", str(output), *options]) == 0
    return list(read_manifest(output / ("labels.jsonl" if corpus == "folder" else "csv.jsonl")))


@pytest.mark.parametrize("corpus", ["folder", "csv"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_each_encoding_and_delimiter(tmp_path: Path, corpus: str, delimiter: str, encoding: str) -> None:
    rows = clips(tmp_path)
    lines = [delimiter.join(row) for row in (("audio", "label", "caption"), *rows)]
    (tmp_path / "t.csv").write_text("\r\n".join(lines), encoding=encoding, newline="")
    examples = prepare(corpus, tmp_path / "t.csv", tmp_path / "out")
    assert [(one.id, one.answer, one.captions) for one in examples] == [
        (name, label, (caption,)) for name, label, caption in rows
    ]


@pytest.mark.parametrize("corpus", ["folder", "csv"])
def test_long_fields_and_line_breaks(tmp_path: Path, corpus: str) -> None:
    rows = [[name, f'"{label}\nnoir"', f'"One\r\ntwo {"x" * 140_000}"'] for name, label, _ in clips(tmp_path)]
    (tmp_path / "t.csv").write_text("\n".join(["audio,label,caption", *map(",".join, rows)]), newline="")
    examples = prepare(corpus, tmp_path / "t.csv", tmp_path / "out")
    assert {one.answer for one in examples} == {"chien noir", "chat noir"}
    assert {one.labels for one in examples} == {("chien noir",), ("chat noir",)}
    assert {one.captions for one in examples} == {(f"One two {'x' * 140_000}",)}


@pytest.mark.parametrize("corpus", ["folder", "csv"])
def test_rows_that_cannot_be_read_are_left_out(tmp_path: Path, corpus: str) -> None:
    """A comma without quotes, quotes that are not doubled, a missing label; empty fields at an end do no harm."""
    rows = [",".join(row) for row in clips(tmp_path)]
    bad = ["0.wav,chien,One, two", '0.wav,chien,"He said "no" loudly"', "0.wav"]
    lines = ["audio,label,caption", *rows[:4], *bad, *(f"{row},," for row in rows[4:])]
    write(tmp_path / "t.csv", *lines)
    examples = prepare(corpus, tmp_path / "t.csv", tmp_path / "out")
    assert [one.id for one in examples] == [f"{number}.wav" for number in range(12)]
    skipped = {one["audio"]: one["reason"] for one in read_skipped(tmp_path / "out" / "csv.jsonl")}
    skipped |= {one["audio"]: one["reason"] for one in read_skipped(tmp_path / "out" / "labels.jsonl")}
    assert list(skipped) == ["t.csv, line 6", "t.csv, line 7", "t.csv, line 8"]
    assert skipped["t.csv, line 6"].startswith("more fields than the header")
    assert skipped["t.csv, line 7"].startswith("text behind a closing quote")


@pytest.mark.parametrize("corpus", ["folder", "csv"])
def test_a_quote_that_is_never_closed(tmp_path: Path, corpus: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [",".join(row) for row in clips(tmp_path)]
    write(tmp_path / "t.csv", "audio,label,caption", *rows[:3], '3.wav,chien,"never closed', *rows[4:])
    command = ["data", "prepare", corpus, "--source", str(tmp_path / "t.csv"), "--output", str(tmp_path / "out")]
    assert main(command) == 2
    assert "t.csv, line 5: a quote opens there and is never closed" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("corpus", ["folder", "csv"])
@pytest.mark.parametrize("kind", ["parquet", "gzip", "zip", "pointer"])
def test_what_is_no_table_is_named(tmp_path: Path, corpus: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.csv"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("t.csv", "audio,label\n")
    else:
        text = b"audio,label\n"
        pointer = b"version https://git-lfs.github.com/spec/v1\n"
        path.write_bytes(
            {"parquet": b"PAR1\x15\x04" + bytes(99), "gzip": gzip.compress(text), "pointer": pointer}[kind]
        )
    assert main(["data", "prepare", corpus, "--source", str(path), "--output", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    name = {
        "parquet": "a Parquet file",
        "gzip": "a gzip archive",
        "zip": "a zip archive",
        "pointer": "a Git LFS pointer",
    }
    assert f"t.csv is no text but {name[kind]}" in line


@pytest.mark.parametrize("corpus", ["folder", "csv"])
@pytest.mark.parametrize("name", ["sounds.zip", "sounds.tar.gz", "sounds.7z"])
def test_an_archive_is_to_be_unpacked(
    tmp_path: Path, corpus: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    assert main(["data", "prepare", corpus, "--source", str(tmp_path / name), "--output", str(tmp_path / "out")]) == 2
    assert f"{name} is an archive; unpack it" in capsys.readouterr().err


@pytest.mark.parametrize("depth", [5_000, 100_000])
def test_json_that_is_nested_too_deeply_costs_its_line(tmp_path: Path, depth: int) -> None:
    rows = [json.dumps({"audio": name, "label": label}) for name, label, _ in clips(tmp_path)]
    deep = '{"audio": "0.wav", "label": "x", "more": ' + "[" * depth + "]" * depth + "}"
    write(tmp_path / "t.jsonl", *rows[:2], deep, "[1]", "{broken", *rows[2:])
    for manifest in (
        read_source(tmp_path / "t.jsonl", tmp_path / "a"),
        prepare_table(tmp_path / "t.jsonl", tmp_path / "b", seed=0),
    ):
        assert [one.id for one in read_manifest(manifest)] == [f"{number}.wav" for number in range(12)]
        skipped = [one["audio"] for one in read_skipped(manifest)]
        assert skipped == ["t.jsonl, line 3", "t.jsonl, line 4", "t.jsonl, line 5"]


@pytest.mark.parametrize("table", ["metadata.csv", "metadata.jsonl"])
@pytest.mark.parametrize("layout", ["one", "splits"])
@pytest.mark.parametrize("corpus", ["folder", "csv"])
def test_audiofolders(tmp_path: Path, corpus: str, layout: str, table: str) -> None:
    """One table above all recordings, or one in each folder of a split."""
    source = tmp_path / "mine"
    folders = {"one": {"": "data/"}, "splits": {"train": "", "validation": "", "test": ""}}[layout]
    number = 0
    for folder, above in folders.items():
        rows = []
        for _ in range(16):
            tone(source / folder / above / f"{number % 16}.wav", number)
            rows.append({"file_name": f"{above}{number % 16}.wav", "label": ("dog", "cat")[number % 2]})
            number += 1
        if table.endswith(".csv"):
            write(source / folder / table, "file_name,label", *(",".join(row.values()) for row in rows))
        else:
            write(source / folder / table, *map(json.dumps, rows))
    examples = prepare(corpus, source, tmp_path / "out")
    assert len(examples) == len({one.id for one in examples}) == number
    assert all(one.audio.is_file() for one in examples)
    assert {one.corpus for one in examples} == {"mine"}
    assert {one.answer for one in examples} == {"dog", "cat"}
    if layout == "splits":
        assert all(one.audio.parent.name == one.split for one in examples)
    else:
        assert {"train", "test"} <= {one.split for one in examples}


def test_an_audiofolder_of_captions_says_who_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{name},{caption}" for name, _, caption in clips(tmp_path / "mine" / "train")]
    write(tmp_path / "mine" / "train" / "metadata.csv", "file_name,text", *rows)
    command = ["--source", str(tmp_path / "mine"), "--output", str(tmp_path / "out")]
    assert main(["data", "prepare", "folder", *command]) == 2
    line = capsys.readouterr().err
    assert "no column 'label' (found: file_name, text)" in line
    assert "captions without labels are read by `mint data prepare csv`" in line
    examples = prepare("csv", tmp_path / "mine", tmp_path / "out", "--columns", "caption=text")
    assert {(one.task, one.split, one.answer) for one in examples} == {("captioning", "train", None)}
    assert [one.captions for one in examples] == [(caption,) for _, _, caption in clips(tmp_path)]


@pytest.mark.parametrize(
    ("table", "noted"),
    [("fold,licence\n1,cc\n", False), ("file_name,licence\ndog/0.wav,cc\n", True), ("PAR1", False)],
)
def test_folders_of_labels_with_a_table_that_says_something_else(tmp_path: Path, table: str, noted: bool) -> None:
    for number in range(6):
        tone(tmp_path / "mine" / ("dog", "cat")[number % 2] / f"{number}.wav", number)
    (tmp_path / "mine" / "metadata.csv").write_text(table)
    notes: list[str] = []
    examples = list(read_manifest(read_source(tmp_path / "mine", tmp_path / "out", note=notes.append)))
    assert [one.answer for one in examples] == ["cat"] * 3 + ["dog"] * 3
    assert [note.endswith("the names of the folders are taken for the labels") for note in notes] == [True] * noted


def test_columns_of_other_names(tmp_path: Path) -> None:
    rows = [",".join(row) for row in clips(tmp_path)]
    write(tmp_path / "t.csv", "clip,class,text", *rows)
    columns = "audio=clip, label=class,caption=text"
    for corpus in ("csv", "folder"):
        examples = prepare(corpus, tmp_path / "t.csv", tmp_path / corpus, "--columns", columns)
        assert [(one.id, one.answer, one.captions) for one in examples] == [
            (name, label, (caption,)) for name, label, caption in clips(tmp_path)
        ]
        assert all(one.metadata == {} for one in examples)


def test_the_start_of_urbansound_is_no_offset(tmp_path: Path) -> None:
    """Its `start` and `end` are times in the recording that the slice was cut from."""
    head = "slice_file_name,fsID,start,end,fold,classID,class"
    write(tmp_path / "t.csv", head, "100032-3-0-0.wav,100032,2.5,6.5,5,3,dog_bark", "9-8-0-0.wav,9,0.0,4.0,1,8,siren")
    tone(tmp_path / "100032-3-0-0.wav", 0)
    tone(tmp_path / "9-8-0-0.wav", 1)
    columns = {"audio": "slice_file_name", "label": "class"}
    notes: list[str] = []
    manifest = prepare_table(tmp_path / "t.csv", tmp_path / "out", 0, note=notes.append, columns=columns)
    dog, _ = read_manifest(manifest)
    assert (dog.id, dog.start, dog.duration, dog.answer) == ("100032-3-0-0.wav", 0.0, None, "dog_bark")
    assert dog.metadata == {"fsID": "100032", "start": "2.5", "end": "6.5", "fold": "5", "classID": "3"}
    assert len([note for note in notes if "say --columns start=start" in note]) == 1
    said = list(read_own_table(tmp_path / "t.csv", columns={**columns, "start": "start"}))
    assert [one.start for one in said] == [2.5, 0.0]
    assert [one.id for one in said] == ["100032-3-0-0.wav@2.5", "9-8-0-0.wav@0.0"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("audio", "'audio' is no pair; write it as audio=file_name,caption=text"),
        ("audio=", "'audio=' is no pair"),
        ("", "'' is no pair"),
        ("audio=x,", "'' is no pair"),
        ("lable=x", "'lable' is no column that means something; did you mean 'label'?"),
        ("xyz=x", "'xyz' is no column that means something; choose among audio, label"),
    ],
)
def test_columns_that_cannot_be(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MintError) as caught:
        read_columns(text)
    assert message in str(caught.value)
    write(tmp_path / "t.csv", "audio,label")
    command = ["data", "prepare", "csv", "--source", str(tmp_path / "t.csv"), "--output", str(tmp_path)]
    assert main([*command, "--columns", text]) == 2
    assert message in capsys.readouterr().err


def test_columns_are_for_own_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "prepare", "esc50", "--source", str(tmp_path), "--output", str(tmp_path)]
    assert main([*command, "--columns", "audio=x"]) == 2
    assert "corpus 'esc50' has columns of its own; leave out --columns" in capsys.readouterr().err
    assert read_columns("audio=a, caption_2 = b,group=c") == {"audio": "a", "caption_2": "b", "group": "c"}
    assert "audio" in KNOWN
    with pytest.raises(MintError, match=r"t\.csv, line 1: no column 'text' \(found: audio, label\)"):
        list(read_own_table(write(tmp_path / "t.csv", "audio,label", "a,b"), columns={"caption": "text"}))
