"""Clips in tar shards: as WebDataset names them, and read with the same results as from files."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from mint.cli import main
from mint.data.audio.decode import load_audio, load_windows, probe
from mint.data.audio.listen import check_audio
from mint.data.audio.members import HEAD, digest, locate, open_stored
from mint.data.features.cache import FeatureCache, clip_key
from mint.data.features.encode import fill_cache
from mint.data.manifests.manifest import read_manifest, write_manifest
from mint.data.manifests.tar_shards import write_shards
from mint.data.manifests.validate import validate
from mint.encoders.tiny import TinyEncoder
from mint.types import Example, MintError

FORMATS = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff")


def write_clip(path: Path, seconds: float = 2.0, seed: int = 0) -> Path:
    options = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * 16000)), 16000, **options)
    return path


def example(audio: Path, **changes: object) -> Example:
    base = Example(id=audio.name, audio=audio, task="labels", split="train", corpus="c", answer="dog")
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """One clip of each format, and two parts of a further file."""
    clips = [example(write_clip(tmp_path / f"ü {n}{suffix}", seed=n)) for n, suffix in enumerate(FORMATS)]
    long = write_clip(tmp_path / "long.wav", 3.0, seed=9)
    parts = [example(long, id=f"long {start}", start=start, duration=1.0) for start in (0.0, 1.5)]
    write_manifest(tmp_path / "clips.jsonl", [*clips, *parts])
    return tmp_path / "clips.jsonl"


def test_the_same_samples_as_from_files(manifest: Path, tmp_path: Path) -> None:
    result = write_shards(manifest, tmp_path / "shards")
    assert (result.clips, result.shards, result.skipped) == (8, 1, ())
    pairs = list(zip(read_manifest(manifest), read_manifest(result.manifest), strict=True))
    assert len(pairs) == 8
    for plain, stored in pairs:
        assert replace(stored, audio=plain.audio) == plain
        assert stored.audio.name.startswith("000000.tar::")
        assert probe(stored.audio) == probe(plain.audio)
        assert digest(stored.audio) == digest(plain.audio)
        assert clip_key(stored) == clip_key(plain)
        for part in ((0.0, None), (0.7, 0.5), (plain.start, plain.duration)):
            np.testing.assert_array_equal(load_audio(stored.audio, 8000, *part), load_audio(plain.audio, 8000, *part))
        windows = [list(load_windows(one.audio, 16000, max_seconds=0.7)) for one in (plain, stored)]
        np.testing.assert_array_equal(windows[0], windows[1])
        check_audio(stored.audio)
    assert validate([result.manifest]).problems == []


def test_features_of_files_serve_their_shards(manifest: Path, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "features", TinyEncoder.identity)
    assert fill_cache(cache, TinyEncoder(), read_manifest(manifest), 30.0).encoded == 8
    stored = read_manifest(write_shards(manifest, tmp_path / "shards").manifest)
    assert fill_cache(cache, TinyEncoder(), stored, 30.0).encoded == 0


def test_names_as_webdataset_expects(manifest: Path, tmp_path: Path) -> None:
    write_shards(manifest, tmp_path / "shards")
    with tarfile.open(tmp_path / "shards" / "000000.tar") as shard:
        names = shard.getnames()
        lines = {name: json.load(shard.extractfile(name) or io.BytesIO()) for name in names if name.endswith("json")}
    expected = [(f"{n:06d}{suffix}", f"{n:06d}.json") for n, suffix in enumerate([*FORMATS, ".wav"])]
    assert names == [*(name for pair in expected for name in pair), "000006.1.json"]
    assert lines["000003.json"] == {
        **{"id": "ü 3.mp3", "audio": "000003.mp3", "task": "labels", "split": "train", "corpus": "c", "answer": "dog"}
    }
    assert [lines[f"000006.{rest}"]["id"] for rest in ("json", "1.json")] == ["long 0.0", "long 1.5"]


@pytest.mark.parametrize("most", [1, 100_000, 150_000, 1 << 30])
def test_shards_are_bounded_and_always_the_same(manifest: Path, tmp_path: Path, most: int) -> None:
    first, second = (write_shards(manifest, tmp_path / name, most) for name in ("a", "b"))
    shards = sorted((tmp_path / "a").glob("*.tar"))
    assert len(shards) == first.shards == second.shards
    for number, shard in enumerate(shards):
        assert shard.name == f"{number:06d}.tar"
        assert shard.read_bytes() == (tmp_path / "b" / shard.name).read_bytes()
        with tarfile.open(shard) as opened:
            single = len({name.partition(".")[0] for name in opened.getnames()}) == 1
        assert shard.stat().st_size <= most or single
    if most == 1:
        assert first.shards == 7
    assert [one.id for one in read_manifest(first.manifest)] == [one.id for one in read_manifest(manifest)]


def test_shards_of_shards(manifest: Path, tmp_path: Path) -> None:
    first = write_shards(manifest, tmp_path / "a", 1)
    write_shards(first.manifest, tmp_path / "b")
    write_shards(manifest, tmp_path / "c")
    assert (tmp_path / "b" / "000000.tar").read_bytes() == (tmp_path / "c" / "000000.tar").read_bytes()


def test_missing_files_are_skipped_and_named(tmp_path: Path) -> None:
    clips = [example(write_clip(tmp_path / "1.wav")), example(tmp_path / "2.wav")]
    write_manifest(tmp_path / "m.jsonl", clips)
    result = write_shards(tmp_path / "m.jsonl", tmp_path / "shards")
    assert [one.id for one in read_manifest(result.manifest)] == ["1.wav"]
    ((name, reason),) = result.skipped
    assert name == "2.wav"
    assert reason == f"{tmp_path / '2.wav'}: No such file or directory"
    write_manifest(tmp_path / "m.jsonl", clips[1:])
    with pytest.raises(MintError, match=r"no clip can be read; the first: .*2\.wav: No such file"):
        write_shards(tmp_path / "m.jsonl", tmp_path / "none")


def test_an_interruption_is_begun_anew(manifest: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(manifest.read_bytes() + b"{\n")
    with pytest.raises(MintError, match=r"broken\.jsonl, line 9: not valid JSON"):
        write_shards(broken, tmp_path / "shards", 100_000)
    left = sorted(path.name for path in (tmp_path / "shards").iterdir())
    assert left
    assert all(name.endswith(".tar") for name in left)
    assert write_shards(manifest, tmp_path / "shards").shards == 1
    with pytest.raises(MintError, match="holds sharded clips already; choose another folder"):
        write_shards(manifest, tmp_path / "shards")


def tar_with(path: Path, **members: bytes) -> Path:
    with tarfile.open(path, "w") as shard:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))
    return path


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from([b"x", bytes(range(256)) * 3, bytes(range(251)) * (3 * HEAD // 251)]),
    st.lists(
        st.tuples(st.just("seek"), st.integers(-10, 4 * HEAD), st.sampled_from([0, 1, 2]))
        | st.tuples(st.just("read"), st.integers(-1, 2 * HEAD), st.just(0)),
        max_size=20,
    ),
)
def test_a_member_is_a_file_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, actions: list[tuple[str, int, int]]
) -> None:
    shard = tar_with(tmp_path_factory.mktemp("tar") / "s.tar", before=b"x" * 700, it=content, after=b"y" * 700)
    plain = io.BytesIO(content)
    with open_stored(f"{shard}::it") as stored:
        for action, number, whence in actions:
            if action == "read":
                assert stored.read(number) == plain.read(number)
            elif {0: 0, 1: plain.tell(), 2: len(content)}[whence] + number >= 0:
                assert stored.seek(number, whence) == plain.seek(number, whence)
            assert stored.tell() == plain.tell()


def shard_is_missing(path: Path) -> None:
    pass


def shard_is_a_folder(path: Path) -> None:
    path.mkdir()


def shard_is_no_tar(path: Path) -> None:
    path.write_bytes(b"no tar" * 1000)


def shard_is_cut(path: Path) -> None:
    tar_with(path, **{"1.wav": bytes(10_000), "2.wav": bytes(10_000)})
    os.truncate(path, 10_500)


def shard_has_other_members(path: Path) -> None:
    tar_with(path, **{"3.wav": b"x"})


def member_is_no_audio(path: Path) -> None:
    tar_with(path, **{"2.wav": b"x" * 100})


def member_is_empty(path: Path) -> None:
    tar_with(path, **{"2.wav": b""})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (shard_is_missing, "no such audio file"),
        (shard_is_a_folder, "no such audio file"),
        (shard_is_no_tar, r"it cannot be read \(.* is not a tar file that can be read"),
        (shard_is_cut, r"it cannot be read|no such audio file"),
        (shard_has_other_members, r"no such audio file \(.*s\.tar has no member '2\.wav'\)"),
        (member_is_no_audio, "not audio that can be decoded"),
        (member_is_empty, r"the file is empty \(0 bytes\)"),
    ],
)
def test_broken_shards_are_one_line(tmp_path: Path, make: object, message: str) -> None:
    make(tmp_path / "s.tar")  # type: ignore[operator]
    member = tmp_path / "s.tar::2.wav"
    for read in (lambda: load_audio(member, 16000), lambda: probe(member), lambda: check_audio(member)):
        with pytest.raises(MintError, match=rf"s\.tar::2\.wav: .*({message})") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_a_shard_that_is_written_again_is_read_again(tmp_path: Path) -> None:
    shard = tar_with(tmp_path / "s.tar", it=b"one")
    assert digest(f"{shard}::it") != digest(f"{tar_with(tmp_path / 't.tar', it=b'two, longer')}::it")
    assert locate(f"{shard}::it").size == 3
    tar_with(shard, other=b"x" * 600, it=b"two, longer")
    os.utime(shard, (1, 1))
    assert locate(f"{shard}::it").size == 11
    assert open_stored(f"{shard}::it").read() == b"two, longer"


def test_the_verb(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "shard", str(manifest), "--output", str(tmp_path / "shards")]
    assert main([*command, "--megabytes", "0.1"]) == 0
    written = sorted((tmp_path / "shards").glob("*.tar"))
    assert len(written) > 1
    out = capsys.readouterr().out
    assert out == f"{tmp_path / 'shards' / 'clips.jsonl'}: 8 clips in {len(written)} shards, 0 skipped\n"
    assert main(command) == 2
    assert "holds sharded clips already" in capsys.readouterr().err
    assert main(["data", "validate", str(tmp_path / "shards" / "clips.jsonl")]) == 0


@pytest.fixture(autouse=True)
def _no_open_files() -> Iterator[None]:
    """Readers close what they open."""
    folder = Path("/proc/self/fd")
    before = len(list(folder.iterdir())) if folder.is_dir() else 0
    yield
    assert (len(list(folder.iterdir())) if folder.is_dir() else 0) <= before
