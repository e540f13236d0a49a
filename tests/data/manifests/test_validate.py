"""Validation: every kind of problem, by itself and across manifests; and nothing where nothing is wrong."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import soundfile
from pyarrow import parquet

from mint.cli import main
from mint.data.manifests.validate import Audio, Report, count_kinds, validate
from mint.types import MintError


def write_clip(path: Path, seconds: float = 0.5, seed: int = 0, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * 8000)), 8000, **options)
    return path


def row(name: str, **changes: Any) -> dict[str, Any]:
    base = {"id": name, "audio": f"{name}.wav", "task": "labels", "split": "train", "corpus": "mine", "answer": "dog"}
    return {**base, **changes}


def write(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


def kinds(report: Report) -> list[tuple[int, str]]:
    return [(problem.line, problem.kind) for problem in report.problems]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        write_clip(tmp_path / f"{number}.wav", seed=number)
    return tmp_path


def test_what_a_manifest_holds(folder: Path) -> None:
    rows = [row("0", labels=["dog", "cat"], captions=["one", "two"]), row("1", labels=["dog"]), row("2", split="test")]
    report = validate([write(folder / "m.jsonl", rows)])
    assert report.problems == []
    assert (report.clips, report.decoded) == (3, 3)
    train, test = sorted(report.groups, key=lambda group: group.split, reverse=True)
    assert (train.split, train.clips, train.labels, train.captions) == ("train", 2, 2, 2)
    assert train.seconds == pytest.approx(1.0)
    assert (test.split, test.clips, test.labels, test.captions) == ("test", 1, 0, 0)


@pytest.mark.parametrize(
    ("audio", "decoded", "expected"),
    [
        ("all", 1, [(2, "audio"), (3, "audio")]),
        ("headers", 0, [(3, "audio")]),
        (0, 0, [(3, "audio")]),
        (99, 1, [(2, "audio"), (3, "audio")]),
        ("none", 0, []),
    ],
)
def test_how_much_audio_is_looked_at(folder: Path, audio: Audio, decoded: int, expected: list[tuple[int, str]]) -> None:
    """The header of a file that is cut is whole."""
    cut = write_clip(folder / "cut.flac", 4.0)
    cut.write_bytes(cut.read_bytes()[:20000])
    manifest = write(folder / "m.jsonl", [row("0"), row("cut", audio="cut.flac"), row("gone")])
    report = validate([manifest], audio)
    assert kinds(report) == expected
    assert report.decoded == decoded


def test_a_sample_is_decoded(folder: Path) -> None:
    clips = [row(str(number), audio="0.wav") for number in range(50)]
    report = validate([write(folder / "m.jsonl", clips)], 7)
    assert (report.clips, report.decoded, report.problems) == (50, 7, [])


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"start": 0.1, "duration": 0.4}, []),
        ({"duration": 0.55}, []),
        ({"duration": 0.7}, [(1, "duration")]),
        ({"start": 0.3, "duration": 0.4}, [(1, "duration")]),
        ({"start": 0.6}, [(1, "audio")]),
        ({"start": 0.6, "duration": 1.0}, [(1, "audio")]),
    ],
)
def test_parts_of_files(folder: Path, part: dict[str, float], expected: list[tuple[int, str]]) -> None:
    manifest = write(folder / "m.jsonl", [row("0", **part)])
    for audio in ("all", "headers"):
        assert kinds(validate([manifest], audio)) == expected


def test_absences_alone_are_no_problem_but_nothing_at_all_is(folder: Path) -> None:
    rows = [
        row("0", answer=None, unknown=["banjo"]),
        row("1", answer=None),
        row("2", answer=None, captions=[], labels=[], unknown=[]),
    ]
    report = validate([write(folder / "m.jsonl", rows)])
    assert kinds(report) == [(2, "text"), (3, "text")]
    assert "no answer, no labels and no captions" in report.problems[0].message


@pytest.mark.parametrize(("part", "wrong"), [({}, True), ({"duration": 1.0}, False), ({"start": 1.5}, True)])
def test_an_mp3_that_was_cut_off(folder: Path, part: dict[str, float], wrong: bool) -> None:
    """Its header is that of the whole; clips that lie before the cut are sound."""
    cut = write_clip(folder / "cut.mp3", 4.0)
    assert validate([write(folder / "m.jsonl", [row("cut", audio="cut.mp3", **part)])]).problems == []
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    report = validate([write(folder / "m.jsonl", [row("cut", audio="cut.mp3", **part), row("0")])])
    assert kinds(report) == [(1, "audio")] * wrong
    assert report.decoded == 2 - wrong
    if wrong:
        assert re.search(r"promises audio up to 4\.00 s, but there is some up to 1\.[6-9]", report.problems[0].message)


@pytest.mark.parametrize("part", [{}, {"duration": 1.0}, {"start": 1.5}])
def test_a_wav_that_was_cut_off(folder: Path, part: dict[str, float]) -> None:
    """Its header promises 4 s of which 2 s are there; a clip that lies before the cut is sound."""
    cut = write_clip(folder / "cut.wav", 4.0)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    report = validate([write(folder / "m.jsonl", [row("cut", **part), row("0")])])
    wrong = "duration" not in part
    assert kinds(report) == [(1, "audio")] * wrong
    assert report.decoded == 2 - wrong
    if wrong:
        assert re.search(r"promises audio up to 4\.00 s, but there is some up to 2\.00 s", report.problems[0].message)


def test_what_a_listener_would_notice(folder: Path) -> None:
    """Each finding is a problem of its own, with the file; clips that are not decoded are not judged."""
    tone = 0.5 * np.sin(np.arange(8000) / 9)
    for name, samples in {
        "silent": 0 * tone,
        "clipped": np.clip(5 * tone, -1, 1),
        "offset": 0.3 * tone + 0.2,
        "inverted": np.stack([tone, -tone], axis=1),
        "unscaled": 20_000 * tone,
        "silent too": 0 * tone + 0.2,
    }.items():
        soundfile.write(folder / f"{name}.wav", samples, 8000, "FLOAT")
    names = ["0", "silent", "clipped", "offset", "inverted", "unscaled", "silent too", "1"]
    manifest = write(folder / "m.jsonl", [row(name) for name in names])
    report = validate([manifest])
    assert kinds(report) == [(line, "sound") for line in (2, 3, 4, 5, 6, 7, 7)]
    assert (report.clips, report.decoded) == (8, 8)
    assert report.problems[0].message == f"{folder}/silent.wav: it is silent; fetch or export it again, or leave it out"
    assert count_kinds(report.problems) == {"sound": 7}
    assert validate([manifest], "headers").problems == []


def test_half_a_character_is_a_problem_of_its_line(folder: Path) -> None:
    """JSON allows it, no tokenizer takes it."""
    manifest = write(folder / "m.jsonl", [row("0"), row("1", captions=["a dog \ud83d"]), row("2", answer="\udc36")])
    report = validate([manifest])
    assert kinds(report) == [(2, "schema"), (3, "schema")]
    assert "captions is ['a dog \\ud83d'], which holds half a character" in report.problems[0].message
    report.problems[0].message.encode()


def test_other_files_than_manifests(folder: Path) -> None:
    """One line says what each is, and nothing of its content is printed."""
    recordings = [{"audio": {"bytes": bytes(range(256)) * 400, "path": "a.wav"}, "label": 3}] * 5
    parquet.write_table(pyarrow.Table.from_pylist(recordings), folder / "hub.parquet")
    parquet.write_table(pyarrow.Table.from_pylist([{"audio": "0.wav", "label": 3}]), folder / "table.parquet")
    (folder / "renamed.jsonl").write_bytes((folder / "table.parquet").read_bytes())
    (folder / "m.jsonl.gz").write_bytes(gzip.compress(b'{"id": 1}'))
    (folder / "noise.jsonl").write_bytes(bytes(range(256)) * 400)
    (folder / "wide.jsonl").write_text('{"id": "1"}', encoding="utf-16")
    with tarfile.open(folder / "0.tar", "w") as shard:
        shard.add(folder / "0.wav", "a.wav")
    for name, message in {
        "hub.parquet": "no manifest but a shard of a Hugging Face dataset, which holds the recordings themselves; save",
        "table.parquet": "no manifest: its columns are 'audio, label'; a manifest has audio, corpus, id, split, task",
        "renamed.jsonl": r"no manifest but a Parquet file; name it so that it ends with \.parquet",
        "m.jsonl.gz": "no text but a gzip archive; unpack it",
        "noise.jsonl": "no text",
        "wide.jsonl": "saved as UTF-16; save it as UTF-8",
        "0.tar": "no manifest but a tar archive; give the manifest beside the shards",
        "0.wav": "no manifest but a recording; make a manifest of a folder of them",
        "": "a folder; give a manifest in it, such as .*noise.jsonl|renamed.jsonl",
    }.items():
        with pytest.raises(MintError, match=message) as caught:
            validate([folder / name])
        assert len(str(caught.value)) < 300 + len(str(folder))
        assert str(caught.value).isprintable()


def test_long_values_are_cut_in_messages(folder: Path) -> None:
    rows = [
        row("0", **{"x" * 100_000: 1}),
        row("1", start="y" * 100_000),
        row("z" * 100_000, audio="0.wav"),
        row("z" * 100_000, audio="0.wav"),
        row("3", labels=["w" * 100_000]),
    ]
    report = validate([write(folder / "m.jsonl", rows)], labels={"dog"})
    assert kinds(report) == [(1, "schema"), (2, "schema"), (4, "id"), (5, "label")]
    assert max(len(problem.message) for problem in report.problems) < 300


def test_labels_outside_a_list(folder: Path) -> None:
    manifest = write(folder / "m.jsonl", [row("0", labels=["dog", "cow"]), row("1", labels=["cat"])])
    report = validate([manifest], labels={"dog", "cat"})
    assert kinds(report) == [(1, "label")]
    assert "label 'cow' is not in the list" in report.problems[0].message


def test_labels_that_are_never_trained_on(folder: Path) -> None:
    rows = [
        row("0", labels=["dog"]),
        row("1", labels=["Dog", "dog"], split="test"),
        row("2", labels=["cow"], split="test", task="other"),
        row("3", labels=["Dog"], split="test"),
    ]
    report = validate([write(folder / "m.jsonl", rows)])
    assert kinds(report) == [(2, "label")]
    assert "label 'Dog' of the split test is never trained on" in report.problems[0].message
    assert validate([write(folder / "m.jsonl", rows)], labels={"dog", "Dog", "cow"}).problems == []


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ({"audio": "0.wav"}, {"audio": "0.wav"}, "file"),
        ({"audio": "0.wav", "duration": 0.2}, {"audio": "0.wav", "start": 0.3}, "file"),
        ({"metadata": {"freesound_id": 7}}, {"metadata": {"freesound_id": "7"}, "corpus": "other"}, "freesound:7"),
        ({"audio": "0.wav"}, {"audio": "copy.wav"}, "file of the same bytes"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_recordings_that_two_splits_share(
    folder: Path, first: dict[str, Any], second: dict[str, Any], what: str, together: bool
) -> None:
    (folder / "copy.wav").write_bytes((folder / "0.wav").read_bytes())
    rows = [row("0", **first), row("1", **{"split": "test", **second})]
    if together:
        report = validate([write(folder / "m.jsonl", rows)])
        where = "line 1"
    else:
        manifests = [write(folder / f"{name}.jsonl", [one]) for name, one in zip("ab", rows, strict=True)]
        report = validate(manifests)
        where = f"{manifests[0]}, line 1"
    assert kinds(report) == [(2 if together else 1, "split")]
    assert f"its recording ({what}) is in train too ({where})" in report.problems[0].message
    rows[1]["split"] = "train"
    assert validate([write(folder / "m.jsonl", rows)]).problems == []


def test_recordings_that_a_corpus_has_in_two_splits_as_published(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six videos of VGGSound; of any other corpus, and between two corpora, they are a problem."""
    video = {"metadata": {"youtube_id": "abcdefghijk"}}
    for corpora, noted in (
        (("vggsound", "vggsound"), True),
        (("mine", "mine"), False),
        (("audioset", "vggsound"), False),
    ):
        rows = [
            row("0", corpus=corpora[0], **video),
            row("1", corpus=corpora[1], split="test", **video),
        ]
        manifest = write(folder / "m.jsonl", rows)
        report = validate([manifest])
        assert kinds(report) == [(2, "split")] * (not noted)
        assert [note.line for note in report.notes] == [2] * noted
        assert main(["data", "validate", str(manifest)]) == (not noted)
        output = capsys.readouterr().out
        assert ("in train too (line 1), as the corpus is published" in output) == noted


def test_an_id_that_two_manifests_have(folder: Path) -> None:
    """As two tables `clips.csv` give it; another corpus has ids of its own."""
    first = write(folder / "a.jsonl", [row("0"), row("1")])
    second = write(folder / "b.jsonl", [row("2"), row("1", audio="3.wav"), row("0", audio="3.wav", corpus="other")])
    report = validate([first, second])
    assert kinds(report) == [(2, "id")]
    assert report.problems[0].file == str(second)
    assert f"id '1' of 'mine' is that of {first}, line 2 too; make ids unique" in report.problems[0].message


def test_problems_stand_in_the_order_of_files_and_lines(folder: Path) -> None:
    broken = write(folder / "b.jsonl", [row("gone"), row("0"), row("0"), {"id": "x"}])
    good = write(folder / "a.jsonl", [row("1")])
    other = write(folder / "c.jsonl", [row("gone too")])
    report = validate([broken, good, other])
    assert [(Path(problem.file).name, problem.line) for problem in report.problems] == [
        ("b.jsonl", 1),
        ("b.jsonl", 3),
        ("b.jsonl", 4),
        ("c.jsonl", 1),
    ]
    assert count_kinds(report.problems) == {"schema": 1, "id": 1, "audio": 2}


def test_parquet(folder: Path) -> None:
    rows = [
        row("0", labels=["dog"], metadata={"freesound_id": 7}, duration=None),
        row("1", duration=0.2, split="test"),
        row("gone"),
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "m.parquet")
    report = validate([folder / "m.parquet"])
    assert kinds(report) == [(3, "audio")]
    (folder / "text.parquet").write_text("no table")
    with pytest.raises(MintError, match=r"text\.parquet: not a Parquet file that can be read"):
        validate([folder / "text.parquet"])


PEAK = """
import sys, tracemalloc
from pathlib import Path
from mint.data.manifests.validate import validate
validate([Path(sys.argv[1])], "none")  # what is made once
tracemalloc.start()
validate([Path(sys.argv[1])], "none")
print(tracemalloc.get_traced_memory()[1])
"""
"""In a process of its own: the peak depends on what other tests leave in memory."""


def test_nothing_of_a_line_is_kept_but_numbers(tmp_path: Path) -> None:
    """The memory of a line does not grow with what it says."""

    def peak(text: str) -> int:
        manifest = write(tmp_path / "m.jsonl", (row(f"{n}{text}", answer=text + "x") for n in range(6000)))
        return int(subprocess.run([sys.executable, "-c", PEAK, str(manifest)], check=True, capture_output=True).stdout)

    assert peak("y" * 2000) - peak("") < 200_000


def test_the_verb(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = str(write(folder / "m.jsonl", [row("0", labels=["cow"]), row("gone")]))
    (folder / "labels.txt").write_text("dog\n\n cat \n")
    assert main(["data", "validate", manifest, "--audio", "none"]) == 0
    assert main(["data", "validate", manifest, "--audio", "none", "--labels", str(folder / "labels.txt")]) == 1
    assert main(["data", "validate", manifest, "--audio", "1"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "2 clips, 0 decoded: 1 problem (1 audio)"
    assert main(["data", "validate", manifest, "--audio", "some"]) == 2
    assert "--audio 'some'; give all, headers, none or a number of clips" in capsys.readouterr().err
