"""Files are written whole or not at all, folders are walked in one way, and an output folder has one owner."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mint.files import (
    ABANDONED_SECONDS,
    HALF_WRITTEN,
    LOCK,
    check_writable,
    clear_abandoned,
    owning,
    safetensors_head,
    sha256,
    walk,
    write_json,
    write_whole,
    writing,
)
from mint.types import MintError


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start Python code that prints a line when it is ready, and wait for that line."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def names(folder: Path) -> list[str]:
    """Return the names of what a folder holds."""
    return sorted(path.name for path in folder.iterdir())


def kill(child: subprocess.Popen[str]) -> None:
    """Send SIGKILL, and wait until the process is gone."""
    child.kill()
    child.communicate()
    assert child.returncode == -signal.SIGKILL


HALF = """
    import sys, time
    from pathlib import Path
    from mint.files import writing
    with writing(Path(sys.argv[1])) as file:
        file.write(b"half")
        file.flush()
        print("ready", flush=True)
        time.sleep(60)
"""
OWNER = """
    import os, sys, time
    from pathlib import Path
    from mint.files import owning
    with owning(Path(sys.argv[1])):
        if len(sys.argv) > 2 and os.fork() == 0:
            print(os.getpid(), file=open(sys.argv[2], "w"), flush=True)
            time.sleep(60)
        print("ready", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("content", ["caf\u00e9\n", b"\x00\xff\r\n", ""])
def test_what_is_written_is_read(content: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    write_whole(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert names(tmp_path) == ["file"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with writing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_writer_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("old")
    with pytest.raises(TypeError, match="bytes-like object"), writing(path) as file:
        print("new", file=file)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"loss": float("nan")})
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.json"]


def test_json_is_read_as_it_was(tmp_path: Path) -> None:
    value = {"name": "\u00e9t\u00e9", "rows": [1, 0.1, None], "path": "a/b"}
    write_json(tmp_path / "file.json", value)
    text = (tmp_path / "file.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert "\u00e9t\u00e9" in text
    assert text.endswith("}\n")


def test_errors_name_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    cases = (
        (tmp_path / "nowhere" / "file", FileNotFoundError),
        (tmp_path / "folder", IsADirectoryError),
        (tmp_path / "file" / "below", NotADirectoryError),
    )
    for path, kind in cases:
        with pytest.raises(kind) as caught:
            write_whole(path, "text")
        assert caught.value.filename == str(path)
        assert caught.value.filename2 is None
    assert names(tmp_path) == ["file", "folder"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link, chain = tmp_path / "elsewhere" / "file", tmp_path / "link", tmp_path / "chain"
    target.write_text("old")
    link.symlink_to(target)
    chain.symlink_to(link)
    for path, text in ((link, "through one"), (chain, "through two")):
        write_whole(path, text)
        assert target.read_text() == text
    assert link.is_symlink()
    assert chain.is_symlink()


def test_a_killed_writer_leaves_the_old_file_and_what_the_next_one_removes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    writer = start(HALF, path)
    half_written = [name for name in names(tmp_path) if name != "file"]
    assert len(half_written) == 1
    assert HALF_WRITTEN.fullmatch(half_written[0])

    clear_abandoned(tmp_path)  # its writer lives
    assert half_written[0] in names(tmp_path)
    kill(writer)
    assert path.read_text() == "old"
    assert half_written[0] in names(tmp_path)

    clear_abandoned(tmp_path)
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("age", "stays"), [(0.0, True), (ABANDONED_SECONDS - 60, True), (ABANDONED_SECONDS + 60, False)]
)
def test_the_writers_of_other_machines_have_a_day(age: float, stays: bool, tmp_path: Path) -> None:
    """Whether their process lives cannot be told: the number may be another's here."""
    half_written = tmp_path / f".file.ffffffff-{os.getpid()}-01234567.tmp"
    half_written.touch()
    os.utime(half_written, (time.time() - age,) * 2)
    clear_abandoned(tmp_path)
    assert half_written.exists() == stays


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    others = [".file.tmp", ".file.1234.tmp", "file.ffffffff-1-01234567.tmp", ".a.b.c.tmp"]
    for name in others:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    clear_abandoned(tmp_path)
    assert names(tmp_path) == sorted(others)
    clear_abandoned(tmp_path / "nowhere")


def test_two_writers_never_mix(tmp_path: Path) -> None:
    """A reader beside two processes that write one file finds what one of them wrote, whole."""
    code = """
        import sys
        from pathlib import Path
        from mint.files import write_whole
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(300):
            write_whole(Path(sys.argv[1]), sys.argv[2] * 100_000)
    """
    path = tmp_path / "file"
    write_whole(path, "a" * 100_000)
    writers = [start(code, path, letter) for letter in "ab"]
    for writer in writers:  # both are ready, and begin together
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    seen = set()
    while any(writer.poll() is None for writer in writers):
        text = path.read_text()
        assert len(text) == 100_000
        seen |= set(text)
        assert len(set(text)) == 1
    assert seen == {"a", "b"}
    assert [writer.communicate()[1] for writer in writers] == ["", ""]
    assert names(tmp_path) == ["file"]


def naive_walk(folder: Path) -> dict[str, list[str]]:
    """Return the files by folder, without links."""
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    files = {str(folder): [path.name for path in entries if not path.is_dir()]}
    for path in entries:
        if path.is_dir():
            files |= naive_walk(path)
    return files


@pytest.mark.parametrize("seed", range(5))
def test_walk_finds_what_a_naive_walk_finds(seed: int, tmp_path: Path) -> None:
    generator = np.random.default_rng(seed)
    folders = [tmp_path]
    for number in range(12):
        name = ("." if generator.random() < 0.2 else "") + f"{generator.integers(100)}-{number}"
        folders.append(folders[generator.integers(len(folders))] / name)
        folders[-1].mkdir()
    for number in range(40):
        name = ("." if generator.random() < 0.2 else "") + f"{generator.integers(100)}-{number}.wav"
        (folders[generator.integers(len(folders))] / name).touch()
    found = list(walk(tmp_path))
    assert dict(found) == naive_walk(tmp_path)
    assert [parent for parent, _ in found] == list(naive_walk(tmp_path))


def test_walk_follows_links_but_never_in_circles(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "a" / "b", outside / "c"):
        folder.mkdir(parents=True)
    for path in (root / "one.wav", root / "a" / "b" / "two.wav", outside / "c" / "three.wav"):
        path.touch()
    (root / "a" / "b" / "up").symlink_to(root)
    (root / "linked").symlink_to(outside)
    (outside / "c" / "back").symlink_to(root / "a")
    (root / "z").symlink_to(root / "z")
    (root / "gone.wav").symlink_to(root / "nowhere")
    (root / "file.wav").symlink_to(root / "one.wav")
    found = {os.path.relpath(parent, root): files for parent, files in walk(root)}
    assert found == {
        ".": ["file.wav", "gone.wav", "one.wav", "z"],
        "a": [],
        "a/b": ["two.wav"],
        "linked": [],
        "linked/c": ["three.wav"],
    }


def test_walk_of_odd_roots(tmp_path: Path) -> None:
    hidden = tmp_path / ".hidden"
    hidden.mkdir()
    (hidden / "a.wav").touch()
    assert list(walk(hidden)) == [(str(hidden), ["a.wav"])]  # whoever names it means it
    assert list(walk(tmp_path)) == [(str(tmp_path), [])]
    assert list(walk(tmp_path / "nowhere")) == []
    assert list(walk(hidden / "a.wav")) == []


def test_a_second_process_is_refused_and_the_next_one_is_not(tmp_path: Path) -> None:
    output = tmp_path / "runs" / "mine"
    owner = start(OWNER, output)
    with pytest.raises(MintError, match=re.escape(f"{output} is being written by another process; wait for")):
        owning(output).__enter__()
    with owning(tmp_path / "runs" / "other"):
        pass
    kill(owner)
    with owning(output):
        (output / "file").touch()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_the_lock_dies_with_its_process_and_not_with_its_children(tmp_path: Path) -> None:
    """Workers that load data are forked, and may outlive a killed parent for seconds."""
    owner = start(OWNER, tmp_path / "run", tmp_path / "child")
    while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text().strip():
        time.sleep(0.01)
    child = int((tmp_path / "child").read_text())
    try:
        kill_alone(owner)
        with owning(tmp_path / "run"):
            os.kill(child, 0)  # it lives
    finally:
        os.kill(child, signal.SIGKILL)
        owner.communicate()


def kill_alone(child: subprocess.Popen[str]) -> None:
    """Send SIGKILL, and wait for the process, whose own children may hold its pipes open."""
    child.kill()
    child.wait()


def test_an_owner_owns_once(tmp_path: Path) -> None:
    with owning(tmp_path), pytest.raises(MintError, match="is being written by another process"), owning(tmp_path):
        pytest.fail("it has two owners")
    with owning(tmp_path), owning(tmp_path / "stage1"):
        pass


def test_an_owner_that_fails_lets_go(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").touch()
    with pytest.raises(IsADirectoryError), owning(tmp_path / "run"):
        write_whole(tmp_path / "run", "text")
    with owning(tmp_path / "run"):
        pass
    assert names(tmp_path / "run") == [LOCK, "file"]


def test_an_owner_that_leaves_nothing_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(MintError, match="no such source"), owning(tmp_path / "run"):
        raise MintError("no such source")
    assert names(tmp_path) == []


def test_an_output_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError) as caught, owning(tmp_path / "file"):
        pass
    assert caught.value.filename == str(tmp_path / "file")


def test_names_of_half_written_files_hide_the_machine(tmp_path: Path) -> None:
    with writing(tmp_path / "file"):
        (name,) = names(tmp_path)
    assert HALF_WRITTEN.fullmatch(name)
    assert socket.gethostname() not in name


def test_a_path_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    for path in (tmp_path / "old", tmp_path / "new", tmp_path / "a" / "b" / "new"):
        check_writable(path)
    assert names(tmp_path) == ["a", "old"]
    assert names(tmp_path / "a" / "b") == []
    assert (tmp_path / "old").read_text() == "old"


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MintError, match=r"is a folder; give the path of a file"):
        check_writable(tmp_path)
    for path in (tmp_path / "file" / "x", tmp_path / "file" / "a" / "x", tmp_path / ("x" * 300), Path("/proc/no/file")):
        with pytest.raises(MintError, match=r" cannot be written \(.*\); give another path"):
            check_writable(path)
    assert names(tmp_path) == ["file"]


def test_a_safetensors_file_that_is_written_in_blocks_is_one_that_the_library_reads(tmp_path: Path) -> None:
    tensors = {"wide": torch.arange(6.0).double().reshape(2, 3), "half": torch.tensor([1.5]).half()}
    with writing(tmp_path / "a.safetensors") as file:
        file.write(safetensors_head({"wide": ("F64", (2, 3)), "half": ("F16", (1,))}))
        for row in tensors["wide"]:
            file.write(row.numpy().tobytes())
        file.write(tensors["half"].numpy().tobytes())

    found = load_file(tmp_path / "a.safetensors")
    assert found.keys() == tensors.keys()
    assert all(found[name].equal(tensors[name]) for name in tensors)
