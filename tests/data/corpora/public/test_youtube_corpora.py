"""AudioSet, VGGSound, AudioCaps and MusicCaps, from their official files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mint.data.corpora.public.audioset import read_audioset, segment_names
from mint.data.manifests.recording_ids import recording_ids
from mint.types import MintError
from tiny_corpora import check_without_audio, prepared, record, splits, write

TUBE = "--PJHxphWEs"
NOT_THERE = "the recording is not on disk"


def audioset(folder: Path) -> Path:
    write(
        folder / "class_labels_indices.csv",
        "index,mid,display_name",
        '0,/m/09x0r,"Speech"',
        '1,/m/05zppz,"Male speech, man speaking"',
        '137,/m/04rlf,"Music"',
        '300,/m/07yv9,"Vehicle"',
    )
    write(
        folder / "balanced_train_segments.csv",
        "# Segments csv created Sun Mar  5 10:54:31 2017",
        "# num_ytids=4, num_segs=4, num_unique_labels=3, num_positive_labels=7",
        "# YTID, start_seconds, end_seconds, positive_labels",
        '--PJHxphWEs, 30.000, 40.000, "/m/04rlf,/m/09x0r"',
        '-0RWZT-miFs, 420.000, 430.000, "/m/05zppz"',
        'gone4everxx, 0.000, 10.000, "/m/09x0r"',
        'nolabel0000, 0.000, 7.500, "/m/unheard_of"',
    )
    write(
        folder / "eval_segments.csv",
        "# Segments csv created Sun Mar  5 10:54:25 2017",
        "# num_ytids=1, num_segs=1, num_unique_labels=2, num_positive_labels=2",
        "# YTID, start_seconds, end_seconds, positive_labels",
        'zzzzzzzzzzz, 12.500, 22.500, "/m/07yv9,/m/05zppz"',
    )
    return folder


def test_audioset(tmp_path: Path) -> None:
    source = audioset(tmp_path / "AudioSet")
    record(
        source, "balanced_train/--PJHxphWEs.flac", "balanced_train/Y-0RWZT-miFs.wav", "eval/zzzzzzzzzzz_12500_22500.m4a"
    )
    examples, skipped = prepared("audioset", source)
    assert splits(examples.values()) == {
        "--PJHxphWEs_30.000": "train",
        "-0RWZT-miFs_420.000": "train",
        "zzzzzzzzzzz_12.500": "test",
    }
    first = examples["--PJHxphWEs_30.000"]
    assert first.audio.resolve() == source / "balanced_train" / "--PJHxphWEs.flac"
    assert first.labels == ("Speech", "Music"), "in the order of the class list"
    assert first.answer == "Speech, Music"
    assert first.prompt == "This is a sound of"
    assert first.metadata["youtube_id"] == "--PJHxphWEs"
    assert (first.start, first.duration) == (0.0, None), "the files are segments already"
    assert examples["-0RWZT-miFs_420.000"].labels == ("Male speech, man speaking",)
    assert examples["zzzzzzzzzzz_12.500"].answer == "Male speech, man speaking, Vehicle"
    assert skipped == {"gone4everxx_0.000": NOT_THERE, "nolabel0000": "none of its labels is in the class list"}
    check_without_audio("audioset", source)


def test_the_reader_is_lazy(tmp_path: Path) -> None:
    source = audioset(tmp_path)
    with (source / "eval_segments.csv").open("a") as file:
        file.write('broken, 0, 1, "/m/09x0r\n')
    examples = read_audioset(source)
    assert [next(examples).id for _ in range(4)][-1] == "zzzzzzzzzzz_12.500"
    with pytest.raises(MintError, match="line 5: a quote opens there and is never closed"):
        next(examples)


SPANS = (
    *("", "_30", "_30.0", "_30.000", "_30000", "_000030"),
    *("_30_40", "_30.0_40.0", "_30.000_40.000", "_30000_40000", "_30-40", "_30.0-40.0", "_30.000-40.000"),
)
DOWNLOADED = (*(f"{mark}{TUBE}{span}" for mark in ("", "Y") for span in SPANS), f"[{TUBE}]-[30-40]")


@pytest.mark.parametrize("name", DOWNLOADED)
def test_downloaders_names(name: str, tmp_path: Path) -> None:
    """The reader finds the segment under each, and the leakage report sees the video in it."""
    source = audioset(tmp_path / "AudioSet")
    record(source / "clips", f"{name}.wav")
    examples, _ = prepared("audioset", source)
    (example,) = examples.values()
    assert example.id == f"{TUBE}_30.000"
    for named in (replace(example, metadata={}, id="17"), replace(example, metadata={}, id=name, audio=Path("17.wav"))):
        assert recording_ids(named) == {f"youtube:{TUBE}"}


def test_names_of_a_segment_that_begins_between_seconds() -> None:
    names = segment_names("abc", 12.5, 22.25)
    assert {"abc_12.5_22.25", "abc_12.500-22.250", "Yabc_12500_22250", "abc_12.5", "[abc]-[12.5-22.25]"} <= set(names)
    assert len(names) == len(set(names))
    assert names[-2:] == ["abc", "Yabc"], "what may be the whole video comes last"


def test_a_segment_is_preferred_to_the_video(tmp_path: Path) -> None:
    source = write(tmp_path / "VGG" / "vggsound.csv", "abcdefghijk,30,dog barking,train").parent
    record(source, "abcdefghijk.mp4", "abcdefghijk_000030.mp4", "abcdefghijk_000050.mp4")
    examples, _ = prepared("vggsound", source)
    assert examples["abcdefghijk_000030"].audio.name == "abcdefghijk_000030.mp4"


def test_vggsound(tmp_path: Path) -> None:
    source = tmp_path / "vggsound"
    write(
        source / "vggsound.csv",
        "---g-f_I2yQ,1,people marching,test",
        '--0PQM4-hqg,30,"playing violin, fiddle",train',
        "gone4everxx,12,waterfall burbling,train",
        "no split here,2",
    )
    record(source, "audio/---g-f_I2yQ_000001.wav", "audio/--0PQM4-hqg_30_40.flac")
    examples, skipped = prepared("vggsound", source)
    assert splits(examples.values()) == {"---g-f_I2yQ_000001": "test", "--0PQM4-hqg_000030": "train"}
    violin = examples["--0PQM4-hqg_000030"]
    assert violin.labels == ("playing violin, fiddle",)
    assert violin.answer == "playing violin, fiddle"
    assert violin.prompt == "This is a sound of"
    assert violin.task == "vggsound"
    assert skipped == {"gone4everxx_000012": NOT_THERE, "vggsound.csv, line 4": "2 fields in place of 4"}
    check_without_audio("vggsound", source)


def test_audiocaps(tmp_path: Path) -> None:
    source = tmp_path / "audiocaps"
    head = "audiocap_id,youtube_id,start_time,caption"
    write(
        source / "dataset" / "train.csv",
        head,
        "91139,r1nicOVtvkQ,130,A woman talks nearby as water pours",
        '58146,-Bu7YaslRW0,30,"Food is frying, and a woman speaks"',
    )
    test = [f"{number},7fmOlUlwoNg,50,Caption {number} of a train" for number in (100, 101, 102)]
    other = ["200,6BJ455B1aAs,0,A rocket flies"]
    write(source / "dataset" / "test.csv", head, test[0], *other, *test[1:], "201,lost\rhalf a line")
    record(
        source, "train/Yr1nicOVtvkQ.wav", "train/58146.wav", "test/7fmOlUlwoNg_50000_60000.flac", "test/6BJ455B1aAs.wav"
    )
    examples, skipped = prepared("audiocaps", source)
    assert splits(examples.values()) == {
        "r1nicOVtvkQ_130": "train",
        "-Bu7YaslRW0_30": "train",
        "7fmOlUlwoNg_50": "test",
        "6BJ455B1aAs_0": "test",
    }
    train = examples["7fmOlUlwoNg_50"]
    assert train.captions == tuple(f"Caption {number} of a train" for number in (100, 101, 102))
    assert train.prompt == "Generate audio caption:"
    assert train.answer is None
    assert train.task == "captioning"
    assert train.metadata["youtube_id"] == "7fmOlUlwoNg"
    assert examples["-Bu7YaslRW0_30"].captions == ("Food is frying, and a woman speaks",)
    assert examples["-Bu7YaslRW0_30"].audio.name == "58146.wav"
    few = "fewer fields than the header"
    assert skipped == {"test.csv, line 6": few, "test.csv, line 7": few}
    check_without_audio("audiocaps", source)


def test_musiccaps(tmp_path: Path) -> None:
    source = tmp_path / "musiccaps"
    write(
        source / "musiccaps-public.csv",
        "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id,is_balanced_subset,is_audioset_eval",
        "-0Gj8-vB1q4,30,40,\"/m/0140xf,/m/02cjck\",\"['low quality', 'sustained strings melody']\","
        '"The low quality recording features a ballad song.\nIt sounds ""sad"".",4,False,True',
        "-0SdAVK79lg,30,40,/m/0155w,['guitar song'],This song features an electric guitar.,0,False,False",
    )
    record(source, "wav/[-0Gj8-vB1q4]-[30-40].wav", "wav/-0SdAVK79lg.wav")
    examples, skipped = prepared("musiccaps", source)
    assert splits(examples.values()) == {"-0Gj8-vB1q4_30": "test", "-0SdAVK79lg_30": "train"}
    ballad = examples["-0Gj8-vB1q4_30"]
    assert ballad.captions == ('The low quality recording features a ballad song. It sounds "sad".',)
    assert ballad.metadata["aspects"] == "['low quality', 'sustained strings melody']"
    assert not skipped
    check_without_audio("musiccaps", source)
