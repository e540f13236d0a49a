"""An index against naive passes over the same vectors, and what is left of it when its writer dies."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from torch import Tensor

from mint.evaluation.metrics.similarity import similarity
from mint.index import Entry, Hit, Index, IndexWriter, Origin, ranking
from mint.index import writer as writing
from mint.types import MintError
from tiny_index import ORIGIN, E, Q, filled, text, vectors


def naive(clips: Tensor, query: Tensor, top: int, name: str = "clip") -> list[tuple[str, float]]:
    """The exact pass that `Mint.search` makes: a stable sort of the similarities of all clips."""
    cosines = similarity(clips, query[None])[:, 0]
    order = torch.argsort(-cosines, stable=True)[:top].tolist()
    return [(f"/{name}{number:05d}.wav", float(cosines[number])) for number in order]


def named(hits: list[Hit]) -> list[str]:
    return [hit.path for hit in hits]


@pytest.mark.parametrize("spread", [1.0, 0.3, 0.02])
@pytest.mark.parametrize("top", [1, 10, 1000, 5000])
def test_the_ranking_is_that_of_a_pass_over_all_vectors(tmp_path: Path, spread: float, top: int) -> None:
    clips = vectors(1000, spread=spread)
    index = filled(tmp_path, clips, at_once=300)
    for seed in range(3):
        hits = index.search(text(seed), top)
        expected = naive(clips.double(), text(seed).double(), top)
        assert named(hits) == [path for path, _ in expected]
        assert [hit.score for hit in hits] == pytest.approx([score for _, score in expected], abs=1e-6)


def test_half_precision_alone_would_rank_otherwise(tmp_path: Path) -> None:
    """The test above would pass without a second pass if the first lost nothing."""
    clips = vectors(1000, spread=0.02)
    index = filled(tmp_path, clips)
    assert [path for path, _ in naive(clips.half(), text(), 1000)] != named(index.search(text(), 1000))


@pytest.mark.parametrize("spread", [1.0, 0.02])
@pytest.mark.parametrize("combination", ["best", "mean"])
def test_the_error_of_the_first_pass_is_bounded(tmp_path: Path, spread: float, combination: Any) -> None:
    clips = vectors(2000, spread=spread)
    [segment] = filled(tmp_path, clips).segments
    query = (text() if combination == "best" else clips[3]).double()
    cosines = (clips.double() * query).sum(dim=-1)  # [N, Q]
    exact = cosines.amax(dim=1) if combination == "best" else cosines.mean(dim=1)
    errors = np.abs(ranking._rough(segment, query, combination) - exact.numpy())
    assert 0 < errors.max() <= ranking._error_bound(query) < 0.003


def test_few_vectors_are_read_in_the_second_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    exact = ranking._exact

    def count(segment: Any, windows: Any, *rest: Any) -> Any:
        counts.append(len(windows))
        return exact(segment, windows, *rest)

    monkeypatch.setattr(ranking, "_exact", count)
    filled(tmp_path, vectors(2000)).search(text(), 10)
    assert 10 <= sum(counts) < 40


def test_what_is_like_a_clip(tmp_path: Path) -> None:
    clips = vectors(500)
    index = filled(tmp_path, clips, at_once=100)
    hits = index.like(clips[7], 20)
    means = (clips.double() * clips[7].double()).sum(dim=-1).mean(dim=-1)  # [N]
    order = torch.argsort(-means)[:20].tolist()
    assert named(hits) == [f"/clip{number:05d}.wav" for number in order]
    assert hits[0].path == "/clip00007.wav"
    assert hits[0].score == pytest.approx(1.0)


def test_copies_are_in_the_order_of_their_paths(tmp_path: Path) -> None:
    clips = vectors(40)[[0] * 20 + [1] * 20]
    index = Index.create(tmp_path, ORIGIN, "run", 30.0)
    with index.writing() as writer:
        for number in reversed(range(40)):
            writer.add(Entry(f"/clip{number:05d}.wav"), [(0.0, 1.0)], clips[number][None])
            if number % 7 == 0:
                writer.write()
    for top in (1, 5, 20, 30):
        assert named(index.search(text(), top)) == [path for path, _ in naive(clips, text(), top)]


def test_a_hit_says_where_in_a_long_recording(tmp_path: Path) -> None:
    windows = vectors(30)
    query = windows[17, 1]
    index = Index.create(tmp_path, ORIGIN, "run", 30.0)
    with index.writing() as writer:
        for name, rows in (("a", range(5)), ("b", range(5, 25)), ("c", range(25, 30))):
            times = [(30.0 * number, 30.0 * number + 30.0) for number in range(len(rows))]
            writer.add(Entry(f"/{name}.wav"), times, windows[list(rows)])
    hits = index.search(query)
    assert len(hits) == 3
    assert hits[0] == Hit("/b.wav", hits[0].score, 360.0, 390.0)
    cosines = (windows @ query).amax(dim=1)
    assert {hit.path: hit.score for hit in hits} == pytest.approx(
        {"/a.wav": float(cosines[:5].max()), "/b.wav": 1.0, "/c.wav": float(cosines[25:].max())}
    )
    assert (len(index), index.num_windows) == (3, 30)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["put", "drop", "write", "close"])), max_size=60))
def test_any_sequence_of_changes_leaves_what_a_dictionary_would(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str]]
) -> None:
    path = tmp_path_factory.mktemp("index")
    Index.create(path, ORIGIN, "run", 30.0)
    expected: dict[str, Tensor] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "MERGED_TOGETHER", 3)
        for start in range(0, len(steps), 10):
            _apply(path, steps[start : start + 10], expected, seed=start)
            index = Index.open(path)
            ranked = sorted(expected, key=lambda name: (-float((expected[name] @ text()).max()), name))
            assert named(index.search(text(), 100)) == ranked
            assert sorted(entry.path for entry in index.entries()) == sorted(expected)
            listed = {name.name for name in path.glob("*.safetensors")}
            assert listed == {segment.path.name for segment in index.segments}


def _apply(path: Path, steps: list[tuple[int, str]], expected: dict[str, Tensor], seed: int) -> None:
    """Apply steps in one session, each clip once, as an update does."""
    seen: set[int] = set()
    with Index.open(path).writing() as writer:
        rows = writer.rows()
        for number, step in steps:
            name = f"/{number}.wav"
            if step == "write":
                writer.write()
            if step not in ("put", "drop") or number in seen:
                continue
            seen.add(number)
            row = rows.get((name, 0.0, None))
            if row is not None:
                writer.remove(row)
                del expected[name]
            if step == "put":
                clip = vectors(1, seed=seed * 100 + number)
                writer.add(Entry(name), [(0.0, 1.0)], clip)
                expected[name] = clip[0]


def test_segments_are_plain_safetensors_that_others_read(tmp_path: Path) -> None:
    clips = vectors(5)
    index = Index.create(tmp_path, ORIGIN, "run", 30.0)
    entry = Entry("/ä/\udcff.wav", 2.5, 1.5, 100, 12345, bytes(range(16)), 0)
    with index.writing() as writer:
        writer.start("run", ["/ä"])
        writer.add(entry, [(2.5, 4.0)], clips[:1])
        writer.add(Entry("/long.flac"), [(0.0, 30.0), (20.0, 50.0)], clips[1:3])
    assert sorted(index.entries(), key=lambda one: one.path) == [Entry("/long.flac"), entry]

    contents = json.loads((tmp_path / "index.json").read_text(encoding="utf-8"))
    assert {key: contents[key] for key in ("format", "version", "queries", "width", "sources", "finished")} == {
        "format": "mint-index",
        "version": 1,
        "queries": Q,
        "width": E,
        "sources": ["/ä"],
        "finished": True,
    }
    columns = load_file(tmp_path / contents["segments"][0]["file"])
    np.testing.assert_array_equal(columns["vectors"], clips[:3].numpy())
    assert columns["window_start"].tolist() == [2.5, 0.0, 20.0]
    assert columns["num_windows"].tolist() == [1, 2]
    assert columns["paths"].tobytes() == "/ä/".encode() + b"\xff.wav/long.flac"
    assert columns["duration"][0] == 1.5
    assert np.isnan(columns["duration"][1])


def test_a_renewed_clip_keeps_its_vectors(tmp_path: Path) -> None:
    index = filled(tmp_path, vectors(3))
    before = index.search(text())
    with index.writing() as writer:
        rows = writer.rows()
        writer.renew(rows["/clip00001.wav", 0.0, None], Entry("/clip00001.wav", size=7, modified=8))
    assert index.search(text()) == before
    assert {entry.path: entry.size for entry in index.entries()}["/clip00001.wav"] == 7


def test_a_writer_that_dies_leaves_what_it_had_written(tmp_path: Path) -> None:
    """It is left as it is, as by a kill: nothing of its end is run."""
    filled(tmp_path, vectors(50))
    (tmp_path / ("0" * 32 + ".safetensors")).write_bytes(b"half")  # as of a kill in the middle of a merge
    writer = IndexWriter(tmp_path)
    for row in list(writer.rows().values())[:10]:
        writer.remove(row)
    for number, clip in enumerate(vectors(60, seed=5)):
        writer.add(Entry(f"/new{number:05d}.wav"), [(0.0, 1.0)], clip[None])
        if number % 25 == 24:
            writer.write()

    left = Index.open(tmp_path)
    assert not left.contents.finished
    names = {entry.path for entry in left.entries()}
    assert names == {f"/clip{number:05d}.wav" for number in range(10, 50)} | {
        f"/new{number:05d}.wav" for number in range(50)
    }
    # What no segment is in is cleared away by the next one.
    with left.writing():
        pass
    assert len(list(tmp_path.glob("*.safetensors"))) == len(left.segments)


def test_an_error_inside_the_block_keeps_what_was_added(tmp_path: Path) -> None:
    index = Index.create(tmp_path, ORIGIN, "run", 30.0)

    def interrupted() -> None:
        with index.writing() as writer:
            writer.add(Entry("/a.wav"), [(0.0, 1.0)], vectors(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    again = Index.open(tmp_path)
    assert [entry.path for entry in again.entries()] == ["/a.wav"]
    assert not again.contents.finished


def test_two_writers_at_once(tmp_path: Path) -> None:
    index = filled(tmp_path, vectors(2))
    with index.writing(), pytest.raises(MintError, match="is being written by another process"), index.writing():
        pass


def test_readers_while_segments_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reader sees all clips of some moment, whichever files were removed since."""
    monkeypatch.setattr(writing, "MERGED_TOGETHER", 2)
    clips = vectors(30)
    index = filled(tmp_path, clips[:1])
    faults: list[object] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                reader = Index.open(tmp_path)
                count = len(reader)
                if named(reader.search(text(), 100)) != [path for path, _ in naive(clips[:count], text(), 100)]:
                    faults.append(count)
        except BaseException as error:
            faults.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(1, 30):
        with index.writing() as writer:
            writer.add(Entry(f"/clip{number:05d}.wav"), [(0.0, 5.0)], clips[number][None])
    done.set()
    thread.join()
    assert faults == []
    assert len(index.segments) < 8


def test_an_index_of_another_model_is_refused(tmp_path: Path) -> None:
    index = filled(tmp_path, vectors(2))
    index.check_origin(ORIGIN, "elsewhere")
    for other in (Origin("6" * 64, "tiny"), Origin("5" * 64, "yamnet")):
        with pytest.raises(MintError) as caught:
            index.check_origin(other, "runs/b")
        for name in (
            str(tmp_path),
            "555555555555",
            "'tiny'",
            other.stage1[:12],
            repr(other.encoder),
            "mint index runs/b",
        ):
            assert name in str(caught.value)


def test_an_empty_index(tmp_path: Path) -> None:
    index = Index.create(tmp_path, ORIGIN, "run", 30.0)
    assert (len(index), index.search(text()), list(index.entries())) == (0, [], [])
    with pytest.raises(MintError, match="holds an index already"):
        Index.create(tmp_path, ORIGIN, "run", 30.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda index: index.search(text()[:5]), r"shape \[5\], but the index needs \[16\]"),
        (lambda index: index.search(vectors(1)[0]), r"shape \[3, 16\], but the index needs \[16\]"),
        (lambda index: index.like(text()), r"shape \[16\], but the index needs \[3, 16\]"),
        (lambda index: index.search(text() * float("nan")), "NaN or infinite"),
        (lambda index: index.search(text(), 0), "top is 0; give at least 1"),
    ],
)
def test_queries_that_are_refused(tmp_path: Path, call: Any, message: str) -> None:
    index = filled(tmp_path, vectors(2))
    with pytest.raises(MintError, match=message):
        call(index)


@pytest.mark.parametrize(
    ("times", "clip", "message"),
    [
        (
            [(0.0, 1.0)],
            vectors(2),
            r"\[2, 3, 16\] for 1 windows; give \[windows, queries, width\], the last two \[3, 16\]",
        ),
        ([(0.0, 1.0)], vectors(1)[:, :2], "give"),
        ([], vectors(0), "give"),
        ([(0.0, 1.0)], 2 * vectors(1), "not of length 1"),
        ([(0.0, 1.0)], vectors(1) * float("nan"), "not of length 1"),
    ],
)
def test_vectors_that_are_refused(tmp_path: Path, times: Any, clip: Tensor, message: str) -> None:
    index = filled(tmp_path, vectors(2))
    with index.writing() as writer, pytest.raises(MintError, match=f"bad.wav: .*{message}"):
        writer.add(Entry("/bad.wav"), times, clip)
    assert len(index) == 2


def test_damaged_indices_say_so(tmp_path: Path) -> None:
    with pytest.raises(MintError, match="holds no index"):
        Index.open(tmp_path)
    index = filled(tmp_path, vectors(20), at_once=10)
    contents = (tmp_path / "index.json").read_text(encoding="utf-8")

    for text_, message in (
        (contents.replace('"version": 1', '"version": 2'), "not 'mint-index' 1"),
        (contents.replace('"origin"', '"maker"'), "damaged"),
        ("[]", "damaged"),
        ("{", "index.json"),
    ):
        (tmp_path / "index.json").write_text(text_, encoding="utf-8")
        with pytest.raises(MintError, match=message):
            Index.open(tmp_path)

    (tmp_path / "index.json").write_text(contents, encoding="utf-8")
    first, second = (segment.path for segment in index.segments)
    first.write_bytes(first.read_bytes()[:-100])
    with pytest.raises(MintError, match=r"is damaged .* build it again"):
        Index.open(tmp_path)
    first.unlink()
    with pytest.raises(MintError, match=rf"{first.name} of an index is missing"):
        Index.open(tmp_path)
    assert second.exists()


def test_a_search_leaves_vectors_on_the_disk(tmp_path: Path) -> None:
    """The columns are the mapped file, not a copy of it."""
    index = filled(tmp_path, vectors(2000))
    [segment] = index.segments
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("the maps of a process are Linux's")
    address = segment.columns["vectors"].data_ptr()
    lines = [line for line in maps.read_text().splitlines() if segment.path.name in line]
    ranges = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in lines]
    assert any(first <= address < last for first, last in ranges)


def test_writing_is_bounded_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "BYTES_AT_ONCE", 10 * Q * E * 4)
    waiting: list[int] = []
    add = IndexWriter.add

    def note(changed: IndexWriter, *rest: Any) -> None:
        add(changed, *rest)
        waiting.append(len(changed._entries))

    monkeypatch.setattr(IndexWriter, "add", note)
    index = filled(tmp_path, vectors(35))
    assert max(waiting) < 10
    assert len(index) == 35
