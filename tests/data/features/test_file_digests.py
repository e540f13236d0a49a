"""What is remembered of files: never the digest of other bytes, whoever writes and whenever it is killed."""

from __future__ import annotations

import hashlib
import io
import itertools
import multiprocessing
import os
import random
import signal
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mint.data.audio.members import digest as hex_digest
from mint.data.audio.members import locate, states
from mint.data.features import file_digests as digests_module
from mint.data.features.file_digests import Digests
from mint.data.id_tables import Ids, as_ids, find, id_of, latest
from mint.files import _host, writing


@pytest.fixture(autouse=True)
def every_file_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests_module, "UNSURE", -(10**12))


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.bin" for number in range(5)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 100)
    return paths


def digest(path: Path) -> bytes:
    return bytes.fromhex(hex_digest(path))


def kept(tmp_path: Path) -> Digests:
    return Digests(tmp_path / "digests")


def known(store: Digests, paths: list[Path]) -> dict[str, bytes]:
    texts = [str(path) for path in paths]
    found, there = store.known(texts, as_ids(b"".join(map(id_of, texts))))
    return {path.name: found[n].tobytes() for n, path in enumerate(paths) if there[n]}


def test_a_file_is_read_once(tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {path.name: digest(path) for path in files}
    store = kept(tmp_path)
    assert known(store, files) == {}
    assert {path.name: store.of(path) for path in files} == expected
    store.save()
    assert known(store, files) == known(kept(tmp_path), files) == expected
    monkeypatch.setattr(digests_module, "digest", None)
    again = kept(tmp_path)
    assert {path.name: again.of(path) for path in files} == expected
    assert {path.name: store.of(path) for path in files} == expected


def test_a_changed_file_is_read_again(tmp_path: Path, files: list[Path]) -> None:
    store = kept(tmp_path)
    before = {path: (store.of(path), path.stat()) for path in files}
    store.save()
    files[0].write_bytes(b"\1" * 100)
    os.utime(files[0], ns=(before[files[0]][1].st_atime_ns, before[files[0]][1].st_mtime_ns))  # as if it had not been
    files[1].write_bytes(b"\1" * 101)
    os.utime(files[2], (1, 1))
    files[3].unlink()
    for one in (store, kept(tmp_path)):
        assert known(one, files).keys() == {"4.bin"}
        assert [one.of(path) for path in files[:3]] == [digest(path) for path in files[:3]]
    assert store.of(files[0]) != before[files[0]][0]
    with pytest.raises(FileNotFoundError):
        store.of(files[3])
    store.save()
    assert known(kept(tmp_path), files).keys() == {"0.bin", "1.bin", "2.bin", "4.bin"}
    assert kept(tmp_path).of(files[0]) == digest(files[0])


def test_a_file_that_was_touched_just_now_is_not_remembered(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests_module, "UNSURE", 10**12)
    store = kept(tmp_path)
    assert store.of(files[0]) == digest(files[0])
    store.save()
    assert not store.folder.exists()


def test_many_tables_become_one(tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests_module, "RECORDS_AT_ONCE", 1)
    monkeypatch.setattr(digests_module, "TABLES", 3)
    store = kept(tmp_path)
    expected = {path.name: store.of(path) for path in files}
    assert len(list(store.folder.iterdir())) == 5
    assert known(kept(tmp_path), files) == expected
    assert len(list(store.folder.iterdir())) == 1
    assert known(kept(tmp_path), files) == expected


def test_damaged_tables_are_passed_over(tmp_path: Path, files: list[Path]) -> None:
    store = kept(tmp_path)
    expected = {path.name: store.of(path) for path in files}
    store.save()
    (table,) = store.folder.iterdir()
    (store.folder / "0.npz").write_bytes(table.read_bytes()[:-8])
    (store.folder / "1.npz").write_bytes(b"")
    np.savez(store.folder / "2.npz", records=np.zeros(3))
    np.savez(store.folder / "3.npz", records=np.array([{}], dtype=object))
    np.savez(store.folder / "4.npz", others=np.zeros((1, 7), np.int64))
    assert known(kept(tmp_path), files) == expected


def test_where_nothing_can_be_kept(tmp_path: Path, files: list[Path]) -> None:
    (tmp_path / "digests").write_text("")
    store = kept(tmp_path)
    assert store.of(files[0]) == digest(files[0])
    store.save()
    assert known(store, files) == {}


def test_a_limit_of_the_system_on_the_size_of_files(tmp_path: Path, files: list[Path]) -> None:
    """On a full disk, half a table is never left, and the tables that were there stay."""
    resource = pytest.importorskip("resource", reason="limits of POSIX")
    store = kept(tmp_path)
    store.of(files[0])
    store.save()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150, hard))
    try:
        for path in files:
            store.of(path)
        store.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert known(kept(tmp_path), files) == {"0.bin": digest(files[0])}
    assert len(list(store.folder.iterdir())) == 1


def test_half_written_tables_of_killed_writers_are_removed_at_the_next_start(tmp_path: Path, files: list[Path]) -> None:
    store = kept(tmp_path)
    store.of(files[0])
    store.save()
    leave_half_written(store.folder / "table.npz")
    living = store.folder / f".table.npz.{_host()}-{os.getpid()}-00000000.tmp"
    living.write_bytes(b"half")

    assert len(list(store.folder.iterdir())) == 3
    assert known(kept(tmp_path), files).keys() == {"0.bin"}
    assert living.exists()
    assert len(list(store.folder.iterdir())) == 2


def _die_while_writing(path: Path) -> None:
    with writing(path) as file:
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def leave_half_written(path: Path) -> None:
    """Let a process be killed while it writes a file."""
    writer = multiprocessing.get_context("fork").Process(target=_die_while_writing, args=(path,))
    writer.start()
    writer.join()


@pytest.fixture
def members(tmp_path: Path) -> dict[Path, bytes]:
    """The members of a shard, all of one size, with their digests: only their names tell their records apart."""
    shard = tmp_path / "clips.tar"
    expected: dict[Path, bytes] = {}
    with tarfile.open(shard, "w") as tar:
        for number in range(1500):
            content = number.to_bytes(32, "big")
            member = tarfile.TarInfo(f"{number}.wav")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
            expected[Path(f"{shard}::{number}.wav")] = hashlib.sha256(content).digest()[:16]
    return expected


def test_a_table_that_is_replaced_during_a_search(
    tmp_path: Path, members: dict[Path, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other threads may write new records at any moment, so that all rows move."""
    paths = sorted(members)
    writer = kept(tmp_path)
    for path in paths[:100]:
        writer.of(path)
    writer.save()

    store = kept(tmp_path)
    others = iter(paths[100:])

    def find_and_save(*arguments: Ids) -> Ids:
        rows = find(*arguments)
        for path in itertools.islice(others, 10):
            name, place = id_of(str(path)), locate(path)
            state = np.array([place.size, place.modified, place.changed], np.int64).tobytes()
            store._new[name] = name + state + members[path]
        store.save()
        return rows

    monkeypatch.setattr(digests_module, "find", find_and_save)
    assert {path: store.of(path) for path in paths[:50]} == {path: members[path] for path in paths[:50]}
    found = known(store, paths[50:100])
    assert found == {path.name: members[path] for path in paths[50:100]}


def test_many_threads(tmp_path: Path, members: dict[Path, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the files are known, and tables are written all the time."""
    monkeypatch.setattr(digests_module, "RECORDS_AT_ONCE", 8)
    writer = kept(tmp_path)
    for path in list(members)[::2]:
        writer.of(path)
    writer.save()

    store = kept(tmp_path)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(16) as pool:
            digests = list(pool.map(store.of, members))
    finally:
        sys.setswitchinterval(interval)
    assert digests == list(members.values())


def test_a_record_that_is_wrong_is_found_and_corrected(tmp_path: Path, files: list[Path]) -> None:
    store = kept(tmp_path)
    right = {path: store.of(path) for path in files}
    name = id_of(str(files[0]))
    store._new[name] = store._new[name][:40] + right[files[1]]
    store.save()

    again = kept(tmp_path)
    assert again.of(files[0]) == right[files[1]]
    assert again.check(files[0]) == (right[files[0]], False)
    assert again.check(files[2]) == (right[files[2]], True)
    again.save()
    assert {path: kept(tmp_path).of(path) for path in files} == right


def write_for_ever(folder: Path, files: list[Path]) -> None:
    """New tables of the same files again and again."""
    while True:
        store = Digests(folder)
        store.records()
        for path in files:
            store._new.clear()
            store._records = None
            store.of(path)
            store.save()


def test_two_writers_that_are_killed(tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests_module, "TABLES", 4)
    store = kept(tmp_path)
    expected = {path.name: store.of(path) for path in files}
    store.save()
    context = multiprocessing.get_context("fork")
    generator = random.Random(0)
    for _ in range(5):
        writers = [context.Process(target=write_for_ever, args=(store.folder, files[:3])) for _ in range(2)]
        for writer in writers:
            writer.start()
        time.sleep(generator.uniform(0.02, 0.2))
        for writer in writers:
            writer.kill()
            writer.join()
        found = known(kept(tmp_path), files)
        assert found.items() <= expected.items()


def test_states_are_those_of_locate(tmp_path: Path, files: list[Path]) -> None:
    paths = [*map(str, files), str(tmp_path / "none"), "a\0b", "\ud800", str(tmp_path / "no.tar::x")]
    found = states(paths)
    for path, row in zip(files, found.tolist(), strict=False):
        place = locate(path)
        assert row == [place.size, place.modified, place.changed]
    assert (found[len(files) :] == -1).all()


@given(st.lists(st.integers(0, 40), max_size=60), st.lists(st.integers(0, 60), max_size=20))
@settings(max_examples=100, deadline=None)
def test_ids_are_found(there: list[int], wanted: list[int]) -> None:
    """The search finds what a dictionary would find."""
    ids = as_ids(b"".join(id_of(str(number)) for number in there))
    rows = latest(ids)
    last = {number: row for row, number in enumerate(there)}
    places = find(np.asfortranarray(ids[rows]), as_ids(b"".join(id_of(str(number)) for number in wanted)))
    found = [int(rows[place]) if place >= 0 else None for place in places]
    assert found == [last.get(number) for number in wanted]
