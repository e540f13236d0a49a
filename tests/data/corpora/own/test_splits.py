"""Clips of one recording stay in one split, however the recording is known."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mint.data.corpora.outputs import Skip
from mint.data.corpora.own.folder import read_source
from mint.data.corpora.own.rows import GROUPS
from mint.data.corpora.own.splits import Clip, assign_splits, name_before_letter, name_before_number
from mint.data.corpora.own.table import read_own_table
from mint.data.manifests.manifest import read_manifest
from tiny_corpora import tone, write


@pytest.mark.parametrize(
    ("name", "letter", "number"),
    [
        ("dog/1-100032-A-0.wav", "1-100032", "1-100032-A"),
        ("dog/x-B.wav", "dog/x", None),
        ("dog/rex_1.wav", None, "dog/rex"),
        ("dog/rex take2.flac", None, "dog/rex"),
        ("100032-3-0-0.wav", None, "100032"),
        ("other/100032-3-1-2.wav", None, "100032"),
        ("001.wav", None, None),
        ("A.wav", None, None),
        ("rain2.wav", None, None),
        ("s.tar::a_1.wav", None, "s.tar::a"),
    ],
)
def test_names_up_to_their_end(name: str, letter: str | None, number: str | None) -> None:
    assert name_before_letter(name) == letter
    assert name_before_number(name) == number


def esc10(folder: Path) -> Path:
    """ESC-10 as a folder of labels: 40 clips each of 13 to 16 recordings, numbered A, B, ..."""
    number = 0
    for target, label in enumerate(("dog", "rain", "sea_waves")):
        for origin in range(14):
            for take in "ABC"[: 2 + origin % 2]:
                name = f"{1 + origin % 5}-{100000 + 50 * target + origin}-{take}-{target}.wav"
                tone(folder / label / name, number)
                number += 1
    return folder


def test_fragments_of_a_recording_are_kept_together(tmp_path: Path) -> None:
    notes: list[str] = []
    manifest = read_source(esc10(tmp_path / "esc10"), tmp_path / "out", note=notes.append)
    splits = defaultdict(set)
    for example in read_manifest(manifest):
        splits[Path(example.id).name.split("-")[1]].add(example.split)
    assert len(splits) == 42
    assert all(len(one) == 1 for one in splits.values())
    assert {"train", "validation", "test"} == set.union(*splits.values())
    counts = Counter((example.answer, example.split) for example in read_manifest(manifest))
    assert all(counts[label, "test"] == 7 for label in ("dog", "rain", "sea waves")), "a fifth of 35"
    assert notes == [
        "105 clips whose names differ at the end alone, such as dog/1-100000-A-0.wav and dog/1-100000-B-0.wav, "
        "are kept in one split as one recording"
    ]


def test_one_label_with_three_numbered_recordings(tmp_path: Path) -> None:
    for label, names in {"dog": ("rex", "fido", "spot", "ace"), "cat": ("tom", "kit", "mia", "leo")}.items():
        for name in names:
            for take in range(1, 4):
                tone(tmp_path / "in" / label / f"{name}_{take}.wav", hash((name, take)) % 2**31)
    splits = defaultdict(set)
    for example in read_manifest(read_source(tmp_path / "in", tmp_path / "out")):
        splits[Path(example.id).stem.partition("_")[0]].add(example.split)
    assert len(splits) == 8
    assert all(len(one) == 1 for one in splits.values())


def test_numbers_that_count_recordings_are_noted(tmp_path: Path) -> None:
    for number in range(12):
        tone(tmp_path / "in" / "dog" / f"dog_{number}.wav", number)
        tone(tmp_path / "in" / "cat" / f"{number}.wav", 100 + number)
    notes: list[str] = []
    examples = list(read_manifest(read_source(tmp_path / "in", tmp_path / "out", note=notes.append)))
    assert Counter(one.split for one in examples if one.answer == "dog") == {"train": 9, "validation": 1, "test": 2}
    assert len(notes) == 1
    assert notes[0].startswith("12 clips whose names differ at the end alone, such as those of dog/dog, are taken for")


@pytest.mark.parametrize("column", GROUPS)
@pytest.mark.parametrize("corpus", ["folder", "csv"])
def test_a_column_says_what_belongs_together(tmp_path: Path, column: str, corpus: str) -> None:
    rows = []
    for number in range(60):
        tone(tmp_path / f"clip{number}.wav", number)
        rows.append(f"clip{number}.wav,{'ab'[number // 2 % 2]},{column} {number // 4}")
    table = write(tmp_path / "t.csv", f"audio,label,{column.upper()}", *rows)
    examples = (
        list(read_manifest(read_source(table, tmp_path / "out"))) if corpus == "folder" else list(read_own_table(table))
    )
    splits = defaultdict(set)
    for example in examples:
        splits[int(example.id.removeprefix("clip").removesuffix(".wav")) // 4].add(example.split)
    assert len(splits) == 15
    assert all(len(one) == 1 for one in splits.values())
    assert len(set.union(*splits.values())) > 1


def test_a_stream_keeps_letters_together_and_notes_numbers(tmp_path: Path) -> None:
    names = [f"{origin}-{take}-{origin % 7}.wav" for origin in range(1000, 1200) for take in "AB"]
    names += [f"take_{number}.wav" for number in range(100)]
    table = write(tmp_path / "t.csv", "audio,label", *(f"{name},dog" for name in names))
    notes: list[str] = []
    splits = {one.id: one.split for one in read_own_table(table, Skip(lambda name, reason: None, notes.append))}
    assert all(splits[first] == splits[second] for first, second in zip(names[:400:2], names[1:400:2], strict=True))
    assert len({splits[name] for name in names[400:]}) == 3
    assert [note.split(",")[0] for note in notes] == [
        "400 clips whose names differ at the end alone",
        "100 clips whose names differ at the end alone",
    ]


def reference(clips: list[Clip], seed: int) -> list[str]:
    """Splits of clips of which no two are of one recording, as they were always drawn."""
    rng = random.Random(f"splits {seed}")
    split_of: dict[str, str] = {}
    for label in sorted({clip.label for clip in clips}):
        contents = sorted({clip.content for clip in clips if clip.label == label} - split_of.keys())
        rng.shuffle(contents)
        tests = max(1, round(0.2 * len(contents))) if len(contents) >= 3 else 0
        validations = max(1, round(0.1 * len(contents))) if len(contents) >= 5 else 0
        for index, content in enumerate(contents):
            name = "test" if index < tests else "validation" if index < tests + validations else "train"
            split_of[content] = name
    return [split_of[clip.content] for clip in clips]


LABELLED = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20), st.integers(0, 6)), min_size=1, max_size=40)


@settings(deadline=None)
@given(LABELLED, st.integers(0, 3))
def test_without_groups_the_draws_are_those_of_before(rows: list[tuple[str, int, int]], seed: int) -> None:
    clips = [Clip(f"clip{index}.wav", label, f"{content:02d}") for index, (label, content, _) in enumerate(rows)]
    assert assign_splits(clips, seed, lambda line: None) == reference(clips, seed)


@settings(deadline=None)
@given(LABELLED, st.integers(0, 3))
def test_no_group_and_no_content_is_in_two_splits(rows: list[tuple[str, int, int]], seed: int) -> None:
    clips = [
        Clip(f"clip{index}.wav", label, f"{content:02d}", f"group {group}" if group else None)
        for index, (label, content, group) in enumerate(rows)
    ]
    splits = assign_splits(clips, seed, lambda line: None)
    together = defaultdict(set)
    for clip, split in zip(clips, splits, strict=True):
        together[clip.content].add(split)
        if clip.group is not None:
            together[clip.group].add(split)
    assert all(len(one) == 1 for one in together.values())
