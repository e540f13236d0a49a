"""What training and test share, on clips of every corpus's naming, and against a plain comparison of all pairs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from mint.cli import main
from mint.data.audio.members import HEAD
from mint.data.manifests.leakage import SameBytes, find_leakage, leakage_record, normalised
from mint.data.manifests.manifest import write_manifest
from mint.data.manifests.recording_ids import Blacklist, read_blacklist, recording_ids
from mint.types import Example, MintError

TUBE = "-_bc4ef6hij"


def clip(name: str, **changes: Any) -> Example:
    base = Example(id=name, audio=Path("/no/where") / name, task="labels", split="train", corpus="mine", answer="dog")
    return replace(base, **changes)


@pytest.mark.parametrize(
    ("corpus", "name", "audio", "metadata", "expected"),
    [
        ("audioset", f"{TUBE}_30.000", "x.wav", {}, f"youtube:{TUBE}"),
        ("AudioSet-eval", "17", f"Y{TUBE}.wav", {}, f"youtube:{TUBE}"),
        ("vggsound", f"{TUBE}_000030", f"{TUBE}_000030.mp4", {}, f"youtube:{TUBE}"),
        ("audiocaps", "103549", f"{TUBE}_30_40.flac", {}, f"youtube:{TUBE}"),
        ("audiocaps", "103549", "103549.wav", {"youtube_id": TUBE}, f"youtube:{TUBE}"),
        ("audiocaps", "103549", f"{TUBE}_30.0-40.0.wav", {}, f"youtube:{TUBE}"),
        ("audiocaps", "103549", f"Y{TUBE}_30.000_40.000.MKV", {}, f"youtube:{TUBE}"),
        ("musiccaps", "17", f"[{TUBE}]-[30-40].wav", {}, f"youtube:{TUBE}"),
        ("musiccaps", "17", f"[{TUBE}]-[30.5-40.5]", {}, f"youtube:{TUBE}"),
        ("audioset", "17", "Yabcdefghij_30.wav", {}, "youtube:Yabcdefghij"),
        ("audioset", "17", "Yabcdefghij__30.wav", {}, "youtube:abcdefghij_"),
        ("audioset", "17", "abcdefgh_12_30.wav", {}, "youtube:abcdefgh_12"),
        ("audioset", "17", f"{TUBE}_30_40_50.wav", {}, None),
        ("audioset", "17", f"[{TUBE}_30.wav", {}, None),
        ("audioset", "17", f"{TUBE}s.wav", {}, None),
        ("musiccaps", TUBE, "x.wav", {}, f"youtube:{TUBE}"),
        ("musiccaps", "YYYYYYYYYYY", "x.wav", {}, "youtube:YYYYYYYYYYY"),
        ("fsd50k", "64760", "64760.wav", {}, "freesound:64760"),
        ("freesound", "x", "64760.flac", {}, "freesound:64760"),
        ("ESC-50", "1-100032-A-0", "1-100032-A-0.wav", {}, "freesound:100032"),
        ("clotho", "a (1).wav", "a (1).wav", {"freesound_id": "64760"}, "freesound:64760"),
        ("freesound", "train/63", "63.flac", {"freesound_id": ""}, ""),
        ("clotho", "64760 rain.wav", "64760 rain.wav", {}, None),
        ("wavcaps", f"Y{TUBE}.wav", f"AudioSet_SL/Y{TUBE}.flac", {}, f"youtube:{TUBE}"),
        ("wavcaps", "64760", "FreeSound/64760.flac", {}, "freesound:64760"),
        ("wavcaps", "64760", "x/64760.flac", {"source": "FreeSound"}, "freesound:64760"),
        ("wavcaps", "07038157", "BBC_Sound_Effects/07038157.flac", {}, None),
        ("wavcaps", "NHU05093027", "BBC_Sound_Effects/NHU05093027.flac", {}, None),
        ("wavcaps", "2226", "SoundBible/2226.flac", {}, None),
        ("notes", "64760", "64760.flac", {}, None),
    ],
)
def test_where_a_clip_comes_from(
    corpus: str, name: str, audio: str, metadata: dict[str, Any], expected: str | None
) -> None:
    example = clip(name, corpus=corpus, audio=Path("/data") / audio, metadata=metadata)
    assert recording_ids(example) == ({expected} if expected else set())


def test_clips_of_one_name_are_counted_each() -> None:
    training = [clip("x", corpus="freesound", metadata={"freesound_id": number}) for number in range(3)]
    tests = [clip("0.wav", corpus="clips", split="test", metadata={"freesound_id": number}) for number in range(4)]
    (split,) = find_leakage(training, tests).splits
    assert (split.clips, split.by_id, len(split.pairs)) == (4, 3, 3)


def test_recordings_shared_by_id() -> None:
    training = [
        clip("64760", corpus="freesound"),
        clip("64760", corpus="wavcaps", audio=Path("/w/FreeSound/64760.flac")),
        clip("5", corpus="freesound", split="validation"),
    ]
    tests = [
        clip("a", corpus="clotho", split="test", metadata={"freesound_id": 64760}),
        clip("b", corpus="clotho", split="test", metadata={"freesound_id": 5}),
        clip("c", corpus="clotho", split="test"),
        clip("d", corpus="clotho", split="train", metadata={"freesound_id": 64760}),
    ]
    report = find_leakage(training, tests)
    assert report.training_clips == 2
    (split,) = report.splits
    assert (split.corpus, split.task, split.split, split.clips) == ("clotho", "labels", "test", 3)
    assert (split.with_id, split.by_id, split.by_file, split.by_caption) == (2, 1, 0, 0)
    assert split.training_corpora == {"id": {"freesound": 1, "wavcaps": 1}}
    assert split.pairs == [("id", "freesound/64760", "clotho/a")]
    assert not report.clean()


def test_captions_in_the_same_words() -> None:
    training = [clip("1", captions=("A dog  barks, twice!", "")), clip("2", captions=("Rain",))]
    tests = [
        clip("a", split="test", captions=("other", "a DOG barks twice")),
        clip("b", split="unseen", captions=("a dog barks",)),
        clip("c", split="test", captions=("...",)),
    ]
    first, second = find_leakage(training, tests).splits
    assert (first.split, first.with_caption, first.by_caption) == ("test", 1, 1)
    assert (second.split, second.with_caption, second.by_caption) == ("unseen", 1, 0)
    assert find_leakage(training, tests).clean()


@pytest.mark.parametrize(
    ("one", "other"),
    [("Ein Café.", "ein café"), ("STRASSE", "straße"), ("a-b", "a b"), ("ﬁre", "fire")],
)
def test_ways_to_write_the_same_words(one: str, other: str) -> None:
    assert normalised(one) == normalised(other) != ""


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2, HEAD, HEAD + 1, 2 * HEAD]), st.integers(0, 2), st.booleans()), max_size=8
    ),
    st.integers(0, 8),
)
def test_files_with_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, contents: list[tuple[int, int, bool]], tested: int
) -> None:
    """Sizes, beginnings and ends coincide often; compared with reading everything."""
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / str(number) for number in range(len(contents))]
    for path, (size, byte, other_end) in zip(paths, contents, strict=True):
        path.write_bytes(bytes([byte]) * (size - 1) + (b"\xff" if other_end else bytes([byte])))
    files = SameBytes()
    assert all(files.add(path) for path in paths[:tested])
    for path in paths:
        expected = {other for other in paths[:tested] if other.read_bytes() == path.read_bytes()}
        assert set(files.same(path)) == expected


def test_files_in_the_report(tmp_path: Path) -> None:
    for name, content in {"1": b"one", "2": b"two", "3": b"one"}.items():
        (tmp_path / name).write_bytes(content)
    training = [clip("x", audio=tmp_path / "1"), clip("y", audio=tmp_path / "missing")]
    tests = [
        clip("a", audio=tmp_path / "3", split="test", start=5.0),
        clip("b", audio=tmp_path / "2", split="test"),
        clip("c", audio=tmp_path / "gone", split="test"),
    ]
    (split,) = find_leakage(training, tests).splits
    assert (split.with_file, split.by_file, split.pairs) == (2, 1, [("file", "mine/x", "mine/a")])
    (tmp_path / "1").unlink()
    assert find_leakage(training, tests).clean()


def blacklist(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_blacklists(tmp_path: Path) -> None:
    path = blacklist(tmp_path / "b.json", {"AudioSet": [f"Y{TUBE}.wav"], "FreeSound": ["64760", "7"], "Other": [1]})
    assert read_blacklist(path) == Blacklist(frozenset({f"youtube:{TUBE}", "freesound:64760", "freesound:7"}), 0)
    training = [clip("64760", corpus="freesound"), clip("8", corpus="freesound"), clip(TUBE, corpus="vggsound")]
    report = find_leakage(training, [clip("a", split="test")], [path])
    assert report.blacklists == {str(path): {"ids": 3, "clips": 2, "unread": 0}}
    assert not report.clean()


@pytest.mark.parametrize(
    ("content", "ids", "unread"),
    [
        ({"FreeSound": [64760, "7.wav", 7]}, {"freesound:64760", "freesound:7"}, 0),
        ({"AudioSet": [], "FreeSound": []}, set(), 0),
        ({"FreeSound": []}, set(), 0),
        (
            {"AudioSet": [f"Y{TUBE}.wav", "short", None, 5], "FreeSound": ["rain", {}, 0.5, True, "9"]},
            {f"youtube:{TUBE}", "freesound:9"},
            7,
        ),
    ],
)
def test_entries_of_blacklists(tmp_path: Path, content: Any, ids: set[str], unread: int) -> None:
    assert read_blacklist(blacklist(tmp_path / "b.json", content)) == Blacklist(frozenset(ids), unread)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such blacklist; check the path"),
        ("{", "is no blacklist"),
        ([1], "is no blacklist"),
        ({"AudioSet": 5}, "is no blacklist"),
        ({"FreeSound": {"64760": 1}}, "is no blacklist; it must hold lists AudioSet"),
        ({"FreeSound": ["rain", 0.5]}, "none of its 2 entries, such as 'rain', is a YouTube id or a Freesound number"),
        ({"Other": ["1"]}, "must hold lists AudioSet and FreeSound"),
    ],
)
def test_other_files_are_no_blacklists(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "b.json"
    if content is not None:
        blacklist(path, content)
    with pytest.raises(MintError, match=message):
        read_blacklist(path)


def test_nothing_to_compare() -> None:
    with pytest.raises(MintError, match="no clips to test on"):
        find_leakage([clip("1")], [clip("2", split="validation")])
    with pytest.raises(MintError, match="no clips to train on"):
        find_leakage([clip("1", split="test")], [clip("2", split="test")])


def test_nothing_that_could_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without ids, files and captions there is no leakage report; where some kinds are missing, it says which."""
    training, tests = [clip("1"), clip("2")], [clip("a", split="test"), clip("b", split="unseen")]
    with pytest.raises(
        MintError, match=r"nothing was compared: no test clip has a Freesound or YouTube id; no test clip"
    ):
        find_leakage(training, tests)
    for name, examples in {"train": training, "test": tests}.items():
        write_manifest(tmp_path / f"{name}.jsonl", examples)
    command = ["data", "leakage", str(tmp_path / "train.jsonl"), "--against", str(tmp_path / "test.jsonl")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "nothing was compared" in error
    assert "freesound_id" in error
    assert list(leakage_record([tmp_path / "train.jsonl"], tests)) == ["not_computed"]

    (tmp_path / "a.wav").write_bytes(b"one")
    write_manifest(tmp_path / "test.jsonl", [clip("a", split="test", audio=tmp_path / "a.wav", captions=("rain",))])
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == "note: nothing was compared by id: no test clip has a Freesound or YouTube id"
    assert lines[-1] == "note: nothing was compared by caption: no training clip has a caption"
    with_ids = [replace(one, metadata={"freesound_id": 7}) for one in tests]
    assert find_leakage(training, [*with_ids, clip("c", split="test", audio=tmp_path / "a.wav")]).not_compared() == {
        "id": "no training clip has a Freesound or YouTube id",
        "caption": "no test clip has a caption",
    }


def sweep(path: Path, seed: int, **changes: Any) -> Path:
    """Eight seconds of a melody of its own, changed as told, in a file."""
    rng = np.random.default_rng(seed)
    rate = changes.get("rate", 16000)
    notes = rng.uniform(300, 1900, (32, 3))
    time = np.arange(round(0.25 * rate)) / rate
    melody = np.concatenate([np.sin(2 * np.pi * note[:, None] * time).sum(axis=0) for note in notes])
    silence = np.zeros(round(changes.get("delay", 0.0) * rate))
    samples = np.concatenate([silence, changes.get("gain", 0.2) * melody])
    samples = samples[round(changes.get("begin", 0.0) * rate) :]
    soundfile.write(path, samples, rate, **changes.get("options", {}))
    return path


def test_copies_by_their_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shifted, cut, quieter, at another rate, and encoded anew; other melodies and what is too short are none."""
    training = [clip(f"t{seed}", audio=sweep(tmp_path / f"t{seed}.wav", seed)) for seed in range(6)]
    changes: list[dict[str, Any]] = [
        {"delay": 0.1234},
        {"begin": 3.3},
        {"gain": 0.01},
        {"rate": 44100},
        {"options": {"format": "MP3", "bitrate_mode": "CONSTANT", "compression_level": 0.8}},
        {"options": {"format": "OGG", "subtype": "OPUS"}, "begin": 0.5, "gain": 0.1},
    ]
    copies = []
    for seed, changed in enumerate(changes):
        copies.append(sweep(tmp_path / f"c{seed}", seed, **{"options": {"format": "WAV"}, **changed}))
    tests = [clip(f"c{seed}", split="test", audio=path) for seed, path in enumerate(copies)]
    tests += [clip(f"o{seed}", split="test", audio=sweep(tmp_path / f"o{seed}.wav", seed)) for seed in range(20, 22)]
    soundfile.write(tmp_path / "short.wav", np.zeros(8000), 16000)
    tests += [
        clip("short", split="test", audio=tmp_path / "short.wav"),
        clip("gone", split="test"),
        clip("again", split="test", task="other", audio=copies[1], start=1.0, duration=2.0),
        clip("silent start", split="test", task="other", audio=copies[0], duration=0.1),
    ]
    first, second = find_leakage(training, tests, sound=True).splits
    assert (first.clips, first.with_sound, first.by_sound, first.by_file) == (10, 8, 6, 0)
    assert first.pairs == [("sound", f"mine/t{seed}", f"mine/c{seed}") for seed in range(6)]
    assert first.training_corpora == {"sound": {"mine": 6}}
    assert (second.clips, second.with_sound, second.by_sound) == (2, 1, 1)
    assert second.pairs == [("sound", "mine/t1", "mine/again")]
    assert [split.with_sound for split in find_leakage(training, tests).splits] == [0, 0]


def test_the_verb_compares_sound_where_it_is_asked_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_manifest(tmp_path / "train.jsonl", [clip("t", audio=sweep(tmp_path / "t.wav", 0))])
    copy, other = sweep(tmp_path / "c.wav", 0, begin=0.1), sweep(tmp_path / "o.wav", 1)
    tests = [clip("c", split="test", audio=copy), clip("o", split="test", audio=other)]
    write_manifest(tmp_path / "test.jsonl", tests)
    command = ["data", "leakage", str(tmp_path / "train.jsonl"), "--against", str(tmp_path / "test.jsonl")]
    assert main(command) == 0
    assert "by sound" not in capsys.readouterr().out
    assert main([*command, "--sound"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines[1].split()) == "corpus task split clips by id by file by sound by caption"
    assert " ".join(lines[2].split()) == "mine labels test 2 0 of 0 0 of 2 1 of 2 0 of 0"
    assert lines[3] == "  same sound: mine/t (training), mine/c (test)"


def test_the_record_of_a_results_file(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.jsonl", [clip("1", captions=("rain",)), clip("2", split="test", captions=("Rain!",))])
    tests = [clip("2", split="test", captions=("Rain!",))]
    record = leakage_record([tmp_path / "m.jsonl", tmp_path / "m.jsonl"], tests)
    assert (record["training_clips"], record["splits"][0]["by_caption"]) == (1, 1)
    assert json.loads(json.dumps(record))["splits"][0]["pairs"] == [["caption", "mine/1", "mine/2"]]
    listed = blacklist(tmp_path / "b.json", {"FreeSound": [1, 1]})
    write_manifest(tmp_path / "f.jsonl", [clip("1", corpus="freesound")])
    record = leakage_record([tmp_path / "f.jsonl"], tests, [str(listed), str(listed)])
    assert record["blacklists"] == {str(listed): {"ids": 1, "clips": 1, "unread": 0}}
    no_list = leakage_record([tmp_path / "m.jsonl"], tests, ["gone.json"])
    assert no_list == {"not_computed": "gone.json: no such blacklist; check the path"}
    gone = leakage_record([tmp_path / "gone.jsonl"], tests)
    assert list(gone) == ["not_computed"]
    assert "gone.jsonl: no such manifest" in gone["not_computed"]


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_manifest(tmp_path / "train.jsonl", [clip("64760", corpus="freesound"), clip("7", corpus="freesound")])
    write_manifest(tmp_path / "esc.jsonl", [clip("1-64760-A-0", corpus="esc50", split="test")])
    write_manifest(tmp_path / "other.jsonl", [clip("1-8-A-0", corpus="esc50", split="test")])
    command = ["data", "leakage", str(tmp_path / "train.jsonl"), "--against"]
    assert main([*command, str(tmp_path / "other.jsonl")]) == 0
    capsys.readouterr()
    assert main([*command, str(tmp_path / "other.jsonl"), str(tmp_path / "esc.jsonl")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 training clips")
    assert lines[1].split() == ["corpus", "task", "split", "clips", "by", "id", "by", "file", "by", "caption"]
    assert " ".join(lines[2].split()) == "esc50 labels test 2 1 of 2 0 of 0 0 of 0"
    assert lines[3] == "  same id: freesound/64760 (training), esc50/1-64760-A-0 (test)"
    listed = blacklist(tmp_path / "b.json", {"FreeSound": ["7", "rain"]})
    assert main([*command, str(tmp_path / "other.jsonl"), "--blacklist", str(listed)]) == 1
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == f"{listed}: 1 training clips are on it (1 recordings; 1 entries unread)"
    )
    assert main([*command, str(tmp_path / "esc.jsonl"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["splits"][0]["by_id"] == 1
    assert main(["data", "leakage", str(tmp_path / "train.jsonl")]) == 2
    assert "no clips to test on" in capsys.readouterr().err
