"""Recordings are found by name at any depth, behind links, and hidden ones are left out."""

from __future__ import annotations

import io
import tarfile
import unicodedata
from pathlib import Path

import pytest

from mint.cli._clips import audio_below
from mint.data.corpora.outputs import read_skipped
from mint.data.corpora.own.folder import read_source
from mint.data.corpora.public.prepare import prepare_table
from mint.data.corpora.recordings import Recordings, audio_files, is_recording
from mint.data.manifests.manifest import read_manifest
from mint.files import walk
from tiny_corpora import record, tone, write


def test_recordings_are_found_at_any_depth_by_name(tmp_path: Path) -> None:
    record(tmp_path, "b/same.wav", "a/deep/same.flac", "a/UPPER.WAV", "a/dots.in.name.mp3", "a/notes.txt")
    recordings = Recordings(tmp_path)
    assert recordings.find("same") == tmp_path / "a" / "deep" / "same.flac", "the first in the order of names"
    assert recordings.find("none", "UPPER") == tmp_path / "a" / "UPPER.WAV"
    assert recordings.find("dots.in.name") == tmp_path / "a" / "dots.in.name.mp3"
    assert not recordings.find("notes").exists()
    assert not recordings.find("upper").exists()


def test_a_format_that_can_be_decoded_is_preferred(tmp_path: Path) -> None:
    record(tmp_path, "audio/a.m4a", "wav/a.WAV", "video/b.mp4", "wav/b.wav", "c.MP4", "d.flac", "e/d.mp4", "f.mkv")
    accented = unicodedata.normalize("NFD", "ü")
    record(tmp_path, f"audio/{accented}.webm", "wav/ü.flac", f"wav/{accented}2.flac", "video/ü2.mp4")
    recordings = Recordings(tmp_path)
    found = [recordings.find(name).relative_to(tmp_path).as_posix() for name in ("a", "b", "c", "d", "f", "ü")]
    assert found == ["wav/a.WAV", "wav/b.wav", "c.MP4", "d.flac", "f.mkv", "wav/ü.flac"]
    assert recordings.find("ü2").is_file()
    assert recordings.find("ü2").suffix == ".flac"


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    record(tmp_path / "elsewhere", "a.wav")
    record(tmp_path / "corpus" / "deep", "b.wav")
    (tmp_path / "corpus" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "corpus" / "deep" / "up").symlink_to(tmp_path / "corpus")
    assert [Path(parent).name for parent, _ in walk(tmp_path / "corpus")] == ["corpus", "deep", "linked"]
    assert Recordings(tmp_path / "corpus").find("a") == tmp_path / "corpus" / "linked" / "a.wav"


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder with two labels, one of them deep behind links, hidden files and folders, and a circle."""
    source = tmp_path / "sounds"
    for number in range(4):
        tone(source / "cat" / f"{number}.wav", number)
        tone(tmp_path / "disk" / "dogs" / f"{number}.wav", 10 + number)
    tone(source / "cat" / ".hidden.wav", 90)
    tone(source / "cat" / "._0.wav", 91)
    tone(source / ".trash" / "old.wav", 92)
    tone(source / "dog" / ".trash" / "old.wav", 93)
    (source / "dog" / "deep").mkdir()
    (source / "dog" / "deep" / "linked").symlink_to(tmp_path / "disk" / "dogs")
    (source / "dog" / "deep" / "up").symlink_to(source / "dog")
    return source


def test_folder_search_and_public_readers_see_the_same_files(linked: Path, tmp_path: Path) -> None:
    names = [f"cat/{number}.wav" for number in range(4)] + [f"dog/deep/linked/{number}.wav" for number in range(4)]
    assert [path.relative_to(linked).as_posix() for path in audio_files(linked)] == names
    assert audio_below([str(linked)]) == [str(linked / name) for name in names]
    examples = list(read_manifest(read_source(linked, tmp_path / "out")))
    assert [example.id for example in examples] == names
    assert {example.answer for example in examples} == {"cat", "dog"}
    recordings = Recordings(linked)
    assert recordings.find("3") == linked / "cat" / "3.wav"
    for hidden in (".hidden", "._0", "old"):
        assert not recordings.find(hidden).exists()


def shard(path: Path, clips: Path) -> Path:
    """A tar with all recordings of a folder."""
    with tarfile.open(path, "w") as tar:
        for clip in sorted(clips.rglob("*.wav")):
            content = clip.read_bytes()
            member = tarfile.TarInfo(clip.name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_tables_may_name_members_of_tar_shards(tmp_path: Path) -> None:
    for number in range(8):
        tone(tmp_path / "clips" / f"{number}.wav", number)
    (tmp_path / "shards").mkdir()
    shard(tmp_path / "shards" / "000.tar", tmp_path / "clips")
    rows = [f"shards/000.tar::{number}.wav,{'ab'[number % 2]}" for number in range(8)]
    table = write(tmp_path / "t.csv", "audio,label", *rows, "shards/000.tar::9.wav,a", "shards/001.tar::0.wav,b")

    manifest = prepare_table(table, tmp_path / "csv", seed=0)
    assert [example.audio.name for example in read_manifest(manifest)] == [f"000.tar::{n}.wav" for n in range(8)]
    assert [one["audio"] for one in read_skipped(manifest)] == ["shards/000.tar::9.wav", "shards/001.tar::0.wav"]

    plain = write(tmp_path / "p.csv", "audio,label", *(f"clips/{number}.wav,{'ab'[number % 2]}" for number in range(8)))
    stored = list(read_manifest(read_source(table, tmp_path / "folder")))
    files = list(read_manifest(read_source(plain, tmp_path / "plain")))
    assert [(one.answer, one.split, one.captions) for one in stored] == [
        (one.answer, one.split, one.captions) for one in files
    ], "the same bytes are divided alike"
    assert all(is_recording(one.audio) for one in stored)


def test_what_is_no_recording() -> None:
    assert not is_recording(Path("nul\0l.wav"))
    assert not is_recording(Path("no/where.tar::a.wav"))
    assert not is_recording(Path("nul\0l.tar::a.wav"))
    assert not is_recording(Path())
