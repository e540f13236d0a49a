"""Features belong to a clip, whatever it is called: equal names mix nothing up, in lists and in indexed manifests."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from mint.cli import main
from mint.data.audio.decode import load_audio
from mint.data.batches.items import ItemDataset, instruction_items
from mint.data.features import file_digests as digests_module
from mint.data.features.encode import encode_samples, fill_cache
from mint.data.features.prepare import Features, open_examples, prepare_features, read_examples
from mint.data.manifests.index import Lines
from mint.data.manifests.manifest import write_manifest
from mint.encoders.tiny import TinyEncoder
from mint.types import Example

RATE = 16000


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests_module, "UNSURE", -(10**12))  # every file is old


def write_noise(path: Path, seed: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).uniform(-1, 1, RATE), RATE, "FLOAT")
    return path


@pytest.fixture
def manifests(tmp_path: Path) -> list[Path]:
    """Two tables of one name, whose clips have the same ids, and a manifest in which an id stands twice."""
    found = []
    for number, name in enumerate(("first", "second")):
        for clip in range(3):
            write_noise(tmp_path / name / f"{clip}.wav", 10 * number + clip)
        table = "".join(f"{clip}.wav,thing {name}\n" for clip in range(3))
        (tmp_path / name / "clips.csv").write_text(f"audio,label\n{table}")
        output = tmp_path / f"{name}.jsonl"
        assert (
            main(["data", "prepare", "csv", "--source", str(tmp_path / name / "clips.csv"), "--output", str(output)])
            == 0
        )
        found.append(output)
    audio = write_noise(tmp_path / "third" / "0.wav", 20)
    twice = [Example("x", audio, "t", "train", "c", start=0.3 * part, duration=0.2, answer="a") for part in range(2)]
    write_manifest(tmp_path / "third.jsonl", twice)
    return [*found, tmp_path / "third.jsonl"]


def check(features: Features, examples: Sequence[Example]) -> None:
    """Each has its own."""
    assert list(features.usable(examples)) == list(examples)
    for example in examples:
        (window,) = features.windows(example)
        heard = load_audio(example.audio, RATE, example.start, example.duration)
        assert torch.equal(window, encode_samples(TinyEncoder(), heard))
        assert torch.equal(features.draw(example, 5), window)


def test_equal_names(manifests: list[Path]) -> None:
    examples = read_examples(manifests)
    assert len({(example.corpus, example.id) for example in examples}) == 4
    for encoded in (8, 0):
        for read in (open_examples, read_examples):
            features = prepare_features(TinyEncoder(), read(manifests))
            assert features.encoded == encoded
            check(features, read(manifests))
            encoded = 0


def test_a_clip_that_cannot_be_used_beside_one_of_its_name(manifests: list[Path], tmp_path: Path) -> None:
    (tmp_path / "second" / "1.wav").write_text("not audio")
    (tmp_path / "first" / "2.wav").unlink()
    bad = {tmp_path / "second" / "1.wav", tmp_path / "first" / "2.wav"}
    good = [example for example in read_examples(manifests) if example.audio not in bad]
    for _ in range(2):
        for read in (open_examples, read_examples):
            features = prepare_features(TinyEncoder(), read(manifests))
            assert [Path(one.audio) for one in features.skipped] == [
                tmp_path / "first" / "2.wav",
                tmp_path / "second" / "1.wav",
            ]
            assert list(features.usable(read(manifests))) == good
            assert [features.has(example) for example in good] == [True] * 6
            check(features, good)


def test_indexed_manifests_that_were_read_apart(manifests: list[Path]) -> None:
    """The order, and the number, of the files is another in each."""
    features = prepare_features(TinyEncoder(), open_examples(manifests))
    for some in (manifests[1:], manifests[::-1], [*manifests, manifests[0]]):
        lines = open_examples(some)
        assert isinstance(lines, Lines)
        assert list(features.usable(lines)) == list(lines)
    only = prepare_features(TinyEncoder(), open_examples(manifests[:1]))
    assert list(only.usable(open_examples(manifests))) == read_examples(manifests[:1])


def test_a_worker_that_is_spawned(manifests: list[Path]) -> None:
    """On macOS, and from Python 3.14 on, a worker has a copy of the dataset, without locks and open files."""
    lines = open_examples(manifests)
    features = prepare_features(TinyEncoder(), lines)
    dataset = ItemDataset(instruction_items(features.usable(lines)), features.draw)
    expected = [dataset[index, 0] for index in range(len(dataset))]  # opens the shards
    draws: Any = [(index, 0) for index in range(len(dataset))]
    loader = DataLoader(dataset, None, sampler=draws, num_workers=1, multiprocessing_context="spawn")
    for ours, other in zip(loader, expected, strict=True):
        assert torch.equal(ours.pop("features"), other.pop("features"))  # type: ignore[arg-type]
        assert ours == other
    listed = prepare_features(TinyEncoder(), read_examples(manifests))
    check(pickle.loads(pickle.dumps(listed)), read_examples(manifests))
    again = pickle.loads(pickle.dumps(features.cache))
    assert fill_cache(again, TinyEncoder(), read_examples(manifests), 30.0).encoded == 0


def test_a_file_that_is_encoded_anew(manifests: list[Path], tmp_path: Path) -> None:
    """The digest that was known before gives way."""
    prepare_features(TinyEncoder(), open_examples(manifests))
    write_noise(tmp_path / "first" / "0.wav", 99)
    lines = open_examples(manifests)
    features = prepare_features(TinyEncoder(), lines)
    assert features.encoded == 1
    check(features, lines)
