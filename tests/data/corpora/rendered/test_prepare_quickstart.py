"""`prepare_quickstart`: the same bytes from the same seed, resumed where it was, never over somebody's files."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mint.data.corpora.rendered import quickstart, soundfont
from mint.data.corpora.rendered.plan import ClipPlan
from mint.data.corpora.rendered.quickstart import CORPORA, prepare_quickstart
from mint.data.corpora.rendered.soundfont import Note
from mint.data.manifests.manifest import read_manifest
from mint.types import MintError
from tiny_soundfont import write_soundfont

SCALE = 0.001  # one clip of each class and split


@pytest.fixture(scope="module")
def font(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_soundfont(tmp_path_factory.mktemp("font") / "tiny.sf2")


@pytest.fixture(autouse=True)
def short_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ensembles alone, to be quick; what is tested here is the same for each corpus."""
    monkeypatch.setattr(quickstart, "CORPORA", {"ensembles": CORPORA["ensembles"]})


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(font: Path, tmp_path: Path) -> None:
    prepare_quickstart(tmp_path / "one", font, seed=3, scale=SCALE, workers=1, progress=False)
    prepare_quickstart(tmp_path / "two", font, seed=3, scale=SCALE, workers=2, progress=False)
    prepare_quickstart(tmp_path / "other", font, seed=4, scale=SCALE, workers=1, progress=False)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert set(digests(tmp_path / "one").values()).isdisjoint(digests(tmp_path / "other").values())


def test_manifest_and_audio(font: Path, tmp_path: Path) -> None:
    (manifest,) = prepare_quickstart(tmp_path / "new" / "folder", font, scale=SCALE, workers=1, progress=False)
    assert manifest == tmp_path / "new" / "folder" / "ensembles.jsonl"
    examples = list(read_manifest(manifest))
    assert {example.split for example in examples} == {"train", "validation", "test"}
    for example in examples:
        assert example.corpus == example.task == "ensembles"
        assert example.prompt == "Identify the instruments in this segment of music:"
        assert example.answer == ", ".join(example.labels)
        info = soundfile.info(example.audio)
        assert (info.format, info.subtype, info.samplerate, info.channels) == ("FLAC", "PCM_16", 16000, 1)
        assert info.frames == 64000


def test_a_finished_corpus_is_kept(font: Path, tmp_path: Path) -> None:
    prepare_quickstart(tmp_path, font, scale=SCALE, workers=1, progress=False)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    prepare_quickstart(tmp_path, font, scale=SCALE, workers=1, progress=False)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_other_parameters_render_anew(font: Path, tmp_path: Path) -> None:
    prepare_quickstart(tmp_path, font, seed=0, scale=SCALE, workers=1, progress=False)
    prepare_quickstart(tmp_path, font, seed=1, scale=SCALE, workers=1, progress=False)
    again = digests(tmp_path)
    prepare_quickstart(tmp_path / "fresh", font, seed=1, scale=SCALE, workers=1, progress=False)
    assert again == digests(tmp_path / "fresh")


def test_an_interrupted_run_goes_on(font: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_quickstart(tmp_path / "whole", font, scale=SCALE, workers=1, progress=False)
    rendered: list[Any] = []

    def render(*arguments: Any) -> Any:
        if len(rendered) == 2:
            raise KeyboardInterrupt
        rendered.append(arguments)
        return soundfont.render(*arguments)

    monkeypatch.setattr(quickstart, "render", render)
    with pytest.raises(KeyboardInterrupt):
        prepare_quickstart(tmp_path / "cut", font, scale=SCALE, workers=1, progress=False)
    assert not (tmp_path / "cut" / "ensembles.jsonl").exists()
    monkeypatch.setattr(quickstart, "render", soundfont.render)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").rglob("*.flac")}
    assert len(kept) == 2
    prepare_quickstart(tmp_path / "cut", font, scale=SCALE, workers=1, progress=False)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")


def test_what_a_killed_run_left_half_written_is_removed(font: Path, tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from mint.files import writing
with writing(Path(sys.argv[1])), writing(Path(sys.argv[2])):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    prepare_quickstart(tmp_path, font, scale=SCALE, workers=1, progress=False)
    before = digests(tmp_path)
    clip = next(tmp_path.rglob("*.flac"))
    clip.unlink()
    subprocess.run([sys.executable, "-c", code, str(clip), str(tmp_path / "ensembles.jsonl")], check=False)
    assert len(digests(tmp_path)) == len(before) + 1, "less the clip, more the two half-written files"
    prepare_quickstart(tmp_path, font, scale=SCALE, workers=1, progress=False)
    assert digests(tmp_path) == before


def test_a_lost_clip_is_rendered_again(font: Path, tmp_path: Path) -> None:
    prepare_quickstart(tmp_path, font, scale=SCALE, workers=1, progress=False)
    before = digests(tmp_path)
    next(tmp_path.rglob("*.flac")).unlink()
    prepare_quickstart(tmp_path, font, scale=SCALE, workers=1, progress=False)
    assert digests(tmp_path) == before


@pytest.mark.parametrize("name", ["ensembles/mine.wav", "ensembles.jsonl"])
def test_files_of_others_are_left_alone(font: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("precious")
    with pytest.raises(MintError, match=r"holds a 'ensembles' that MINT has not rendered; give another folder"):
        prepare_quickstart(tmp_path, font, scale=SCALE, workers=1, progress=False)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_scale_must_be_positive(font: Path, tmp_path: Path, scale: float) -> None:
    with pytest.raises(MintError, match=r"scale is .*; give a number above 0"):
        prepare_quickstart(tmp_path, font, scale=scale, progress=False)


def test_of_two_clips_that_sound_alike_the_held_out_one_stays(
    font: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Twins:
        PROMPT, VOCABULARY = "p", ("a", "b")

        @staticmethod
        def plan(seed: int, scale: float) -> list[ClipPlan]:
            note = (Note(0, 0.2, 69, 100, 0),)
            return [
                ClipPlan(f"twins-{split}", split, 0.5, note, ("a",), ("A.",))
                for split in ("train", "validation", "test")
            ]

    monkeypatch.setattr(quickstart, "CORPORA", {"twins": Twins})
    (manifest,) = prepare_quickstart(tmp_path, font, workers=1, progress=False)
    assert [example.split for example in read_manifest(manifest)] == ["test"]


def test_missing_soundfont(tmp_path: Path) -> None:
    with pytest.raises(MintError, match=r"nope\.sf2: no readable SoundFont"):
        prepare_quickstart(tmp_path / "out", tmp_path / "nope.sf2", scale=SCALE, progress=False)


def test_missing_renderer(font: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(MintError, match=r"midirenderer is not installed; `pip install mint-audio\[quickstart\]`"):
        prepare_quickstart(tmp_path / "out", font, scale=SCALE, progress=False)


@pytest.mark.slow
class TestGenuineSoundFont:
    """With the SoundFont that the quickstart fetches."""

    @pytest.fixture
    def general_midi(self) -> Path:
        from mint.assets import fetch

        return fetch("soundfont") / "TimGM6mb.sf2"

    def test_every_corpus_is_audible_and_no_rendering_is_in_two_splits(
        self, general_midi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(quickstart, "CORPORA", CORPORA)
        manifests = prepare_quickstart(tmp_path, general_midi, scale=0.03, workers=2, progress=False)
        assert [manifest.stem for manifest in manifests] == ["notes", "ensembles", "chords", "percussion"]
        contents = []
        for manifest in manifests:
            for example in read_manifest(manifest):
                samples, _ = soundfile.read(example.audio)
                assert 0.002 < np.abs(samples).max() < 0.96, example.id
                assert np.sqrt(np.square(samples).mean()) > 1e-4, example.id
                contents.append(hashlib.sha256(example.audio.read_bytes()).digest())
        assert len(set(contents)) == len(contents)

    def test_every_program_is_audible_over_its_range_and_sounds_like_no_other(self, general_midi: Path) -> None:
        from mint.data.corpora.rendered.general_midi import PROGRAMS
        from mint.data.corpora.rendered.soundfont import render

        heard = set()
        for program in PROGRAMS:
            for pitch in (program.low, (program.low + program.high) // 2, program.high):
                samples = render(general_midi, [Note(0, 0.8, pitch, 75, program.number)], 1.0)
                assert np.abs(samples).max() > 0.015, (program, pitch)
                heard.add(samples.tobytes())
        assert len(heard) == 3 * len(PROGRAMS)

    @pytest.mark.parametrize(("program", "pitch"), [(73, 72), (80, 69), (40, 69), (71, 60), (48, 62)])
    def test_pitch(self, general_midi: Path, program: int, pitch: int) -> None:
        from mint.data.corpora.rendered.soundfont import RATE, render

        samples = render(general_midi, [Note(0, 1.9, pitch, 100, program)], 2.0)
        spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
        tone = 440 * 2 ** ((pitch - 69) / 12) * len(samples) / RATE  # bin of the fundamental
        near = np.zeros(len(spectrum), bool)
        for harmonic in range(1, int(len(spectrum) / tone)):
            near[round(0.98 * harmonic * tone) : round(1.02 * harmonic * tone) + 1] = True
            if harmonic * tone * 0.04 > tone / 2:
                break
        assert np.square(spectrum[near]).sum() > 0.8 * np.square(spectrum).sum()
