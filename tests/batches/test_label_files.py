"""Timelines as text, read back as the programs read them that they are for."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from mint.batches.label_files import RAVEN_COLUMNS, Timeline, as_text, clock, format_of, table_line
from mint.inference import Stretch
from mint.types import MintError

STRETCHES = [Stretch(0.0, 2.5, 'a "loud"\tdog', 0.75), Stretch(2.5, 3723.125, "rain, heavy", None)]
TIMELINE: Timeline = ("bird song.wav", 11025.0, STRETCHES)


def test_audacity_reads_start_end_and_text() -> None:
    lines = as_text("audacity", [TIMELINE]).splitlines()
    assert [line.split("\t") for line in lines] == [
        ["0.000000", "2.500000", 'a "loud" dog'],
        ["2.500000", "3723.125000", "rain, heavy"],
    ]
    with pytest.raises(MintError, match="a label track belongs to one recording"):
        as_text("audacity", [TIMELINE, TIMELINE])


def test_raven_reads_a_box_for_each_stretch() -> None:
    head, *rows = (line.split("\t") for line in as_text("raven", [TIMELINE, TIMELINE]).splitlines())
    assert head == list(RAVEN_COLUMNS)
    assert [row[0] for row in rows] == ["1", "2", "3", "4"]
    first = dict(zip(head, rows[0], strict=True))
    assert first == {
        "Selection": "1",
        "View": "Spectrogram 1",
        "Channel": "1",
        "Begin Time (s)": "0.000000",
        "End Time (s)": "2.500000",
        "Low Freq (Hz)": "0.0",
        "High Freq (Hz)": "11025.0",
        "Begin Path": "bird song.wav",
        "Annotation": 'a "loud" dog',
        "Score": "0.7500",
    }


def test_json_and_csv_hold_everything() -> None:
    assert json.loads(as_text("json", [TIMELINE])) == [
        {"audio": "bird song.wav", "start": one.start, "end": one.end, "answer": one.answer, "score": one.score}
        for one in STRETCHES
    ]
    rows = list(csv.DictReader(io.StringIO(as_text("table", [TIMELINE]), newline="")))
    assert [row["answer"] for row in rows] == [one.answer for one in STRETCHES]
    assert [float(row["end"]) for row in rows] == [2.5, 3723.125]


def test_lines_for_people() -> None:
    assert table_line(STRETCHES[0]) == '0:00:00.00  0:00:02.50    0.750  a "loud" dog'
    assert table_line(STRETCHES[1]) == "0:00:02.50  1:02:03.12  rain, heavy"
    assert [clock(59.999), clock(3599.996), clock(36000)] == ["0:01:00.00", "1:00:00.00", "10:00:00.00"]


def test_the_name_of_a_file_says_its_format() -> None:
    for name, expected in (
        ("a.selections.txt", "raven"),
        ("A.Table.1.Selections.TXT", "raven"),
        ("a.txt", "audacity"),
        ("a.csv", "table"),
    ):
        assert format_of(Path(name), None) == expected
    assert format_of(Path("a.txt"), "raven") == "raven"
    assert format_of(None, None) == "table"
    with pytest.raises(MintError, match=r"--output 'a.xml': give a name that ends with .selections.txt, .txt"):
        format_of(Path("a.xml"), None)
