"""One's own recordings: folders, file names and tables become a manifest with sound splits."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mint.data.corpora.outputs import read_skipped
from mint.data.corpora.own.folder import read_source
from mint.data.manifests.manifest import read_manifest
from mint.types import Example, MintError


def clip(path: Path, number: int, rate: int = 8000) -> Path:
    """A short clip whose content depends on the number alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(number).uniform(-0.5, 0.5, rate // 10), rate)
    return path


def fill(folder: Path, sizes: dict[str, int], suffix: str = "wav") -> Path:
    """A sub-folder of clips for each label, all different."""
    number = 0
    for label, size in sizes.items():
        for index in range(size):
            clip(folder / label / f"{index:03d}.{suffix}", number)
            number += 1
    return folder


def read(source: Path, output: Path, seed: int = 0) -> list[Example]:
    return list(read_manifest(read_source(source, output, seed)))


def test_one_sub_folder_per_label(tmp_path: Path) -> None:
    source = fill(tmp_path / "my sounds", {"001 - Dog bark": 4, "002 - Rain": 3, "sea_waves": 3, "hi-hat": 3, "7": 3})
    clip(source / "002 - Rain" / "deeper" / "still.flac", 99)
    (source / "sea_waves" / "notes.txt").write_text("not audio")
    clip(source / "sea_waves" / ".hidden.wav", 98)
    clip(source / ".cache" / "x.wav", 97)
    manifest = read_source(source, tmp_path / "out")
    assert manifest == tmp_path / "out" / "labels.jsonl"
    examples = list(read_manifest(manifest))
    assert Counter(example.answer for example in examples) == {
        "Dog bark": 4,
        "Rain": 4,
        "sea waves": 3,
        "hi hat": 3,
        "7": 3,
    }
    for example in examples:
        assert example.task == "labels"
        assert example.corpus == "my sounds"
        assert example.prompt == "This is a sound of"
        assert example.labels == (example.answer,)
        assert example.audio.is_file()
        assert example.id == example.audio.resolve().relative_to(source).as_posix()
        assert all(str(example.answer).lower() in caption.lower() for caption in example.captions)
    assert not (tmp_path / "out" / "labels.skipped.jsonl").exists()
    assert list(read_skipped(manifest)) == []


def test_labels_from_file_names(tmp_path: Path) -> None:
    for index, name in enumerate(["bd_808.wav", "bd_haus.flac", "bd_fat.ogg", "sn_dub.wav", "sn_a_b.wav", "misc.wav"]):
        clip(tmp_path / "flat" / name, index)
    examples = read(tmp_path / "flat", tmp_path)
    assert [(example.id, example.answer) for example in examples] == [
        ("bd_808.wav", "bd"),
        ("bd_fat.ogg", "bd"),
        ("bd_haus.flac", "bd"),
        ("misc.wav", "misc"),
        ("sn_a_b.wav", "sn"),
        ("sn_dub.wav", "sn"),
    ]


def test_a_text_beside_a_recording_is_its_caption(tmp_path: Path) -> None:
    source = fill(tmp_path / "stamps", {"animals": 3, "tools": 3})
    (source / "animals" / "001.txt").write_text("A red kangaroo.\nfr.utf8=Un kangourou\n")
    (source / "animals" / "002.txt").write_text("\n")
    captions = {example.id: example.captions for example in read(source, tmp_path)}
    assert captions["animals/001.wav"] == ("A red kangaroo.",)
    assert len(captions["animals/002.wav"]) in (2, 3)


@pytest.mark.parametrize(
    ("content", "caption"),
    [
        (b"\xef\xbb\xbfA dog barks twice.\r\nMore.", "A dog barks twice."),
        ("Un chien aboie tr\xe8s fort.".encode("cp1252"), "Un chien aboie très fort."),
        ("A dog barks.\r\n".encode("utf-16"), "A dog barks."),
        (b"\xfe\xff" + "A dog barks.".encode("utf-16-be"), "A dog barks."),
        (b"A dog\tbarks.\rMore.", "A dog barks."),
    ],
)
def test_a_text_beside_a_recording_in_each_encoding(tmp_path: Path, content: bytes, caption: str) -> None:
    source = fill(tmp_path / "in", {"dog": 3, "cat": 3})
    (source / "dog" / "000.txt").write_bytes(content)
    captions = {example.id: example.captions for example in read(source, tmp_path)}
    assert captions["dog/000.wav"] == (caption,)


def test_a_text_beside_a_recording_that_is_none_is_noted(tmp_path: Path) -> None:
    source = fill(tmp_path / "in", {"dog": 3, "cat": 3})
    (source / "dog" / "000.txt").write_bytes(b"PK\x03\x04")
    (source / "dog" / "001.txt").write_bytes(b".\n")
    notes: list[str] = []
    manifest = read_source(source, tmp_path, note=notes.append)
    captions = {example.id: example.captions for example in read_manifest(manifest)}
    assert all(len(captions[f"dog/00{number}.wav"]) in (2, 3) for number in (0, 1))
    assert len(notes) == 1
    assert notes[0].endswith("its recording is kept without it")


def test_labels_from_names_that_are_not_utf8(tmp_path: Path) -> None:
    source = fill(tmp_path / "in", {"dog": 3, "cat": 3})
    (source / "dog").rename(source / os.fsdecode(b"tr\xe8s fort"))
    assert {example.answer for example in read(source, tmp_path / "out")} == {"très fort", "cat"}


@pytest.mark.parametrize(
    ("size", "expected"),
    [(1, (1, 0, 0)), (2, (2, 0, 0)), (3, (2, 0, 1)), (4, (3, 0, 1)), (5, (3, 1, 1)), (10, (7, 1, 2)), (40, (28, 4, 8))],
)
def test_splits_are_stratified(tmp_path: Path, size: int, expected: tuple[int, int, int]) -> None:
    examples = read(fill(tmp_path / "source", {"one": size, "other": 10}), tmp_path)
    counts = Counter((example.answer, example.split) for example in examples)
    assert tuple(counts["one", split] for split in ("train", "validation", "test")) == expected
    assert tuple(counts["other", split] for split in ("train", "validation", "test")) == (7, 1, 2)


def test_equal_contents_share_a_split_even_under_two_labels(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for label in ("a", "b"):
        for index in range(30):
            clip(source / label / f"{index}.wav", index % 10 if label == "a" else 5 + index % 10)
    splits = defaultdict(set)
    for example in read(source, tmp_path):
        splits[hashlib.sha256(example.audio.read_bytes()).digest()].add(example.split)
    assert len(splits) == 15
    assert all(len(found) == 1 for found in splits.values())
    assert {"train", "test"} <= set.union(*splits.values())


def test_the_seed_decides(tmp_path: Path) -> None:
    source = fill(tmp_path / "source", {"a": 10, "b": 10})
    first, again, other = (
        read_source(source, tmp_path / name / "labels.jsonl", seed).read_bytes()
        for name, seed in (("x", 0), ("y", 0), ("z", 1))
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("names", [("train", "val", "Test"), ("Training", "dev", "testing")])
def test_given_splits_as_folders(tmp_path: Path, names: tuple[str, ...]) -> None:
    for split in names:
        fill(tmp_path / "source" / split, {"a": 2, "b": 2})
    examples = read(tmp_path / "source", tmp_path)
    assert Counter((example.answer, example.split) for example in examples) == {
        (label, split): 2 for label in "ab" for split in ("train", "validation", "test")
    }


CSV = "audio,label,caption,split\n{rows}"


def test_table(tmp_path: Path) -> None:
    fill(tmp_path / "data" / "clips", {"x": 4})
    table = tmp_path / "data" / "mine.csv"
    table.write_text(
        "\ufefflabel, audio,caption,split,fold\n"
        'door_knock,clips/x/000.wav,"A knock, twice.",train,1\n'
        "rain,clips/x/001.wav,,train,2\n"
        "rain,clips/x/002.wav,,test,3\n"
        "door_knock,clips/x/003.wav,,val,3\n"
        "rain,clips/x/003.wav,,val,3\n"
    )
    examples = read(table, tmp_path / "out")
    assert [(example.id, example.answer, example.split) for example in examples] == [
        ("clips/x/000.wav", "door_knock", "train"),
        ("clips/x/001.wav", "rain", "train"),
        ("clips/x/002.wav", "rain", "test"),
        ("clips/x/003.wav", "door_knock", "validation"),
        ("clips/x/003.wav#2", "rain", "validation"),
    ]
    assert examples[0].captions == ("A knock, twice.",)
    assert len(examples[1].captions) in (2, 3)
    assert examples[0].corpus == "mine"


def test_json_lines_table_and_tsv(tmp_path: Path) -> None:
    fill(tmp_path / "clips", {"x": 6})
    rows = [{"audio": f"clips/x/{index:03d}.wav", "label": "ab"[index % 2]} for index in range(6)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "mine.tsv").write_text(
        "\n".join(["audio\tlabel", *(f"{row['audio']}\t{row['label']}" for row in rows)])
    )
    from_json = read(tmp_path / "mine.jsonl", tmp_path / "one")
    from_tsv = read(tmp_path / "mine.tsv", tmp_path / "two")
    assert [(example.id, example.answer) for example in from_json] == [(row["audio"], row["label"]) for row in rows]
    assert [(example.id, example.split) for example in from_json] == [(e.id, e.split) for e in from_tsv]
    assert {example.split for example in from_json} == {"train", "test"}


def test_bad_clips_are_skipped_and_listed(tmp_path: Path) -> None:
    source = fill(tmp_path / "source", {"a": 3, "b": 3})
    (source / "a" / "empty.wav").write_bytes(b"")
    (source / "b" / "text.mp3").write_text("hello")
    (source / "b" / "video.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    soundfile.write(source / "b" / "nan.wav", np.array([np.nan], np.float32), 8000, subtype="FLOAT")
    manifest = read_source(source, tmp_path / "out")
    assert len(list(read_manifest(manifest))) == 6
    skipped = list(read_skipped(manifest))
    assert [Path(one["audio"]).name for one in skipped] == ["empty.wav", "nan.wav", "text.mp3", "video.m4a"]
    for one, reason in zip(skipped, ["0 bytes", "NaN", "not audio", "ffmpeg"], strict=True):
        assert reason in one["reason"]
    for one in skipped:
        Path(one["audio"]).unlink()
    assert list(read_skipped(read_source(source, tmp_path / "out"))) == []


def test_a_file_that_the_table_names_in_vain_is_skipped(tmp_path: Path) -> None:
    fill(tmp_path / "clips", {"x": 3, "y": 3})
    rows = [f"clips/{label}/{index:03d}.wav,{label}" for label in "xy" for index in range(4)]
    (tmp_path / "mine.csv").write_text("\n".join(["audio,label", *rows]))
    manifest = read_source(tmp_path / "mine.csv", tmp_path / "out")
    assert len(list(read_manifest(manifest))) == 6
    assert all("no such audio file" in one["reason"] for one in read_skipped(manifest))


def test_unusable_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text" / "a").mkdir(parents=True)
    (tmp_path / "text" / "a" / "readme.txt").write_text("hello")
    (tmp_path / "bad" / "a").mkdir(parents=True)
    (tmp_path / "bad" / "a" / "1.wav").write_text("hello")
    fill(tmp_path / "single", {"only": 5})
    fill(tmp_path / "few", {"a": 2, "b": 2})
    (tmp_path / "table.txt").write_text("hello")
    for name, message in {
        "nowhere": "nowhere: no such folder or table; check the path",
        "empty": "empty holds no recordings; give a folder or table of audio files",
        "text": "text holds no recordings; give a folder or table of audio files",
        "bad": r"bad: none of 1 recordings can be decoded; the first: .*1\.wav: not audio",
        "single": "single has one label only, 'only'; give each kind of sound a sub-folder of its own",
        "few": "few leaves nothing to test on; give some label three different recordings or more",
        "table.txt": r"table\.txt is neither a folder nor a table; give a folder, \.csv, \.tsv or \.jsonl",
    }.items():
        with pytest.raises(MintError, match=message) as caught:
            read_source(tmp_path / name, tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out" / "labels.jsonl").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1: no column 'audio' \(found: none\); it needs audio,label"),
        ("audio,class\n", r"line 1: no column 'label' \(found: audio, class\)"),
        ("audio,label\n,dog\n", "line 2: audio is '' and label 'dog'; fill in both"),
        ("audio,label\nx.wav\n", "line 2: audio is 'x.wav' and label ''; fill in both"),
        ('audio,label\nx.wav,"dog" 2\n', "line 2: text behind a closing quote"),
        ("audio,label\nx.wav,dog,cat\n", "line 2: more fields than the header"),
        ('audio,label\nx.wav,"dog\ny.wav,cat\n', "line 2: a quote opens there and is never closed"),
        ("audio,label,split\nx.wav,dog,maybe\n", "line 2: split is 'maybe'; it must be one of train, validation"),
        ("audio,label,split\nx.wav,dog,train\ny.wav,dog,\n", "line 3: it has no split, others have"),
    ],
)
def test_broken_tables(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(MintError, match=rf"mine\.csv, {message}"):
        read_source(tmp_path / "mine.csv", tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1: not valid JSON"),
        ("\n[]", "line 2: list in place of an object"),
        ('{"audio": "x.wav", "label": 3}', "line 1: label is 3; write a text"),
        ('{"label": "x"}', "line 1: audio is '' and label 'x'; fill in both"),
        ('{"audio": "x.wav", "label": ' + "[" * 100_000, "line 1: JSON that is nested too deeply"),
    ],
)
def test_broken_json_tables(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.jsonl").write_text(text)
    with pytest.raises(MintError, match=rf"mine\.jsonl, {message}"):
        read_source(tmp_path / "mine.jsonl", tmp_path / "out")
