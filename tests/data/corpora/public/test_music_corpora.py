"""OpenMIC-2018, FMA, NSynth, Music4All and GTZAN, from their official files."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from mint.data.manifests.validate import validate
from mint.types import MintError
from tiny_corpora import check_without_audio, prepared, record, splits, write

NOT_THERE = "the recording is not on disk"


def test_openmic(tmp_path: Path) -> None:
    source = tmp_path / "openmic-2018"
    names = ("accordion", "banjo", "mallet_percussion", "voice")
    write(source / "class-map.json", json.dumps({name: place for place, name in enumerate(names)}))
    write(
        source / "openmic-2018-aggregated-labels.csv",
        "sample_key,instrument,relevance,num_responses",
        "000046_3840,voice,0.80195,3",
        "000046_3840,mallet_percussion,0.5,3",
        "000046_3840,banjo,0.17105,3",
        "000135_483840,accordion,0.14705,3",
        "000139_119040,banjo,1.0,3",
        "000141_0,voice,1.0,3",
    )
    write(source / "partitions" / "split01_train.csv", "000046_3840", "000135_483840")
    write(source / "partitions" / "split01_test.csv", "000139_119040", "000141_0", "000142_0")
    record(source / "audio" / "000", "000046_3840.ogg", "000135_483840.ogg", "000139_119040.ogg", "000142_0.ogg")
    examples, skipped = prepared("openmic", source)
    assert splits(examples.values()) == {"000046_3840": "train", "000135_483840": "train", "000139_119040": "test"}
    several = examples["000046_3840"]
    assert several.labels == ("mallet percussion", "voice"), "in the order of the class map, 0.5 being enough"
    assert several.answer == "mallet percussion, voice"
    assert several.unknown == ("accordion",), "nobody was asked; the banjo is known to be absent"
    assert several.prompt == "Identify the instruments in this segment of music:"
    absent = examples["000135_483840"]
    assert (absent.labels, absent.answer) == ((), None)
    assert absent.unknown == ("banjo", "mallet percussion", "voice")
    assert skipped == {"000141_0": NOT_THERE, "000142_0": "no listener was asked about it"}
    report = validate([tmp_path / "manifests" / "openmic.jsonl"], "none")
    assert [problem for problem in report.problems if problem.kind == "text"] == []
    check_without_audio("openmic", source)


FMA_COLUMNS = (
    [("album", name) for name in ("comments", "information", "title")]
    + [("artist", name) for name in ("id", "name")]
    + [("set", "split"), ("set", "subset")]
    + [("track", name) for name in ("bit_rate", "genre_top", "genres", "title")]
)


def fma(folder: Path) -> Path:
    """tracks.csv with three lines of header and text over several lines, as pandas wrote it."""
    (folder / "fma_metadata").mkdir(parents=True)
    rows = (
        (2, "training", "medium", "Hip-Hop"),
        (3, "training", "medium", ""),
        (140, "validation", "small", "Folk"),
        (1482, "test", "large", "Old-Time / Historic"),
        (155066, "test", "large", "Rock"),
    )
    with (folder / "fma_metadata" / "tracks.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["", *(group for group, _ in FMA_COLUMNS)])
        writer.writerow(["", *(name for _, name in FMA_COLUMNS)])
        writer.writerow(["track_id", *("" for _ in FMA_COLUMNS)])
        for track, split, subset, genre in rows:
            about = f'<p>Said "hello", twice,\n\nand left.</p> {"ü" * 200_000 if track == 2 else ""}'
            writer.writerow([track, 0, about, "AWOL", 1, "A, B", split, subset, 256000, genre, "[21]", "Füd\n"])
    return folder


@pytest.mark.parametrize(
    ("subset", "there"),
    [
        ("small", {"000140": "validation"}),
        ("medium", {"000002": "train", "000140": "validation"}),
        ("large", {"000002": "train", "000140": "validation", "001482": "test"}),
    ],
)
def test_fma(tmp_path: Path, subset: str, there: dict[str, str]) -> None:
    source = fma(tmp_path / "FMA")
    record(source / "fma_large", "000/000002.mp3", "000/000003.mp3", "000/000140.mp3", "001/001482.mp3")
    examples, skipped = prepared(f"fma-{subset}", source)
    assert splits(examples.values()) == there
    folk = examples["000140"]
    assert folk.labels == ("Folk",)
    assert folk.answer == "Folk"
    assert folk.prompt == "The genre of this music is"
    assert folk.task == f"fma-{subset}"
    assert folk.metadata["fma_track"] == 140
    no_genre, gone = {"3": "it has no top genre"}, {"155066": NOT_THERE}
    assert skipped == {"small": {}, "medium": no_genre, "large": no_genre | gone}[subset]
    check_without_audio(f"fma-{subset}", source)


def test_fma_without_its_audio_or_with_another_table(tmp_path: Path) -> None:
    source = fma(tmp_path / "FMA")
    with pytest.raises(
        MintError, match=r"none of 1 recordings of FMA-small .* looked for as .*/fma_small/000/000140\.\*;"
    ):
        prepared("fma-small", source)
    record(source / "fma_small", "000/000140.mp3")
    write(source / "fma_metadata" / "tracks.csv", "track_id,genre_top", "2,Rock")
    with pytest.raises(MintError, match=r"tracks\.csv, line 1: no column 'set\.split'"):
        prepared("fma-small", source)


def test_nsynth(tmp_path: Path) -> None:
    source = tmp_path / "nsynth"
    for part, key, family in (
        ("train", "guitar_acoustic_001-082-050", "guitar"),
        ("valid", "bass_synthetic_068-049-025", "bass"),
        ("test", "synth_lead_synthetic_000-060-127", "synth_lead"),
    ):
        note = {
            "qualities": [0, 1],
            "pitch": 60,
            "note": 4,
            "instrument_source_str": "synthetic",
            "velocity": 127,
            "instrument_str": key.partition("-")[0],
            "instrument": 1,
            "sample_rate": 16000,
            "qualities_str": ["dark"],
            "instrument_source": 2,
            "note_str": key,
            "instrument_family": 5,
            "instrument_family_str": family,
        }
        write(source / f"nsynth-{part}" / "examples.json", json.dumps({key: note, f"{part}-gone": note}))
        record(source / f"nsynth-{part}" / "audio", f"{key}.wav")
    examples, skipped = prepared("nsynth", source)
    assert [(one.split, one.answer) for one in examples.values()] == [
        ("train", "guitar"),
        ("validation", "bass"),
        ("test", "synth lead"),
    ]
    lead = examples["synth_lead_synthetic_000-060-127"]
    assert lead.labels == ("synth lead",)
    assert lead.prompt == "The most prominent instrument in this music is"
    assert lead.metadata["pitch"] == 60
    assert skipped == {f"{part}-gone": NOT_THERE for part in ("train", "valid", "test")}
    check_without_audio("nsynth", source)


def test_nsynth_with_one_part_or_a_truncated_file(tmp_path: Path) -> None:
    source = tmp_path / "nsynth"
    table = write(source / "nsynth-test" / "examples.json", '{"a": {"instrument_family_str": "reed"}}')
    record(source / "nsynth-test" / "audio", "a.wav")
    examples, _ = prepared("nsynth", source)
    assert splits(examples.values()) == {"a": "test"}
    table.write_text('{"a": {"instrument_fam')
    with pytest.raises(MintError, match=r"examples\.json: not valid JSON .* unpack the file again"):
        prepared("nsynth", source)
    table.write_text('{"a": {"pitch": 1}}')
    with pytest.raises(MintError, match=r"names no clip .*examples\.json, a: it has no instrument_family_str"):
        prepared("nsynth", source)


def test_music4all(tmp_path: Path) -> None:
    source = tmp_path / "music4all"
    write(
        source / "id_metadata.csv",
        "id\tspotify_id\tpopularity\trelease\tdanceability\tenergy\tkey\tmode\tvalence\ttempo\tduration_ms",
        "0009fFIM1eYThaPg\t4TM\t44.0\t2017\t0.545\t0.876\t6.0\t0.0\t0.5\t120.0\t236107",
        "0010xmHR6UICBOYT\t2Wu\t19.0\t2014\t0.5\t0.5\t0\t1\t0.4\t130.0\t200000",
        "00CH4HJdxQQQbJfu\t5jr\t11.0\t2014\t0.5\t0.5\t-1\t0\t0.4\t130.0\t200000",
    )
    write(
        source / "id_genres.csv",
        "id\tgenres",
        "0009fFIM1eYThaPg\tjazz,pop, soul,jazz",
        "0010xmHR6UICBOYT\tdance",
        "00CH4HJdxQQQbJfu\t",
    )
    record(source / "audios", "0009fFIM1eYThaPg.mp3", "0010xmHR6UICBOYT.mp3", "00CH4HJdxQQQbJfu.mp3")
    keys, skipped = prepared("music4all-key", source)
    assert {one.id: one.answer for one in keys.values()} == {
        "0009fFIM1eYThaPg": "F sharp minor",
        "0010xmHR6UICBOYT": "C major",
    }
    assert keys["0010xmHR6UICBOYT"].prompt == "The key of this music is"
    assert skipped == {"00CH4HJdxQQQbJfu": "its key is not known"}
    genres, skipped = prepared("music4all-genre", source)
    assert genres["0009fFIM1eYThaPg"].labels == ("jazz", "pop", "soul")
    assert genres["0009fFIM1eYThaPg"].answer == "jazz, pop, soul"
    assert genres["0009fFIM1eYThaPg"].prompt == "The genre of this music is"
    assert skipped == {"00CH4HJdxQQQbJfu": "it has no genre"}
    assert {one.split for one in (*keys.values(), *genres.values())} == {"train"}
    check_without_audio("music4all-key", source)
    shutil.rmtree(tmp_path / "elsewhere")
    check_without_audio("music4all-genre", source)


def gtzan(folder: Path, suffix: str = "wav") -> Path:
    for genre in ("blues", "hiphop", "jazz"):
        record(folder / genre, f"{genre}.00000.{suffix}", f"{genre}.00054.{suffix}")
    return folder


TRACKS = [f"{genre}.000{number}" for genre in ("blues", "hiphop", "jazz") for number in ("00", "54")]


@pytest.mark.parametrize(("folder", "suffix"), [("genres", "au"), ("Data/genres_original", "wav"), (".", "wav")])
def test_gtzan(tmp_path: Path, folder: str, suffix: str) -> None:
    source = tmp_path / "GTZAN"
    gtzan(source / folder, suffix)
    examples, skipped = prepared("gtzan", source)
    assert splits(examples.values()) == dict.fromkeys(TRACKS, "test")
    assert examples["hiphop.00000"].answer == "hiphop"
    assert examples["hiphop.00000"].prompt == "The genre of this music is"
    assert not skipped


def test_the_broken_track_of_gtzan(tmp_path: Path) -> None:
    source = gtzan(tmp_path / "genres").parent
    (tmp_path / "genres" / "jazz" / "jazz.00054.wav").write_bytes(b"not a recording at all")
    examples, skipped = prepared("gtzan", source / "genres")
    assert list(examples) == [track for track in TRACKS if track != "jazz.00054"]
    assert skipped == {"jazz.00054": "the file is broken in this copy of GTZAN"}


def test_gtzan_filtered(tmp_path: Path) -> None:
    source = tmp_path / "GTZAN"
    gtzan(source / "genres")
    write(source / "train_filtered.txt", "blues/blues.00000.wav")
    write(source / "valid_filtered.txt", "hiphop/hiphop.00054.wav")
    write(source / "test_filtered.txt", "jazz/jazz.00054.wav", "jazz/jazz.00099.wav")
    examples, skipped = prepared("gtzan", source)
    assert splits(examples.values()) == {"blues.00000": "train", "hiphop.00054": "validation", "jazz.00054": "test"}
    assert skipped == {"jazz.00099": NOT_THERE}
    check_without_audio("gtzan", source)
