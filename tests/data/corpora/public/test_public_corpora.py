"""What readers of public corpora share: the catalogue, folders that are wrong, and recordings that are not there."""

from __future__ import annotations

import inspect
import json
import random
import sys
from pathlib import Path

import pytest

from mint.cli import main
from mint.data.corpora import CORPORA
from mint.data.corpora.outputs import ignore
from mint.data.corpora.public import prepare as public
from mint.data.corpora.public.catalogue import CATALOGUE
from mint.data.corpora.public.prepare import READERS, prepare_public
from mint.data.manifests.manifest import read_manifest
from mint.data.manifests.prompts import PROMPTS
from mint.types import MintError
from tiny_corpora import prepared, record, write


def esc50(source: Path, clips: int) -> Path:
    lines = [f"1-{number}-A-0.wav,1,0,dog,True,{number},A" for number in range(clips)]
    write(source / "meta" / "esc50.csv", "filename,fold,target,category,esc10,src_file,take", *lines)
    return source


def counts(clips: int) -> str:
    """The note that stands the clips of `esc50` beside those that are published."""
    return f"ESC-50: its files name {clips} train; published are 1,200 train, 400 validation, 400 test"


def test_every_corpus_of_table_1_can_be_prepared() -> None:
    assert set(READERS) == set(CATALOGUE) <= set(CORPORA)
    named = {name.replace("-", "") for name in READERS}
    assert {corpus.lower().replace("-", "") for corpus in PROMPTS} <= named


def test_the_list_shows_size_licence_and_origin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    text = capsys.readouterr().out
    for name, entry in CATALOGUE.items():
        for part in (name, entry.task, entry.licence, entry.where, f"{entry.clips:,} clips", f"{entry.hours:,g} h"):
            assert part in text
    assert not any(sign in text for sign in ("http", "www.", ".com", ".org"))
    assert main(["data", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["clotho"]["clips"] == 5929
    assert "clips" not in rows["folder"]


@pytest.mark.parametrize("name", READERS)
def test_a_wrong_folder_is_one_line_that_says_what_and_where(name: str, tmp_path: Path) -> None:
    record(tmp_path / "mine", "dog.wav")
    for source, reason in ((tmp_path / "mine", "in it"), (tmp_path / "nowhere", "no such folder")):
        with pytest.raises(MintError) as caught:
            prepare_public(name, source, tmp_path / "out")
        message = str(caught.value)
        assert message.startswith(f"{source}: ")
        assert reason in message
        assert CATALOGUE[name].where in message
        assert "\n" not in message
    assert list((tmp_path / "out").iterdir()) == [], "nothing is left behind"


@pytest.mark.parametrize("name", READERS)
def test_readers_are_lazy(name: str, tmp_path: Path) -> None:
    examples = READERS[name](tmp_path / "nowhere", ignore, None)
    assert inspect.isgenerator(examples), "nothing is read, nor refused, before the first example is asked for"


def test_holes_are_counted_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = esc50(tmp_path / "ESC-50", 5)
    record(source / "audio", "1-0-A-0.wav", "1-3-A-0.wav")
    manifest = tmp_path / "data" / "mine.jsonl"
    assert main(["data", "prepare", "esc50", "--source", str(source), "--output", str(manifest)]) == 0
    listed = tmp_path / "data" / "mine.skipped.jsonl"
    assert capsys.readouterr().out.splitlines() == [
        f"note: {counts(5)}",
        f"{manifest}: 2 train",
        "  skipped 3: the recording is not on disk",
        f"  3 skipped in all, listed in {listed}",
    ]
    assert [example.id for example in read_manifest(manifest)] == ["1-0-A-0", "1-3-A-0"]
    missing = [json.loads(line)["audio"] for line in listed.read_text().splitlines()]
    assert missing == ["1-1-A-0", "1-2-A-0", "1-4-A-0"]
    record(source / "audio", *(f"{clip}.wav" for clip in missing))
    assert main(["data", "prepare", "esc50", "--source", str(source), "--output", str(manifest)]) == 0
    assert not listed.exists(), "a list of an earlier time does not stay"
    assert main(["data", "validate", str(manifest)]) == 0


def test_the_name_of_the_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = esc50(tmp_path / "ESC-50", 1)
    record(source / "audio", "1-0-A-0.wav")
    places = {"v1.2": "v1.2/esc50.jsonl", "a/foo.JSONL": "a/foo.JSONL", "b.jsonl": "b.jsonl"}
    for output, manifest in places.items():
        assert prepare_public("esc50", source, tmp_path / output) == tmp_path / manifest
        assert [example.id for example in read_manifest(tmp_path / manifest)] == ["1-0-A-0"]
    for corpus, output, cure in (
        ("esc50", "foo.parquet", "name it foo.jsonl, or give a folder"),
        ("esc50", "foo.CSV", "name it foo.jsonl, or give a folder"),
        ("folder", "foo.json", "name it foo.jsonl, or give a folder"),
        ("quickstart", "foo.jsonl", "give a folder"),
    ):
        place = tmp_path / "out" / output
        options = [] if corpus == "quickstart" else ["--source", str(source)]
        assert main(["data", "prepare", corpus, *options, "--output", str(place)]) == 2
        assert f"{place}: " in (line := capsys.readouterr().err)
        assert cure in line
    assert not (tmp_path / "out").exists(), "no folder of that name is made"
    (tmp_path / "old.csv").mkdir()
    assert prepare_public("esc50", source, tmp_path / "old.csv") == tmp_path / "old.csv" / "esc50.jsonl"


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool
) -> None:
    source = esc50(tmp_path / "ESC-50", 2)
    record(source / "audio", "1-0-A-0.wav", "1-1-A-0.wav")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    prepare_public("esc50", source, tmp_path)
    shown = capsys.readouterr().err
    assert ("ESC-50: " in shown and "clip" in shown) if terminal else shown == ""


def test_nothing_on_disk_is_an_error(tmp_path: Path) -> None:
    source = esc50(tmp_path / "ESC-50", 3)
    with pytest.raises(MintError, match=r"none of 3 recordings of ESC-50 is there; the first .*audio/1-0-A-0\.\*"):
        prepared("esc50", source)
    assert list((tmp_path / "manifests").iterdir()) == []


def test_metadata_alone_and_audio_elsewhere_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = esc50(tmp_path / "ESC-50", 3)
    record(tmp_path / "disk", "1-1-A-0.wav")
    command = ["data", "prepare", "esc50", "--source", str(source), "--output", str(tmp_path / "out")]
    manifest = tmp_path / "out" / "esc50.jsonl"
    assert main([*command, "--metadata-only"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "note: 3 of 3 recordings are not on disk; the manifest says where they would be",
        f"note: {counts(3)}",
        f"{manifest}: 3 train",
    ]
    assert main(["data", "validate", str(manifest), "--audio", "none"]) == 0
    assert main(["data", "validate", str(manifest)]) == 1
    capsys.readouterr()
    assert main([*command, "--metadata-only", "--audio", str(tmp_path / "disk")]) == 0
    assert capsys.readouterr().out.startswith("note: 2 of 3 recordings are not on disk")
    assert main([*command, "--audio", str(tmp_path / "disk")]) == 0
    assert f"{manifest}: 1 train" in capsys.readouterr().out
    assert main([*command, "--audio", str(tmp_path / "nowhere")]) == 2
    assert "nowhere: no such folder; give that of the recordings with --audio" in capsys.readouterr().err
    for option in (["--audio", str(tmp_path)], ["--metadata-only"]):
        assert main(["data", "prepare", "folder", "--source", str(source), "--output", "x", *option]) == 2
        assert "corpus 'folder' is made from its recordings; leave out" in capsys.readouterr().err


def test_an_earlier_manifest_survives_a_failure(tmp_path: Path) -> None:
    source = esc50(tmp_path / "ESC-50", 1)
    record(source / "audio", "1-0-A-0.wav")
    manifest = prepare_public("esc50", source, tmp_path)
    before = manifest.read_bytes()
    with (source / "meta" / "esc50.csv").open("a") as file:
        file.write("1-9-A-0.wav,seven,0,dog,True,9,A\n")
        file.write('2,"never closed\n')
    with pytest.raises(MintError, match=r"esc50\.csv, line 4: a quote opens there and is never closed"):
        prepare_public("esc50", source, tmp_path)
    assert manifest.read_bytes() == before


OFFICIAL = {
    "audioset": ("class_labels_indices.csv", "eval_segments.csv"),
    "vggsound": ("vggsound.csv",),
    "openmic": (
        "openmic-2018-aggregated-labels.csv",
        "class-map.json",
        *(f"partitions/split01_{part}.csv" for part in ("train", "test")),
    ),
    **{
        f"fma-{size}": ("fma_metadata/tracks.csv", f"fma_{size}/000/000002.txt")
        for size in ("small", "medium", "large")
    },
    "nsynth": ("nsynth-train/examples.json",),
    "fsd50k": tuple(f"FSD50K.ground_truth/{name}.csv" for name in ("dev", "eval", "vocabulary")),
    "music4all-key": ("id_metadata.csv",),
    "music4all-genre": ("id_genres.csv",),
    "gtzan": ("genres/blues/notes.txt", "train_filtered.txt"),
    "wavcaps": ("json_files/FreeSound/fsd_final.json", "json_files/blacklist/a.json"),
    "freesound": ("train/1.json",),
    "clotho": ("clotho_captions_validation.csv", "clotho_metadata_validation.csv"),
    "audiocaps": ("train.csv",),
    "esc50": ("meta/esc50.csv",),
    "musiccaps": ("musiccaps-public.csv",),
}
"""Files without which a folder is not that of the corpus."""

CONTENTS = {
    "empty": b"",
    "random": bytes(random.Random(0).randrange(256) for _ in range(5000)),
    "zeros": bytes(1000),
    "quote": b'a,b\n"never closed\n' * 3,
    "list": b'[1, "x", null]',
    "object": b'{"data": [{"id": "1"}, 2], "FreeSound": [1]}',
    "number": b"17",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", READERS)
def test_broken_official_files_are_one_line(name: str, content: str, tmp_path: Path) -> None:
    for file in OFFICIAL[name]:
        path = tmp_path / "source" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENTS[content])
    with pytest.raises(MintError) as caught:
        prepare_public(name, tmp_path / "source", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "source") in str(caught.value)


@pytest.mark.parametrize("installed", [True, False])
def test_formats_that_need_pyav_are_counted_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], installed: bool
) -> None:
    monkeypatch.setattr(public, "is_installed", lambda: installed)
    source = esc50(tmp_path / "ESC-50", 4)
    record(source / "audio", "1-0-A-0.m4a", "1-1-A-0.MP4", "1-2-A-0.m4a", "1-3-A-0.wav")
    assert main(["data", "prepare", "esc50", "--source", str(source), "--output", str(tmp_path / "out")]) == 0
    note = (
        "note: 3 recordings cannot be decoded without PyAV (2 .m4a, 1 .mp4); `pip install 'mint-audio[video]'`, or "
        "convert them, for instance with `ffmpeg -i CLIP.m4a CLIP.flac` beside each, and prepare again"
    )
    held = f"{tmp_path / 'out' / 'esc50.jsonl'}: 4 train"
    named = f"note: {counts(4)}"
    assert capsys.readouterr().out.splitlines() == ([named, held] if installed else [note, named, held])
