"""Recordings without labels: which folders are such, and what stands in the place of labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mint.data.corpora.own.folder import read_source
from mint.data.corpora.own.weak import hear, is_unlabelled
from mint.data.manifests.manifest import read_manifest
from mint.encoders.tiny import TinyEncoder
from mint.types import NamedClasses

NAMES = ("Dog", "Rain", "Sneeze", "Animal")


def write(folder: Path, *names: str) -> None:
    """Write a short recording under each name, of a loudness that tells the names apart."""
    for index, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(index).uniform(-0.5, 0.5, 4000), 16000)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["1.wav", "2.wav", "3.wav"], True),
        (["a_1.wav", "b_1.wav", "c_1.wav", "d_1.wav"], True),  # four kinds of one each are no kinds
        (["a_1.wav", "a_2.wav", "a_3.wav", "a_4.wav"], True),  # one kind tells nothing
        (["a_1.wav", "a_2.wav", "a_3.wav", "b_1.wav", "b_2.wav", "b_3.wav"], False),
        (["a_1.wav", "a_2.wav", "a_3.wav", "b_1.wav", "b_2.wav", "b_3.wav", *(f"{n}.wav" for n in range(9))], True),
        (["dog/1.wav", "cat/1.wav"], False),
    ],
)
def test_which_folders_have_no_labels(names: list[str], wanted: bool, tmp_path: Path) -> None:
    write(tmp_path / "source", *names)
    assert is_unlabelled(tmp_path / "source") is wanted


def test_a_table_has_labels(tmp_path: Path) -> None:
    write(tmp_path, "1.wav", "2.wav")
    (tmp_path / "metadata.csv").write_text("file_name,label\n1.wav,dog\n2.wav,cat\n")
    assert not is_unlabelled(tmp_path)
    assert not is_unlabelled(tmp_path / "metadata.csv")
    assert not is_unlabelled(tmp_path / "missing")


def classes_for(recordings: dict[str, int], folder: Path) -> NamedClasses:
    """Return a classifier that hears in each recording the class of its number, and a heading in all of them."""
    encoder = TinyEncoder()
    means = []
    for name in recordings:
        samples = torch.from_numpy(soundfile.read(folder / name, dtype="float32")[0])[None]
        means.append(encoder.encode(samples, torch.tensor([samples.shape[1]]))[0][0].mean(dim=0))
    inputs = torch.stack(means)  # [N, D]
    wanted = torch.full((len(recordings), len(NAMES)), -6.0)
    wanted[torch.arange(len(recordings)), torch.tensor(list(recordings.values()))] = 2.0
    wanted[:, 3] = 4.0
    weight = torch.linalg.lstsq(inputs, wanted).solution.T
    return NamedClasses(NAMES, weight, torch.zeros(len(NAMES)), tokens=1000, samples=320000, least=None)


def test_what_is_heard_stands_in_the_place_of_labels(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    recordings = {f"{number}.wav": number // 3 for number in range(6)}
    write(folder, *recordings)
    (folder / "broken.wav").write_bytes(b"nothing")
    paths = sorted(folder.iterdir())
    heard = hear(paths, TinyEncoder(), classes_for(recordings, folder))
    assert {path.name: words.name for path, words in heard.items()} == {
        name: NAMES[number] for name, number in recordings.items()
    }

    examples = list(read_manifest(read_source(folder, tmp_path / "out", heard=heard)))
    assert {example.id: example.labels for example in examples} == {
        name: (("dog", "rain")[number],) for name, number in recordings.items()
    }
    assert all(example.captions[0][:-1] in ("A dog barks", "Rain falls") for example in examples)
    assert "broken.wav" in (tmp_path / "out" / "labels.skipped.jsonl").read_text()


def test_a_class_of_one_recording_gives_way(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    recordings = dict(zip((f"{number}.wav" for number in range(7)), (0, 0, 0, 1, 1, 1, 2), strict=True))
    write(folder, *recordings)
    heard = hear(sorted(folder.iterdir()), TinyEncoder(), classes_for(recordings, folder))
    assert {words.name for words in heard.values()} == {"Dog", "Rain"}
    assert folder / "6.wav" not in heard  # its next classes are heard too faintly
