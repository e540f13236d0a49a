"""FSD50K, WavCaps, Freesound captions, Clotho and ESC-50, from their official files."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from mint.data.corpora.public.clotho import WITHOUT_ID
from mint.data.corpora.public.wavcaps import NO_LISTS
from mint.types import MintError
from tiny_corpora import check_without_audio, prepared, record, splits, write

NOT_THERE = "the recording is not on disk"


def test_fsd50k(tmp_path: Path) -> None:
    source = tmp_path / "FSD50K"
    truth = source / "FSD50K.ground_truth"
    write(truth / "vocabulary.csv", "0,Accordion,/m/0mkg", "1,Electric_guitar,/m/02sgy", "2,Music,/m/04rlf")
    write(
        truth / "dev.csv",
        "fname,labels,mids,split",
        '64760,"Music,Electric_guitar","/m/04rlf,/m/02sgy",train',
        "16399,Accordion,/m/0mkg,val",
        "16401,Accordion,/m/0mkg,train",
    )
    write(truth / "eval.csv", "fname,labels,mids", '37199,"Electric_guitar,Music","/m/02sgy,/m/04rlf"')
    record(source, "FSD50K.dev_audio/64760.wav", "FSD50K.dev_audio/16399.flac", "FSD50K.eval_audio/37199.wav")
    examples, skipped = prepared("fsd50k", source)
    assert splits(examples.values()) == {"64760": "train", "16399": "validation", "37199": "test"}
    assert examples["64760"].labels == ("Electric guitar", "Music"), "in the order of the vocabulary"
    assert examples["64760"].answer == "Electric guitar, Music"
    assert examples["64760"].prompt == "This is a sound of"
    assert examples["64760"].metadata == {"freesound_id": "64760"}
    assert skipped == {"16401": NOT_THERE}
    check_without_audio("fsd50k", source)


def clip(clip_id: str, caption: str = "A dog is barking.") -> dict[str, Any]:
    return {"id": clip_id, "caption": caption, "duration": 9.5, "description": 'It "barks".', "href": f"/s/{clip_id}"}


def published(folder: Path, part: str, name: str, *clips: dict[str, Any]) -> Path:
    return write(folder / "json_files" / part / name, json.dumps({"num_captions_per_audio": 1, "data": clips}))


def wavcaps(folder: Path) -> Path:
    published(folder, "FreeSound", "fsd_final.json", clip("2219", "A cat."), clip("180913"), clip("77"), clip("404"))
    published(folder, "BBC_Sound_Effects", "bbc_final.json", clip("NHU05104074"))
    write(
        folder / "json_files" / "SoundBible" / "sb_final.json", json.dumps([clip("2219", "A plane."), clip("2", " ")])
    )
    published(folder, "AudioSet_SL", "as_final.json", clip("Yb0RFKhbpFJA.wav"), clip("YvfY_TJq7n_U.wav"))
    lists = folder / "json_files" / "blacklist"
    write(
        lists / "blacklist_exclude_test_ac.json",
        json.dumps({"AudioSet": ["YvfY_TJq7n_U.wav"], "FreeSound": ["180913"]}),
    )
    write(lists / "blacklist_exclude_ub8k_esc50_vggsound.json", json.dumps({"AudioSet": [], "FreeSound": ["77"]}))
    deep = "mnt/fast/nobackup/WavCaps/data/waveforms/AudioSet_SL_flac"
    record(folder, f"Zip_files/AudioSet_SL/{deep}/Yb0RFKhbpFJA.flac", f"Zip_files/AudioSet_SL/{deep}/YvfY_TJq7n_U.flac")
    record(folder, "Zip_files/FreeSound/2219.flac", "Zip_files/FreeSound/180913.flac", "Zip_files/FreeSound/77.flac")
    record(folder, "SoundBible_flac/2219.flac", "Zip_files/BBC_Sound_Effects/NHU05104074.flac")
    return folder


def test_wavcaps(tmp_path: Path) -> None:
    source = wavcaps(tmp_path / "WavCaps")
    examples, skipped = prepared("wavcaps", source)
    assert splits(examples.values()) == dict.fromkeys(
        ("FreeSound/2219", "BBC_Sound_Effects/NHU05104074", "SoundBible/2219", "AudioSet_SL/Yb0RFKhbpFJA"), "train"
    )
    assert examples["FreeSound/2219"].captions == ("A cat.",)
    assert examples["FreeSound/2219"].audio.resolve().parent.name == "FreeSound"
    assert examples["SoundBible/2219"].captions == ("A plane.",), "ids are those of each source"
    assert examples["SoundBible/2219"].audio.resolve().parent.name == "SoundBible_flac"
    assert examples["FreeSound/2219"].metadata == {"source": "FreeSound", "freesound_id": "2219"}
    assert examples["AudioSet_SL/Yb0RFKhbpFJA"].metadata["youtube_id"] == "b0RFKhbpFJA"
    assert examples["AudioSet_SL/Yb0RFKhbpFJA"].prompt == "Generate audio caption:"
    assert skipped == {
        "FreeSound/180913": "it is on blacklist_exclude_test_ac.json",
        "FreeSound/77": "it is on blacklist_exclude_ub8k_esc50_vggsound.json",
        "FreeSound/404": NOT_THERE,
        "SoundBible/2": "it has no caption",
        "AudioSet_SL/YvfY_TJq7n_U": "it is on blacklist_exclude_test_ac.json",
    }
    check_without_audio("wavcaps", source)


def test_wavcaps_without_some_lists_or_sources(tmp_path: Path) -> None:
    source = wavcaps(tmp_path / "WavCaps")
    for path in (source / "json_files" / "blacklist").iterdir():
        path.unlink()
    (source / "json_files" / "AudioSet_SL" / "as_final.json").unlink()
    notes: list[str] = []
    examples, skipped = prepared("wavcaps", source, notes.append)
    assert "FreeSound/180913" in examples
    assert "AudioSet_SL/Yb0RFKhbpFJA" not in examples
    assert set(skipped) == {"FreeSound/404", "SoundBible/2"}, "what is noted is not counted as a clip"
    assert notes == [f"{source / 'json_files' / 'blacklist'}: {NO_LISTS}"]


def test_wavcaps_behind_links(tmp_path: Path) -> None:
    """Of a folder above those of the sources, and of a source's own."""
    source = wavcaps(tmp_path / "WavCaps")
    (tmp_path / "disk").mkdir()
    (source / "Zip_files").rename(tmp_path / "disk" / "archives")
    (source / "SoundBible_flac").rename(tmp_path / "disk" / "sb")
    (source / "waveforms").symlink_to(tmp_path / "disk" / "archives")
    (source / "SoundBible_flac").symlink_to(tmp_path / "disk" / "sb")
    (tmp_path / "disk" / "archives" / "FreeSound" / "up").symlink_to(source)
    examples, _ = prepared("wavcaps", source)
    assert list(examples) == [
        "FreeSound/2219",
        "BBC_Sound_Effects/NHU05104074",
        "SoundBible/2219",
        "AudioSet_SL/Yb0RFKhbpFJA",
    ]
    assert examples["SoundBible/2219"].audio.parent.name == "SoundBible_flac"
    alone, _ = prepared("freesound", source)
    assert list(alone) == ["FreeSound/2219"]


def test_freesound_as_part_of_wavcaps(tmp_path: Path) -> None:
    examples, skipped = prepared("freesound", wavcaps(tmp_path / "WavCaps"))
    assert list(examples) == ["FreeSound/2219"]
    assert set(skipped) == {"FreeSound/180913", "FreeSound/77", "FreeSound/404"}
    check_without_audio("freesound", tmp_path / "WavCaps")
    source = tmp_path / "elsewhere" / "Zip_files" / "FreeSound"
    part, _ = prepared("freesound", tmp_path / "WavCaps", audio=source)
    assert part["FreeSound/2219"].audio.resolve() == source / "2219.flac", "the folder of the part itself will do"


def test_freesound_as_laion_has_it(tmp_path: Path) -> None:
    source = tmp_path / "freesound"
    texts = ["DSI Tetra - B4.", "Single note, sampled."]
    write(source / "train" / "1.json", json.dumps({"text": texts, "tag": ["x"], "original_data": {"id": 282776}}))
    write(source / "train" / "2.json", json.dumps({"text": ["gone"], "original_data": {"id": 3}}))
    write(source / "test" / "1.json", json.dumps({"text": "One text alone"}))
    write(source / "test" / "5.json", json.dumps({"text": [" "]}))
    write(source / "test" / "6.json", '{"text": ')
    record(source, "train/1.flac", "test/1.flac", "test/5.flac", "test/6.flac")
    examples, skipped = prepared("freesound", source)
    assert splits(examples.values()) == {"test/1": "test", "train/1": "train"}
    assert examples["train/1"].captions == tuple(texts)
    assert examples["train/1"].metadata == {"freesound_id": "282776"}
    assert examples["train/1"].prompt == "Generate audio caption:"
    assert examples["test/1"].captions == ("One text alone",)
    assert skipped == {
        "train/2": NOT_THERE,
        "test/5": "it has no caption",
        "test/6": "its JSON is broken; fetch it again",
    }
    check_without_audio("freesound", source)


def captions(name: str) -> str:
    quoted = name.replace('"', '""')
    return f'"{quoted}","One, two",Two of it.,Three of it.,Four of it.,Five of it.'


CAPTION_HEAD = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5"
NAMES = (
    "Distorted AM Radio noise.wav",
    "[atmos] rain (heavy), roof.wav",
    "Ballaståkning 2.wav",
    "a.b.WAV.wav",
)


def test_clotho(tmp_path: Path) -> None:
    source = tmp_path / "clotho"
    leading = " typical neighborhood in Porto.wav"
    plain = f"{leading},One of it.,Two of it.,Three of it.,Four of it.,Five of it."
    write(source / "clotho_captions_development.csv", CAPTION_HEAD, *map(captions, NAMES), plain)
    write(source / "clotho_captions_validation.csv", CAPTION_HEAD, captions("v.wav"))
    write(source / "clotho_captions_evaluation.csv", CAPTION_HEAD, captions("e.wav"), captions("gone.wav"))
    write(
        source / "clotho_metadata_development.csv",
        "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license",
        '"Distorted AM Radio noise.wav","noise;radio;am",111,link,"[0, 9]",me,cc',
        "Ballaståkning 2.wav,x,Not found,,,,",
        "a.b.WAV.wav,x,444,,,,",
        f"{leading},porto,333,link,,me,cc",
        encoding="latin-1",
    )
    decomposed = [unicodedata.normalize("NFD", name) for name in NAMES]
    record(source / "development", *decomposed, leading)
    record(source / "validation", "v.wav")
    record(source / "evaluation", "e.wav")
    notes: list[str] = []
    examples, skipped = prepared("clotho", source, notes.append)
    assert splits(examples.values()) == {
        **{f"development/{name}": "train" for name in (*NAMES, leading)},
        "validation/v.wav": "validation",
        "evaluation/e.wav": "test",
    }
    rain = examples["development/[atmos] rain (heavy), roof.wav"]
    assert rain.captions == ("One, two", "Two of it.", "Three of it.", "Four of it.", "Five of it.")
    assert rain.task == "captioning"
    assert rain.prompt == "Generate audio caption:"
    assert rain.metadata == {}
    assert examples["development/Distorted AM Radio noise.wav"].metadata == {"freesound_id": "111"}
    assert examples[f"development/{leading}"].metadata == {"freesound_id": "333"}
    assert examples[f"development/{leading}"].audio.name == leading
    assert all(example.audio.is_file() for example in examples.values())
    assert skipped == {"evaluation/gone.wav": NOT_THERE}
    assert notes == [
        f"clotho_metadata_development.csv does not name 1 clips ('{NAMES[1]}'); {WITHOUT_ID}",
        f"clotho_metadata_validation.csv is not beside clotho_captions_validation.csv; {WITHOUT_ID}",
        f"clotho_metadata_evaluation.csv is not beside clotho_captions_evaluation.csv; {WITHOUT_ID}",
    ]
    check_without_audio("clotho", source)


def test_names_of_clotho_in_several_encodings(tmp_path: Path) -> None:
    """Of letters in each table, and in each line of one."""
    names = ["Zürich Straße.wav", "Ballaståkning.wav", "it’s.wav", "plain.wav"]
    forms = [
        names[0].encode(),
        unicodedata.normalize("NFD", names[1]).encode(),
        names[2].encode("cp1252"),
        b"plain.wav",
    ]
    source = tmp_path / "clotho"
    write(source / "clotho_captions_evaluation.csv", CAPTION_HEAD, *map(captions, names))
    lines = [b"file_name,sound_id", *(form + b",%d" % number for number, form in enumerate(forms, start=1))]
    (source / "clotho_metadata_evaluation.csv").write_bytes(b"\n".join(lines))
    record(source / "evaluation", *names)
    notes: list[str] = []
    examples, _ = prepared("clotho", source, notes.append)
    assert [example.metadata for example in examples.values()] == [{"freesound_id": str(n)} for n in (1, 2, 3, 4)]
    assert notes == []


def test_clotho_evaluation_alone(tmp_path: Path) -> None:
    source = tmp_path / "clotho"
    write(source / "csv" / "clotho_captions_evaluation.csv", CAPTION_HEAD, captions("e.wav"))
    record(source, "clotho_audio_evaluation/evaluation/e.wav")
    examples, _ = prepared("clotho", source)
    assert splits(examples.values()) == {"evaluation/e.wav": "test"}


def test_captions_without_a_column(tmp_path: Path) -> None:
    write(tmp_path / "x" / "clotho_captions_evaluation.csv", "file_name,caption", "e.wav,A bell.")
    with pytest.raises(
        MintError, match=r"evaluation\.csv, line 1: no column 'caption_1' \(found: file_name, caption\)"
    ):
        prepared("clotho", tmp_path / "x")


def test_esc50(tmp_path: Path) -> None:
    source = tmp_path / "ESC-50"
    names = [f"{fold}-10003{fold}-A-0.wav" for fold in range(1, 6)]
    write(
        source / "ESC-50-master" / "meta" / "esc50.csv",
        "filename,fold,target,category,esc10,src_file,take",
        *(
            f"{name},{name[0]},0,{'dog' if name[0] != '5' else 'crackling_fire'},True,10003{name[0]},A"
            for name in names
        ),
    )
    record(source / "ESC-50-master" / "audio", *names)
    examples, skipped = prepared("esc50", source)
    assert [example.split for example in examples.values()] == ["train", "train", "train", "validation", "test"]
    assert [example.metadata["fold"] for example in examples.values()] == [1, 2, 3, 4, 5]
    fire = examples["5-100035-A-0"]
    assert fire.answer == "crackling fire"
    assert fire.metadata["freesound_id"] == "100035"
    assert fire.prompt == "This is a sound of"
    assert not skipped
    check_without_audio("esc50", source)
