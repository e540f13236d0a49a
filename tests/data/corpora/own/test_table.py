"""`csv`: a table of one's own, with all that a manifest can say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from mint.cli import main
from mint.data.corpora.outputs import read_skipped
from mint.data.corpora.own.table import read_own_table
from mint.data.corpora.public.prepare import prepare_table
from mint.data.manifests.manifest import read_manifest
from mint.types import MintError
from tiny_corpora import record, write


def test_labels_and_captions(tmp_path: Path) -> None:
    table = write(
        tmp_path / "mine.csv",
        "audio,label,caption,caption_2,split,recorder",
        "a/1.wav,dog,A dog barks.,,train,H4n",
        'b.wav,"rain, heavy",,,Dev,',
        "c.wav,,Wind.,A gale.,test,",
    )
    record(tmp_path, "a/1.wav", "b.wav", "c.wav")
    dog, rain, wind = read_manifest(prepare_table(table, tmp_path / "out", seed=0))
    assert (dog.id, dog.task, dog.split, dog.corpus) == ("a/1.wav", "labels", "train", "mine")
    assert (dog.prompt, dog.answer, dog.labels) == ("This is a sound of", "dog", ("dog",))
    assert dog.captions == ("A dog barks.",)
    assert dog.metadata == {"recorder": "H4n"}
    assert (rain.labels, rain.split, rain.captions) == (("rain, heavy",), "validation", ())
    assert (wind.task, wind.prompt, wind.answer) == ("captioning", "Generate audio caption:", None)
    assert wind.captions == ("Wind.", "A gale.")


def test_everything_that_a_manifest_can_say(tmp_path: Path) -> None:
    table = write(
        tmp_path / "mine.tsv",
        "id\taudio\tstart\tduration\ttask\tprompt\tanswer\tlabels\tsplit\tcorpus",
        "x\ta.wav\t2.5\t10\tmood\tThe mood is\tsad and slow\tsad; slow\tunseen\tours",
        "\ta.wav\t12.5\t\t\t\t\tslow;sad\ttest\t",
    )
    record(tmp_path, "a.wav")
    full, sparse = read_manifest(prepare_table(table, tmp_path / "my.jsonl", seed=0))
    assert (full.id, full.start, full.duration, full.task) == ("x", 2.5, 10.0, "mood")
    assert (full.prompt, full.answer, full.labels) == ("The mood is", "sad and slow", ("sad", "slow"))
    assert (full.split, full.corpus) == ("unseen", "ours")
    assert (sparse.id, sparse.start, sparse.duration) == ("a.wav@12.5", 12.5, None)
    assert (sparse.labels, sparse.answer, sparse.corpus) == (("slow", "sad"), "slow, sad", "mine")


def test_drawn_splits_depend_on_path_and_seed_alone(tmp_path: Path) -> None:
    names = [f"{number}.wav" for number in range(400)]
    table = write(tmp_path / "t.csv", "audio,start,caption", *(f"{name},{at},x" for name in names for at in (0, 5)))
    drawn = {example.id: example.split for example in read_own_table(table)}
    counts = Counter(drawn.values())
    assert 40 <= counts["test"] <= 120
    assert 40 <= counts["validation"] <= 120
    assert counts["train"] >= 560
    assert all(drawn[f"{name}@0"] == drawn[f"{name}@5"] for name in names), "parts of a recording stay together"
    fewer = write(tmp_path / "fewer.csv", "audio,start,caption", *(f"{name},0,other" for name in names[::-2]))
    assert all(drawn[example.id] == example.split for example in read_own_table(fewer))
    assert any(drawn[example.id] != example.split for example in read_own_table(table, seed=1))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ("file,label", "a.wav,dog"),
            r"line 1: no column 'audio' \(found: file, label\); name the columns in the first",
        ),
        (("file;label", "a.wav;dog"), r"line 1: no column 'audio' \(found: file;label\)"),
        ((), r"line 1: no column 'audio' \(found: none\)"),
        (("audio,label", ",dog"), r"no clip .*\(t\.csv, line 2: audio is empty; name a file\); mend its lines"),
        (("audio,label", "b.wav,"), r"no clip .*\(t\.csv, line 2: it has no label, caption or answer; fill one in\)"),
        (("audio,label", "a.wav,dog"), r"none of 1 recordings of t\.csv is there"),
        (("audio,label",), r"t\.csv names no clip here that can be used; mend its lines"),
    ],
)
def test_tables_of_which_nothing_can_be_used(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
    table = write(tmp_path / "t.csv", *lines)
    with pytest.raises(MintError, match=message):
        prepare_table(table, tmp_path / "out", seed=0)


def test_bad_rows_are_left_out_with_their_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write(
        tmp_path / "t.csv",
        "audio,label,split,start,duration,caption",
        "a.wav,,,,,",
        'a.wav,dog,,,,"Two',
        'lines."',
        "a.wav,dog,later,,,",
        "",
        "a.wav,dog,,soon,,",
        "a.wav,dog,,nan,,",
        "a.wav,dog,,,0,",
        ",dog",
        "a.wav",
    )
    record(tmp_path, "a.wav")
    assert main(["data", "prepare", "csv", "--source", str(table), "--output", str(tmp_path / "o")]) == 0
    assert [example.captions for example in read_manifest(tmp_path / "o" / "csv.jsonl")] == [("Two lines.",)]
    empty = "it has no label, caption or answer; fill one in"
    assert {one["audio"]: one["reason"] for one in read_skipped(tmp_path / "o" / "csv.jsonl")} == {
        "t.csv, line 2": empty,
        "t.csv, line 5": "split is 'later'; it must be one of train, validation, test, unseen",
        "t.csv, line 7": "start is 'soon'; it must be a number",
        "t.csv, line 8": "start is 'nan'; it must be a number",
        "t.csv, line 9": "duration is '0'; it must be more than 0 seconds",
        "t.csv, line 10": "audio is empty; name a file",
        "t.csv, line 11": empty,
    }
    assert f"skipped 2: {empty}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters(tmp_path: Path, name: str, delimiter: str) -> None:
    """As the first line has them: programs of offices write semicolons where numbers have commas."""
    rows = [["caption", " audio ", "labels"], ["One, two; three\tfour", "a.wav", '"rain; wind"']]
    rows[1][0] = f'"{rows[1][0]}"'
    table = write(tmp_path / name, *map(delimiter.join, rows))
    record(tmp_path, "a.wav")
    (example,) = read_manifest(prepare_table(table, tmp_path / "out", seed=0))
    assert (example.labels, example.captions) == (("rain", "wind"), ("One, two; three four",))


def test_other_names_of_splits(tmp_path: Path) -> None:
    names = {"training": "train", "Train": "train", "val": "validation", "valid": "validation", "dev": "validation"}
    names |= {"validation": "validation", "TESTING": "test", "test": "test", "unseen": "unseen"}
    table = write(tmp_path / "t.csv", "audio,label,split", *(f"{n}.wav,dog,{name}" for n, name in enumerate(names)))
    assert [example.split for example in read_own_table(table)] == list(names.values())


def test_recordings_elsewhere_or_not_there(tmp_path: Path) -> None:
    table = write(tmp_path / "t" / "t.csv", "audio,label", "a.wav,dog", "b/c.wav,cat")
    record(tmp_path / "disk", "a.wav")
    (example,) = read_manifest(prepare_table(table, tmp_path / "out", seed=0, audio=tmp_path / "disk"))
    assert example.audio.resolve() == tmp_path / "disk" / "a.wav"
    examples = read_manifest(prepare_table(table, tmp_path / "out", seed=0, metadata_only=True))
    paths = [example.audio.resolve() for example in examples]
    assert paths == [tmp_path / "t" / "a.wav", tmp_path / "t" / "b" / "c.wav"]


def test_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "prepare", "csv", "--source", str(tmp_path), "--output", str(tmp_path / "o")]) == 2
    assert "no such table; give a .csv, .tsv or .jsonl file with a column 'audio'" in capsys.readouterr().err
