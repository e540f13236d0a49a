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
from mint.data.corpora.own.table import read_own_table
from mint.data.corpora.public.prepare import prepare_table
from mint.data.corpora.recordings import Recordings, audio_files, is_recording
from mint.data.manifests.manifest import read_manifest
from mint.files import walk
from tiny_corpora import WAV, record, tone, write


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
