"""A bad row of an official table costs that row, which is listed with its file and line; files that are not whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from mint.cli import main
from mint.data.corpora.outputs import read_skipped
from mint.data.corpora.public.catalogue import CATALOGUE
from mint.data.corpora.public.prepare import prepare_public
from mint.data.manifests.manifest import read_manifest
from mint.data.manifests.recording_ids import recording_ids
from mint.types import MintError
from tiny_corpora import prepared, record, write


@dataclass(frozen=True)
class Table:
    """An official table of a corpus: good rows, bad ones, and what is beside it."""

    corpus: str
    file: str
    head: tuple[str, ...]
    good: tuple[str, ...]
    ids: tuple[str, ...]
    """Of the good rows."""
    bad: tuple[str, ...]
    beside: tuple[tuple[str, tuple[str, ...]], ...] = ()


CLOTHO = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5"
MUSICCAPS = "ytid,start_s,end_s,aspect_list,caption,is_audioset_eval"
CLASSES = ("class_labels_indices.csv", ("index,mid,display_name", "0,/m/a,Speech", "1,/m/b,Music"))
OPENMIC_BESIDE = (
    ("class-map.json", ('{"banjo": 0, "voice": 1}',)),
    ("partitions/split01_train.csv", ("000001_0", "000002_0")),
    ("partitions/split01_test.csv", ("000003_0",)),
)
FMA_HEAD = (
    ",set,set,track,track,artist",
    ",split,subset,genre_top,genres,id",
    "track_id,,,,,",
)
SLOPPY = 'x,"He said "no" loudly",1,2'
"""Quotes that are not doubled within a field."""

TABLES = (
    Table(
        "audiocaps",
        "train.csv",
        ("audiocap_id,youtube_id,start_time,caption",),
        ("1,aaaaaaaaaaa,130,A dog barks", "2,bbbbbbbbbbb,30,A bell rings", "3,ccccccccccc,0,Rain falls"),
        ("aaaaaaaaaaa_130", "bbbbbbbbbbb_30", "ccccccccccc_0"),
        (
            "muffled speech, a dog, a bell, in the background",
            "4,ddddddddddd,soon,x",
            "4,ddddddddddd,nan,x",
            "4,,30,x",
            "4,ddddddddddd,-3,x",
            "4,ddddddddddd,30,",
            "4,ddddddddddd,30,.",
            "4,ddddddddddd,30,A dog, barking",
            "4,ddddddddddd",
            SLOPPY,
        ),
    ),
    Table(
        "audioset",
        "eval_segments.csv",
        ("# one", "# two", "# three"),
        ('aaaaaaaaaaa, 30.000, 40.000, "/m/a,/m/b"', 'bbbbbbbbbbb, 0.000, 10.000, "/m/b"'),
        ("aaaaaaaaaaa_30.000", "bbbbbbbbbbb_0.000"),
        ('ccccccccccc, soon, 40.000, "/m/a"', 'ccccccccccc, 1.0, , "/m/a"', "ccccccccccc, 1.0", SLOPPY),
        (CLASSES,),
    ),
    Table(
        "vggsound",
        "vggsound.csv",
        (),
        ("aaaaaaaaaaa,1,people marching,test", '"bbbbbbbbbbb",30,"violin, fiddle",train'),
        ("aaaaaaaaaaa_000001", "bbbbbbbbbbb_000030"),
        (
            "ccccccccccc,30,violin, fiddle,train",
            "ccccccccccc,soon,dog,train",
            "ccccccccccc,²,dog,train",
            "ccccccccccc,3,dog,validation",
            "ccccccccccc,3,,train",
            ",3,dog,train",
            "ccccccccccc",
            SLOPPY,
        ),
    ),
    Table(
        "musiccaps",
        "musiccaps-public.csv",
        (MUSICCAPS,),
        ("aaaaaaaaaaa,30,40,x,A song.,TRUE", "bbbbbbbbbbb,0,10,x,A song.,FALSE", "ccccccccccc,0,10,x,A song.,True"),
        ("aaaaaaaaaaa_30", "bbbbbbbbbbb_0", "ccccccccccc_0"),
        (
            "ddddddddddd,30,forty,x,A song.,False",
            "ddddddddddd,30,40,x,A song.,maybe",
            "ddddddddddd,30,40,x,A song.,",
            ",30,40,x,A song.,False",
            "ddddddddddd,30,40,x,,False",
            "ddddddddddd,30,40,x,A song, sung,False",
            SLOPPY,
        ),
    ),
    Table(
        "clotho",
        "clotho_captions_evaluation.csv",
        (CLOTHO,),
        ("a.wav,1,2,3,4,5", "b.wav,1,,3,.,"),
        ("evaluation/a.wav", "evaluation/b.wav"),
        ("c.wav,,,,,", ",1,2,3,4,5", "c.wav,one, two,2,3,4,5", "c.wav,1,2", 'c.wav,"a" b,2,3,4,5'),
    ),
    Table(
        "esc50",
        "meta/esc50.csv",
        ("filename,fold,target,category,esc10,src_file,take",),
        ("1-1-A-0.wav,1,0,dog,TRUE,1,A", "5-2-A-0.wav,5,0,dog,0,2,A"),
        ("1-1-A-0", "5-2-A-0"),
        (
            "3-3-A-0.wav,6,0,dog,True,3,A",
            "3-3-A-0.wav,,0,dog,True,3,A",
            "3-3-A-0.wav,3,0,dog,perhaps,3,A",
            "3-3-A-0.wav,3,0,,True,3,A",
            ",3,0,dog,True,3,A",
            "3-3-A-0.wav",
        ),
    ),
    Table(
        "fsd50k",
        "FSD50K.ground_truth/dev.csv",
        ("fname,labels,mids,split",),
        ('1,"Music,Bark",x,train', "2,Bark,x,val"),
        ("1", "2"),
        ("3,Bark,x,test", ",Bark,x,train", "3,Bark,x,", "3,Bark", "3,Music,Bark,x,train", SLOPPY),
        (
            ("FSD50K.ground_truth/vocabulary.csv", ("0,Bark,/m/a", "1,Music,/m/b")),
            ("FSD50K.ground_truth/eval.csv", ("fname,labels,mids",)),
        ),
    ),
    Table(
        "fma-large",
        "fma_metadata/tracks.csv",
        FMA_HEAD,
        ("2,training,medium,Rock,[1],7", "3,test,large,Folk,[2],8"),
        ("000002", "000003"),
        (
            "4,later,large,Folk,[2],8",
            "x,test,large,Folk,[2],8",
            "²,test,large,Folk,[2],8",
            "4,test,large,Folk, Rock,[2],8",
        ),
    ),
    Table(
        "openmic",
        "openmic-2018-aggregated-labels.csv",
        ("sample_key,instrument,relevance,num_responses",),
        ("000001_0,voice,0.8,3", "000002_0,banjo,0.5,3", "000003_0,banjo,0.1,3"),
        ("000001_0", "000002_0", "000003_0"),
        ("000001_0,banjo,,3", ",banjo,1,3", "000001_0,banjo,high,3", "000001_0,banjo", "000001_0,banjo,0,9,3"),
        OPENMIC_BESIDE,
    ),
    Table(
        "music4all-key",
        "id_metadata.csv",
        ("id\tkey\tmode",),
        ("a\t6.0\t0.0", "b\t0\t1"),
        ("a", "b"),
        ("c\t0", "\t0\t1", "c\t0\t1\tmore", 'c\t"0" x\t1'),
    ),
)


def source_of(table: Table, folder: Path, rows: Sequence[str]) -> Path:
    """The folder of a corpus with these rows in its table."""
    for file, lines in table.beside:
        write(folder / file, *lines)
    write(folder / table.file, *table.head, *rows)
    return folder


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.corpus)
def test_a_bad_row_costs_that_row(table: Table, tmp_path: Path) -> None:
    """Each bad row stands alone between the good ones, and all of them together."""
    for number, bad in enumerate((*((row,) for row in table.bad), table.bad)):
        rows = [table.good[0], *bad, *table.good[1:]]
        source = source_of(table, tmp_path / str(number) / "source", rows)
        output = tmp_path / str(number) / "out"
        command = ["data", "prepare", table.corpus, "--source", str(source), "--metadata-only"]
        assert main([*command, "--output", str(output)]) == 0
        manifest = output / f"{table.corpus}.jsonl"
        assert [example.id for example in read_manifest(manifest)] == list(table.ids)
        name = Path(table.file).name
        lines = [len(table.head) + 2 + index for index in range(len(bad))]
        skipped = list(read_skipped(manifest))
        assert [one["audio"] for one in skipped] == [f"{name}, line {line}" for line in lines]
        assert all(one["reason"] for one in skipped)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.corpus)
def test_a_quote_that_is_never_closed_is_an_error_with_its_line(table: Table, tmp_path: Path) -> None:
    delimiter = "\t" if "\t" in table.good[0] else ","
    rows = [table.good[0], f'x{delimiter}"never closed', *table.good[1:]]
    source = source_of(table, tmp_path / "source", rows)
    line = len(table.head) + 2
    with pytest.raises(MintError, match=rf"{Path(table.file).name}, line {line}: a quote opens there and is never"):
        prepare_public(table.corpus, source, tmp_path / "out", metadata_only=True)


@pytest.mark.parametrize("table", [table for table in TABLES if table.head], ids=lambda table: table.corpus)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_that_a_spreadsheet_saved_again(table: Table, tmp_path: Path, encoding: str) -> None:
    source = source_of(table, tmp_path / "source", table.good)
    path = source / table.file
    path.write_text(path.read_text(encoding="utf-8"), encoding=encoding)
    manifest = prepare_public(table.corpus, source, tmp_path / "out", metadata_only=True)
    assert [example.id for example in read_manifest(manifest)] == list(table.ids)


def test_captions_of_audiocaps_that_go_on_in_the_next_line(tmp_path: Path) -> None:
    """The rest of a caption without quotes has as many fields as a row; one within quotes becomes one line."""
    write(
        tmp_path / "source" / "train.csv",
        "audiocap_id,youtube_id,start_time,caption",
        '1,aaaaaaaaaaa,30,"an engine chugging loudly',
        'with muffled speech in the background"',
        "2,bbbbbbbbbbb,30,a dog",
        "barks, a man, a bell, and rain",
        "3,ccccccccccc,30,rain",
    )
    examples, skipped = prepared("audiocaps", tmp_path / "source", metadata_only=True)
    assert [example.captions for example in examples.values()] == [
        ("an engine chugging loudly with muffled speech in the background",),
        ("a dog",),
        ("rain",),
    ]
    assert skipped == {"train.csv, line 5": "start_time is ' a bell'; it must be a number"}


def test_the_evaluation_segments_of_musiccaps_after_a_spreadsheet(tmp_path: Path) -> None:
    rows = [
        f"{name * 11},30,40,x,A song.,{word}" for name, word in zip("abcd", ("TRUE", "1", "FALSE", "no"), strict=True)
    ]
    write(tmp_path / "source" / "musiccaps-public.csv", MUSICCAPS, *rows)
    examples, _ = prepared("musiccaps", tmp_path / "source", metadata_only=True)
    assert [example.split for example in examples.values()] == ["test", "test", "train", "train"]


def test_captions_that_are_empty_leave_the_others(tmp_path: Path) -> None:
    write(tmp_path / "source" / "clotho_captions_evaluation.csv", CLOTHO, 'a.wav,One.,,"Two', 'lines.",., ')
    examples, _ = prepared("clotho", tmp_path / "source", metadata_only=True)
    assert examples["evaluation/a.wav"].captions == ("One.", "Two lines.")


def wavcaps(folder: Path, part: str, name: str, *clips: object) -> Path:
    return write(folder / "json_files" / part / name, json.dumps({"data": clips}))


def test_bad_records_of_wavcaps(tmp_path: Path) -> None:
    source = tmp_path / "source"
    wavcaps(
        source,
        "SoundBible",
        "sb_final.json",
        {"id": "1", "caption": "A plane\nflies."},
        {"id": "2", "caption": None},
        {"id": "3"},
        {"caption": "x"},
        {"id": "", "caption": "x"},
        {"id": "5", "caption": ["x"]},
        {"id": "6", "caption": "half \ud83d"},
        {"id": 7, "caption": "A bell."},
    )
    examples, skipped = prepared("wavcaps", source, metadata_only=True)
    assert {key: one.captions for key, one in examples.items()} == {
        "SoundBible/1": ("A plane flies.",),
        "SoundBible/7": ("A bell.",),
    }
    assert skipped == {
        "SoundBible/2": "it has no caption",
        "SoundBible/3": "it has no caption",
        "sb_final.json, record 4": "it has no id",
        "sb_final.json, record 5": "it has no id",
        "SoundBible/5": "its caption is ['x']; it must be a text",
        "SoundBible/6": "a text holds half a character (U+D83D in 'half \\ud83d'); write it again",
    }


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9"


def test_a_source_of_wavcaps_that_is_a_pointer_leaves_the_others(tmp_path: Path) -> None:
    source = tmp_path / "source"
    wavcaps(source, "SoundBible", "sb_final.json", {"id": "1", "caption": "A plane."})
    pointer = write(source / "json_files" / "BBC_Sound_Effects" / "bbc_final.json", POINTER)
    notes: list[str] = []
    examples, _ = prepared("wavcaps", source, notes.append, metadata_only=True)
    assert list(examples) == ["SoundBible/1"]
    assert any(str(pointer) in note and "Git LFS pointer; fetch the file itself" in note for note in notes)
    (source / "json_files" / "SoundBible" / "sb_final.json").unlink()
    with pytest.raises(MintError, match=r"bbc_final\.json is no text but a Git LFS pointer"):
        prepare_public("wavcaps", source, tmp_path / "out")


def test_a_blacklist_that_cannot_be_read_stops_wavcaps(tmp_path: Path) -> None:
    """Without it, clips would be trained on that it names."""
    source = tmp_path / "source"
    wavcaps(source, "FreeSound", "fsd_final.json", {"id": "1", "caption": "A plane."})
    for content, message in (
        (POINTER, "Git LFS pointer"),
        ("[1]", "no blacklist"),
        ('{"FreeSound": 1}', "no blacklist"),
    ):
        write(source / "json_files" / "blacklist" / "list.json", content)
        with pytest.raises(MintError, match=rf"list\.json is .*{message}"):
            prepare_public("wavcaps", source, tmp_path / "out", metadata_only=True)


def test_bad_records_of_freesound(tmp_path: Path) -> None:
    """No caption, no text, and files whose number is not Freesound's."""
    source = tmp_path / "source"
    records: dict[str, object] = {
        "61": {"text": ["A\nbell."], "original_data": {"id": 282776}},
        "62": {"text": [".", "A cat."]},
        "63": {"text": "A dog.", "original_data": ["x"]},
        "64": {"text": ["."]},
        "65": {"text": [None]},
        "66": {"text": 7},
        "67": ["x"],
    }
    for name, content in records.items():
        write(source / "train" / f"{name}.json", json.dumps(content))
    write(source / "train" / "68.json", POINTER)
    record(source, *(f"train/{number}.flac" for number in range(61, 69)))
    examples, skipped = prepared("freesound", source)
    assert {key: one.captions for key, one in examples.items()} == {
        "train/61": ("A bell.",),
        "train/62": ("A cat.",),
        "train/63": ("A dog.",),
    }
    assert [recording_ids(one) for one in examples.values()] == [{"freesound:282776"}, set(), set()]
    no_caption, no_text = "it has no caption", "its JSON has no text"
    assert skipped == {
        "train/64": no_caption,
        "train/65": no_caption,
        "train/66": no_text,
        "train/67": no_text,
        "train/68": "its JSON is broken; it is a Git LFS pointer, fetch it",
    }


def test_bad_notes_of_nsynth(tmp_path: Path) -> None:
    notes = {"a": {"instrument_family_str": "reed"}, "b": {"pitch": 1}, "c": 3, "d": {"instrument_family_str": None}}
    notes["e"] = {"instrument_family_str": " "}
    write(tmp_path / "nsynth" / "nsynth-test" / "examples.json", json.dumps(notes))
    examples, skipped = prepared("nsynth", tmp_path / "nsynth", metadata_only=True)
    assert list(examples) == ["a"]
    reason = "it has no instrument_family_str"
    assert skipped == {f"nsynth-test/examples.json, {key}": reason for key in "bcde"}


def test_the_folder_of_one_part_of_nsynth(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write(
            tmp_path / f"nsynth-{part}" / "examples.json", json.dumps({part: {"instrument_family_str": "synth_lead"}})
        )
        record(tmp_path / f"nsynth-{part}" / "audio", f"{part}.wav")
    examples, _ = prepared("nsynth", tmp_path / "nsynth-test")
    assert {key: (one.split, one.answer) for key, one in examples.items()} == {"test": ("test", "synth lead")}


def test_gtzan_without_some_genres(tmp_path: Path) -> None:
    source = tmp_path / "gtzan"
    record(source / "genres", "rock/rock.00001.wav", "jazz/jazz.00002.wav")
    notes: list[str] = []
    examples, _ = prepared("gtzan", source, notes.append)
    assert list(examples) == ["jazz.00002", "rock.00001"]
    missing = "blues, classical, country, disco, hiphop, metal, pop, reggae"
    assert notes == [f"{source / 'genres'} has no tracks of {missing}"]
    write(source / "test_filtered.txt", "jazz/jazz.00002.wav", "", "noise", "rock/rock.00001.wav")
    _, skipped = prepared("gtzan", source)
    assert skipped == {"test_filtered.txt, line 3": "'noise' is no track of a genre of GTZAN"}


def test_videos_of_vggsound_that_are_in_both_splits(tmp_path: Path) -> None:
    rows = ["aaaaaaaaaaa,1,dog,train", "bbbbbbbbbbb,1,dog,train", "aaaaaaaaaaa,30,dog,test", "ccccccccccc,1,dog,test"]
    write(tmp_path / "source" / "vggsound.csv", *rows)
    notes: list[str] = []
    examples, _ = prepared("vggsound", tmp_path / "source", notes.append, metadata_only=True)
    assert len(examples) == 4
    assert any(
        note.startswith("1 videos are in both train and test of vggsound.csv, as it is published (aaaaaaaaaaa")
        for note in notes
    )


def test_a_truncated_table_stands_beside_what_is_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{number},{number:011d},30,A dog" for number in range(398)]
    write(tmp_path / "source" / "val.csv", "audiocap_id,youtube_id,start_time,caption", *rows)
    command = ["data", "prepare", "audiocaps", "--source", str(tmp_path / "source"), "--metadata-only"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    note = "AudioCaps: its files name 398 validation; published are 49,838 train, 495 validation, 975 test"
    assert f"note: {note}" in capsys.readouterr().out


def test_published_counts_add_up() -> None:
    for entry in CATALOGUE.values():
        if entry.published:
            assert sum(entry.published.values()) == entry.clips


@pytest.mark.parametrize("name", CATALOGUE)
def test_an_archive_in_place_of_a_folder(name: str, tmp_path: Path) -> None:
    archive = tmp_path / "corpus.zip"
    archive.write_bytes(b"PK\x03\x04")
    with pytest.raises(MintError, match=r"corpus\.zip: it is a file, not a folder; unpack it if it is an archive"):
        prepare_public(name, archive, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("ESC50", "did you mean esc50?"),
        ("ESC-50", "did you mean esc50?"),
        ("fma", "did you mean fma-small or fma-medium or fma-large?"),
        ("AudioCap", "did you mean audiocaps?"),
        ("music_caps", "did you mean musiccaps?"),
        ("clotoh", "did you mean clotho?"),
        ("zzz", "choose one of quickstart, folder"),
        ("", "choose one of quickstart, folder"),
    ],
)
def test_a_name_that_is_nearly_right(name: str, cure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "prepare", name, "--source", str(tmp_path), "--output", str(tmp_path / "o")]) == 2
    assert f"no corpus {name!r}; {cure}" in capsys.readouterr().err


def test_hidden_copies_of_official_files_are_left_out(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write(source / ".ipynb_checkpoints" / "vggsound.csv", "aaaaaaaaaaa,1,dog,train")
    with pytest.raises(MintError, match=r"there is no vggsound\.csv in it"):
        prepare_public("vggsound", source, tmp_path / "out")
    write(source / "vgg" / "vggsound.csv", "bbbbbbbbbbb,1,dog,train")
    assert list(prepared("vggsound", source, metadata_only=True)[0]) == ["bbbbbbbbbbb_000001"]
    wavcaps(source, "FreeSound", "fsd_final.json", {"id": "1", "caption": "A plane."})
    write(source / "json_files" / "blacklist" / "._list.json", "no JSON")
    assert list(prepared("wavcaps", source, metadata_only=True)[0]) == ["FreeSound/1"]
