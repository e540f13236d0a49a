"""Text, CSV and JSON as people save them: encodings, delimiters, quotes, and files that are something else."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mint.text_files import csv_lines, csv_records, decode, delimiter_of, one_line, read_json, read_text, text_lines
from mint.types import MintError

LINES = ["Un chien aboie très fort.\n", "“Zwei” Häuser\r\n", "\n", "third\r", "\r", "it’s the last, without an end"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_lines_are_the_same_in_each_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes("".join(LINES).encode(encoding))
    assert list(text_lines(path)) == LINES
    assert read_text(path) == "".join(LINES)


@pytest.mark.parametrize(("encoding", "mark"), [("utf-16-be", b"\xfe\xff"), ("utf-32-be", b"\0\0\xfe\xff")])
def test_the_other_order_of_bytes(tmp_path: Path, encoding: str, mark: bytes) -> None:
    (tmp_path / "t.txt").write_bytes(mark + "".join(LINES).encode(encoding))
    assert list(text_lines(tmp_path / "t.txt")) == LINES


def test_each_line_has_its_own_encoding(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes("Zürich\n".encode() + "Zürich\n".encode("cp1252") + b"C1 \x81\xe5\n")
    assert list(text_lines(tmp_path / "t.txt")) == ["Zürich\n", "Zürich\n", "C1 \x81å\n"]
    assert decode(b"it\x92s") == "it’s"


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(b"")
    assert list(text_lines(tmp_path / "t.txt")) == []
    (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbf")
    assert list(text_lines(tmp_path / "t.txt")) == []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_text_that_is_cut_within_a_character_is_refused(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.txt").write_bytes("audio,label\n".encode(encoding)[:-1])
    with pytest.raises(MintError, match=rf"t\.txt: not valid {encoding.upper()}, .*save it as UTF-8"):
        list(text_lines(tmp_path / "t.txt"))


def zip_of(text: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("t.csv", text)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PAR1" + bytes(100), "a Parquet file; a manifest in Parquet is used as it is"),
        (gzip.compress(b"audio,label\n", mtime=0), "a gzip archive; unpack it"),
        (zip_of("audio,label\n"), "a zip archive or a spreadsheet"),
        (b"BZh91AY&SY", "a bzip2 archive"),
        (b"\xfd7zXZ\x00\x00\x04", "an xz archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old spreadsheet"),
        (b"SQLite format 3\x00", "a database"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer; fetch the file"),
        (b"a\0u\0d\0i\0o\0", r"it holds null bytes"),
    ],
)
def test_what_is_no_text_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    for read in (read_text, lambda path: list(csv_lines(path)), read_json):
        with pytest.raises(MintError, match=rf"t\.csv is no text .*{message}") as caught:
            read(path)
        assert "\n" not in str(caught.value)


TEXTS = st.text(st.sampled_from("ab ,;\t\"'\r\n."), max_size=8)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(TEXTS, min_size=1, max_size=4), max_size=5), st.sampled_from(",;\t"))
def test_what_the_csv_module_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], delimiter: str
) -> None:
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
    assert [row for _, row in csv_lines(path, delimiter)] == [row for row in rows if any(row)]


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_rows_have_the_number_of_their_first_line(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,b", '"1', '2","x ""y"""', "", f"3,{'long' * 50_000}", ",", "4,5")
    assert list(csv_lines(path)) == [
        (1, ["a", "b"]),
        (2, ["1\n2", 'x "y"']),
        (5, ["3", "long" * 50_000]),
        (7, ["4", "5"]),
    ]


@pytest.mark.parametrize(
    ("lines", "opens"),
    [
        (("a,b", '1,"never closed', "2,x", "3,y"), 2),
        (("a,b", '1,"never closed', "2,x", '3,"closed"', "4,z"), 2),
        (("a,b", '1,"over', 'two lines"', "2,x", '3,"never, closed', "4,z"), 5),
        (("a,b", '"over', 'two ""lines""","never', "closed", "2,x"), 3),
        (("a,b", "1,x", '2,"the last one'), 3),
        (('"a,b', "1,x"), 1),
    ],
)
def test_a_quote_that_is_never_closed_is_an_error_where_it_opens(
    tmp_path: Path, lines: tuple[str, ...], opens: int
) -> None:
    path = write(tmp_path / "t.csv", *lines)
    for broken in (None, lambda line, fault: None):
        with pytest.raises(MintError, match=rf"t\.csv, line {opens}: a quote opens there and is never closed"):
            list(csv_lines(path, broken=broken))


def test_a_sloppy_row_costs_that_row(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,b", '1,"He said "hello" loudly"', "2,x", '3,"y" z', '4,5" nail')
    faults: list[int] = []
    rows = list(csv_lines(path, broken=lambda line, fault: faults.append(line)))
    assert rows == [(1, ["a", "b"]), (3, ["2", "x"]), (5, ["4", '5" nail'])]
    assert faults == [2, 4]
    with pytest.raises(MintError, match=r"t\.csv, line 2: text behind a closing quote; double each quote"):
        list(csv_lines(path))


def test_records(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.csv", "", " audio ,caption", "a.wav,One, two", "b.wav", 'c.wav,"x" y', "d.wav,z,,", "e.wav,w"
    )
    skipped: dict[int, str] = {}
    records = list(csv_records(path, ["audio"], skipped.__setitem__))
    assert records == [
        (4, {"audio": "b.wav"}),
        (6, {"audio": "d.wav", "caption": "z"}),
        (7, {"audio": "e.wav", "caption": "w"}),
    ]
    assert list(skipped) == [3, 5]
    assert skipped[3].startswith("more fields than the header")
    with pytest.raises(MintError, match=r"t\.csv, line 2: no column 'label' \(found: audio, caption\); add it"):
        list(csv_records(path, ["audio", "label"], skipped.__setitem__, cure="add it"))
    with pytest.raises(MintError, match=r"t\.csv, line 1: no column 'audio' \(found: none\)"):
        list(csv_records(write(path), ["audio"], skipped.__setitem__))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_that_of_the_column(tmp_path: Path, delimiter: str) -> None:
    path = write(tmp_path / "t.csv", delimiter.join(['"a, b; c"', " audio ", "label"]))
    assert delimiter_of(path, "audio") == delimiter
    assert delimiter_of(path, "nothing") == ","


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_json_in_each_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.json").write_bytes('{"caption": "très “fort”"}'.encode(encoding))
    assert read_json(tmp_path / "t.json") == {"caption": "très “fort”"}
    assert read_json(tmp_path / "t.json", lambda found: {key.upper(): found[key] for key in found}) == {
        "CAPTION": "très “fort”"
    }


@pytest.mark.parametrize("depth", [5_000, 100_000])
@pytest.mark.parametrize(("opens", "closes"), [("[", "]"), ('{"a":', "}")])
def test_json_that_is_nested_too_deeply_or_broken(tmp_path: Path, opens: str, closes: str, depth: int) -> None:
    path = tmp_path / "t.json"
    path.write_text(f"{opens * depth}1{closes * depth}")
    with pytest.raises(MintError, match=r"t\.json: JSON that is nested too deeply"):
        read_json(path)
    path.write_text(json.dumps({"a": 1})[:-1])
    with pytest.raises(MintError, match=r"t\.json: not valid JSON"):
        read_json(path)


def test_one_line() -> None:
    assert one_line(" a dog\r\nbarks\u2028 twice\t. ") == "a dog barks twice ."
