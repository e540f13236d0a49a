"""Indexed manifests: the same examples, items, draws and features as from examples in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mint.files
from mint.data.batches.items import ItemDataset, caption_items, instruction_items
from mint.data.batches.sampler import MixtureSampler
from mint.data.features import file_digests as digests_module
from mint.data.features.prepare import open_examples, prepare_features, read_examples
from mint.data.manifests import index as lines_module
from mint.data.manifests.index import of_splits, read_lines
from mint.data.manifests.manifest import SPLITS, write_manifest
from mint.encoders.tiny import TinyEncoder
from mint.types import CAPTION_PROMPT, Example, MintError

RATE = 16000


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))


def some_examples(folder: Path, count: int = 12) -> list[Example]:
    """All that differs from line to line does."""
    return [
        Example(
            id=str(number),
            audio=folder / "audio" / f"{number % 5}.wav",
            task=("notes", "chords", "captioning")[number % 3],
            split=SPLITS[number % 4 if number > 7 else 0],
            corpus="a" if number % 2 else "b ä",
            start=0.1 * (number % 3),
            duration=None if number % 2 else 0.2,
            prompt=(None, "The key is", CAPTION_PROMPT)[number % 3],
            answer=(None, f"key {number}")[number % 2],
            captions=tuple(f"caption {number} {index}" * (index + 1) for index in range(number % 4)),
        )
        for number in range(count)
    ]


def write(folder: Path, examples: Sequence[Example], name: str = "m.jsonl") -> Path:
    (folder / "audio").mkdir(exist_ok=True)
    for number in range(5):
        noise = np.random.default_rng(number).uniform(-1, 1, RATE)
        soundfile.write(folder / "audio" / f"{number}.wav", noise, RATE)
        os.utime(folder / "audio" / f"{number}.wav", (1, 1))
    write_manifest(folder / name, examples)
    return folder / name


def test_lines_are_the_examples(tmp_path: Path) -> None:
    paths = [write(tmp_path, some_examples(tmp_path)), write(tmp_path, some_examples(tmp_path, 7)[::-1], "n.jsonl")]
    paths[0].write_bytes(b"\n" + paths[0].read_bytes().replace(b"\n", b"\r\n \n", 3).rstrip(b"\n"))
    expected = read_examples(paths)
    for _ in range(2):  # made, and read from the disk
        lines = read_lines(paths)
        assert list(lines) == expected
        assert [lines[index] for index in (0, -1, 5)] == [expected[index] for index in (0, -1, 5)]
        assert list(lines[3:9]) == expected[3:9]
        assert set(lines.file_paths()) == {str(example.audio) for example in expected}
        for splits in (("train",), ("train", "unseen"), SPLITS, ()):
            assert list(lines.of_splits(splits)) == of_splits(expected, splits)
    assert list(read_lines([*paths, *paths])) == expected * 2


def test_the_index_is_kept_and_made_anew_for_a_changed_manifest(tmp_path: Path, monkeypatch: Any) -> None:
    examples = some_examples(tmp_path)
    path = write(tmp_path, examples)
    read_lines([path])
    with monkeypatch.context() as patch:
        patch.setattr(lines_module, "_read", None)
        assert list(read_lines([path])) == examples
    write_manifest(path, examples[:3])
    assert list(read_lines([path])) == examples[:3]
    (kept,) = (tmp_path / "cache" / "manifests").iterdir()
    for damaged in (kept.read_bytes()[:-30], b"", b"PK"):
        kept.write_bytes(damaged)
        assert list(read_lines([path])) == examples[:3]


def test_half_written_indices_of_killed_processes_are_removed(tmp_path: Path) -> None:
    read_lines([write(tmp_path, some_examples(tmp_path))])
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = mint.files._host()
    dead = tmp_path / "cache" / "manifests" / f".0.npz.{host}-{ended.pid}-00000000.tmp"
    living = dead.with_name(f".0.npz.{host}-{os.getpid()}-00000000.tmp")
    for path in (dead, living):
        path.write_bytes(b"half")
    read_lines([write(tmp_path, some_examples(tmp_path)[:2])])
    assert (dead.exists(), living.exists()) == (False, True)


def test_where_no_index_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "file"))
    assert list(read_lines([write(tmp_path, some_examples(tmp_path))])) == some_examples(tmp_path)


def test_a_manifest_that_changes_in_use(tmp_path: Path) -> None:
    examples = some_examples(tmp_path)
    lines = read_lines([write(tmp_path, examples)])
    changes: list[dict[str, Any]] = [{"id": "x"}, {"audio": examples[1].audio}, {"start": 0.01}, {"duration": 0.3}]
    for others in (examples[1:], *([replace(examples[0], **change), *examples[1:]] for change in changes)):
        write_manifest(tmp_path / "m.jsonl", others)
        with pytest.raises(MintError, match=r"m\.jsonl was changed while it was in use; start again"):
            lines[0]
    (tmp_path / "m.jsonl").unlink()
    with pytest.raises(MintError, match="was changed while it was in use"):
        lines[0]


def test_mistakes_name_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path, some_examples(tmp_path))
    path.write_bytes(path.read_bytes() + b'\n{"id": 3}\n')
    with pytest.raises(MintError, match=r"m\.jsonl, line 14: id is 3; it must be text, not empty"):
        read_lines([path])
    with pytest.raises(MintError, match="no such manifest"):
        open_examples([tmp_path / "no.jsonl"])
    with pytest.raises(MintError, match=r"data\.manifests is empty"):
        open_examples([])


@pytest.mark.parametrize("make", [caption_items, instruction_items])
def test_items_are_those_of_the_examples(tmp_path: Path, make: Any) -> None:
    examples = some_examples(tmp_path, 40)
    lazy, eager = make(read_lines([write(tmp_path, examples)])), make(examples)
    assert (list(lazy), len(lazy), lazy[3:5]) == (list(eager), len(eager), eager[3:5])
    assert lazy.tasks() == eager.tasks()
    for weights in ({}, {"a": 1}, {"a": 1, "b ä": 2, "notes": 3}):
        assert lazy.groups(weights) == eager.groups(weights)
    assert list(lazy.sizes()) == list(eager.sizes())
    assert list(lazy.asking()) == list(eager.asking())


texts = st.text(st.characters(exclude_categories=()), max_size=5)


@given(rows=st.lists(st.tuples(texts, texts | st.none(), texts | st.none(), st.lists(texts, max_size=2)), max_size=6))
@settings(deadline=None, max_examples=40)
def test_items_of_any_texts(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    """Half surrogate pairs, zero bytes and empty texts among them."""
    folder = tmp_path_factory.mktemp("any")
    examples = [
        Example(f"{n}{a}", folder / f"x{n}.wav", f"t{a}", "train", "c", prompt=p, answer=b, captions=tuple(captions))
        for n, (a, p, b, captions) in enumerate(rows)
    ]
    write_manifest(folder / "m.jsonl", examples)
    lines = read_lines([folder / "m.jsonl"])
    assert list(lines) == examples
    for make in (caption_items, instruction_items):
        lazy, eager = make(lines), make(examples)
        assert list(lazy) == list(eager)
        assert (lazy.tasks(), list(lazy.sizes())) == (eager.tasks(), list(eager.sizes()))


def test_a_run_draws_the_same_from_both(tmp_path: Path) -> None:
    path = write(tmp_path, some_examples(tmp_path, 30))
    draws = []
    for examples in (open_examples([path], ("train",)), of_splits(read_examples([path]), ("train",))):
        features = prepare_features(TinyEncoder(), examples)
        items = instruction_items(features.usable(examples))
        sampler = MixtureSampler(items.tasks(), {"chords": 2}, 50, 3, sizes=items.sizes(), batch_size=4)
        dataset = ItemDataset(items, features.draw)
        draws.append([dataset[draw] for draw in sampler])
    assert len(draws[0]) == 50
    for ours, other in zip(*draws, strict=True):
        assert torch.equal(ours.pop("features"), other.pop("features"))
        assert ours == other


def test_features_of_lines(tmp_path: Path) -> None:
    examples = some_examples(tmp_path)
    examples[4] = replace(examples[4], audio=tmp_path / "missing.wav")
    path = write(tmp_path, examples)
    usable = [example for example in examples if example.id != "4"]
    for encoded in (11, 0):  # every line is a part of its own
        lines = open_examples([path])
        features = prepare_features(TinyEncoder(), lines)
        assert (features.encoded, [one.id for one in features.skipped]) == (encoded, ["4"])
        assert list(features.usable(lines)) == usable
        assert list(features.usable(examples)) == usable
        for example in usable:
            assert torch.equal(features.mean(example), prepare_features(TinyEncoder(), [example]).mean(example))
    noise = np.random.default_rng(99).uniform(-1, 1, RATE)
    soundfile.write(tmp_path / "audio" / "1.wav", noise, RATE)
    changed = prepare_features(TinyEncoder(), open_examples([path]))
    assert changed.encoded == sum(example.audio.name == "1.wav" for example in usable)


def test_parts_that_move_are_encoded_again(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(digests_module, "UNSURE", -(10**12))
    examples = some_examples(tmp_path)
    path = write(tmp_path, examples)
    for encoded in (12, 0):
        assert prepare_features(TinyEncoder(), open_examples([path])).encoded == encoded
    path = write(tmp_path, [replace(example, start=example.start + 0.0001) for example in examples])
    for encoded in (12, 0):
        assert prepare_features(TinyEncoder(), open_examples([path])).encoded == encoded
