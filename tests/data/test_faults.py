"""Files as no one should have them: each is read, or refused in one line, and never stops what is done to the others.

`docs/robustness.md` lists what is tried here.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tiny_video
from mint.data.audio.decode import as_clip, load_audio, load_windows, probe
from mint.data.audio.listen import check_audio
from mint.data.features.cache import FeatureCache
from mint.data.features.encode import fill_cache
from mint.data.manifests.manifest import read_manifest, write_manifest
from mint.data.manifests.tar_shards import write_shards
from mint.data.manifests.validate import validate
from mint.encoders.tiny import TinyEncoder
from mint.types import Example, MintError

RATE = 16000
FORMATS: dict[str, dict[str, str]] = {
    "wav": {"format": "WAV"},
    "flac": {"format": "FLAC"},
    "ogg": {"format": "OGG"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3"},
    "aiff": {"format": "AIFF"},
    "au": {"format": "AU"},
    "caf": {"format": "CAF"},
    "w64": {"format": "W64"},
}
fuzz = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def encoded(kind: str, seconds: float = 0.3) -> bytes:
    """Two channels of noise."""
    buffer = io.BytesIO()
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (round(seconds * RATE), 2))
    soundfile.write(buffer, samples, RATE, **FORMATS[kind])
    return buffer.getvalue()


CONTENT = {kind: encoded(kind) for kind in FORMATS}
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (2, round(0.3 * RATE)))
FUZZED = CONTENT | {kind: tiny_video.encoded(kind, NOISE, RATE) for kind in ("m4a", "aac", "webm")}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that other users may enter, outside pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def outcome(path: Path) -> str:
    """What reading a file in every way comes to: `read`, or the line that refuses it."""
    results = set()
    reads: list[Callable[[], object]] = [
        lambda: probe(path),
        lambda: check_audio(path),
        lambda: list(load_windows(path, 8000)),
        lambda: load_audio(path, RATE),
        lambda: load_audio(path, 8000, 0.1, 0.1),
        lambda: as_clip(path, RATE),
    ]
    for read in reads:
        try:
            samples = read()
        except MintError as error:
            results.add(str(error))
        else:
            if isinstance(samples, np.ndarray):
                assert samples.size
                assert np.isfinite(samples).all()
                results.add("read")
    assert all(line == "read" or (line.startswith(str(path)) and "\n" not in line) for line in results)
    return min(results, key=lambda text: text == "read")


@fuzz
@given(st.sampled_from(sorted(FUZZED)), st.floats(0, 1))
def test_truncated(place: Path, kind: str, share: float) -> None:
    path = place / f"cut.{kind}"
    path.write_bytes(FUZZED[kind][: round(share * len(FUZZED[kind]))])
    outcome(path)


@fuzz
@given(st.sampled_from(sorted(FUZZED)), st.binary(max_size=3000))
def test_random_bytes(place: Path, suffix: str, content: bytes) -> None:
    path = place / f"random.{suffix}"
    path.write_bytes(content)
    outcome(path)


@fuzz
@given(st.sampled_from(sorted(FUZZED)), st.integers(0, 200), st.binary(max_size=1000))
def test_random_bytes_after_a_true_beginning(place: Path, kind: str, length: int, content: bytes) -> None:
    path = place / f"begun.{kind}"
    path.write_bytes(FUZZED[kind][:length] + content)
    outcome(path)


@fuzz
@given(
    st.sampled_from(sorted(FUZZED)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255), st.booleans()), min_size=1, max_size=8),
)
def test_changed_bytes(place: Path, kind: str, changes: list[tuple[float, int, bool]]) -> None:
    """Half of them in the first 100 bytes, where the header is."""
    content = bytearray(FUZZED[kind])
    for share, byte, header in changes:
        content[int(share * (100 if header else len(content)))] = byte
    path = place / f"changed.{kind}"
    path.write_bytes(content)
    outcome(path)


def test_a_header_that_promises_more_than_memory_holds(place: Path) -> None:
    content = bytearray(CONTENT["flac"])
    content[21] |= 0x0F  # STREAMINFO's 36 bits of the number of samples
    content[22:26] = b"\xff\xff\xff\xfe"
    (place / "promise.flac").write_bytes(content)
    assert outcome(place / "promise.flac") != "read"


@pytest.mark.parametrize("suffix", [*FORMATS, "txt", "jpg", "WAV", ""])
@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_wrong_extension(place: Path, kind: str, suffix: str) -> None:
    right, wrong = place / f"right.{kind}", place / (f"wrong.{suffix}" if suffix else "wrong")
    for path in (right, wrong):
        path.write_bytes(CONTENT[kind])
    np.testing.assert_array_equal(load_audio(wrong, RATE), load_audio(right, RATE))


def zero_length(path: Path) -> None:
    path.write_bytes(b"")


def missing(path: Path) -> None:
    pass


def folder(path: Path) -> None:
    path.mkdir()


def below_a_file(path: Path) -> None:
    path.parent.joinpath("file").write_bytes(b"")
    path.symlink_to("file/below.wav")


def dangling_link(path: Path) -> None:
    path.symlink_to("nowhere.wav")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def web_page(path: Path) -> None:
    path.write_text("<!doctype html><title>404</title>")


FAULTS = [zero_length, missing, folder, below_a_file, dangling_link, link_to_itself, pipe, web_page]


@pytest.mark.parametrize("fault", FAULTS)
def test_no_audio_there(tmp_path: Path, fault: Callable[[Path], None]) -> None:
    fault(tmp_path / "bad.wav")
    assert outcome(tmp_path / "bad.wav") != "read"


@pytest.fixture
def _nobody() -> Iterator[None]:
    """Not the superuser, who may read everything."""
    if not hasattr(os, "geteuid"):
        pytest.skip("users of POSIX")
    if os.geteuid() == 0:
        os.seteuid(65534)
        yield
        os.seteuid(0)
    else:
        yield


@pytest.mark.parametrize("locked", ["file", "folder"])
def test_permissions(place: Path, locked: str, request: pytest.FixtureRequest) -> None:
    inner = place / locked
    inner.mkdir()
    path = inner / "clip.wav"
    path.write_bytes(CONTENT["wav"])
    target = path if locked == "file" else inner
    before = stat.S_IMODE(target.stat().st_mode)
    target.chmod(0)
    request.addfinalizer(lambda: target.chmod(before))
    request.getfixturevalue("_nobody")
    assert outcome(path) == f"{path}: it may not be read; change its permissions"


names = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=60)


@fuzz
@given(names.filter(lambda name: name not in (".", "..") and ".tar::" not in name))
def test_names_of_any_characters(place: Path, name: str) -> None:
    path = place / "names" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(CONTENT["wav"])
    assert outcome(path) == "read"
    write_manifest(place / "m.jsonl", [Example("1", path, "t", "train", "c", answer="x")])
    assert [problem.message for problem in validate([place / "m.jsonl"]).problems] == []
    path.unlink()


@pytest.mark.parametrize(
    "name", ["x" * 251 + ".wav", "ü" * 125 + ".wav", os.fsdecode(b"\xff\xfe.wav"), " .wav", "-x.wav"]
)
def test_names_that_are_long_or_odd(place: Path, name: str) -> None:
    path = place / name
    path.write_bytes(CONTENT["wav"])
    assert outcome(path) == "read"
    write_manifest(place / "m.jsonl", [Example("1", path, "t", "train", "c", answer="x")])
    assert validate([place / "m.jsonl"]).problems == []


@pytest.mark.parametrize("name", ["x" * 300 + ".wav", "/".join(["deep"] * 2000), "null\0byte.wav", "half \ud800.wav"])
def test_names_that_no_file_can_have(place: Path, name: str) -> None:
    assert outcome(place / name) != "read"


def test_one_bad_file_of_each_kind_in_a_corpus(tmp_path: Path) -> None:
    """Good clips are used, each bad one is named, by the cache, the validation and the shards."""
    examples = []
    for number, fault in enumerate(FAULTS):
        bad, good = tmp_path / f"{fault.__name__}.wav", tmp_path / f"good {number}.wav"
        fault(bad)
        good.write_bytes(CONTENT["wav"])
        examples += [Example(path.stem, path, "t", "train", "c", answer="x") for path in (bad, good)]
    cut = tmp_path / "cut.flac"
    cut.write_bytes(CONTENT["flac"][: len(CONTENT["flac"]) // 2])
    examples.append(Example("cut", cut, "t", "train", "c", answer="x"))
    bad_ids = [*(fault.__name__ for fault in FAULTS), "cut"]
    manifest = tmp_path / "m.jsonl"
    write_manifest(manifest, examples)

    filled = fill_cache(FeatureCache(tmp_path / "f", "tiny"), TinyEncoder(), read_manifest(manifest), 30.0)
    assert [one.id for one in filled.skipped] == bad_ids
    assert len(filled.files) == len(FAULTS)

    problems = validate([manifest]).problems
    assert [examples[problem.line - 1].id for problem in problems] == bad_ids
    assert {problem.kind for problem in problems} == {"audio"}

    absent = [fault.__name__ for fault in FAULTS if fault not in (zero_length, web_page)]
    sharded = write_shards(manifest, tmp_path / "shards")
    assert [name for name, _ in sharded.skipped] == absent
    assert len(validate([sharded.manifest]).problems) == 3
