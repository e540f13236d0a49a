"""What is drawn in which epoch: shares, order, repetition, and the parts of ranks."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mint.data.batches.sampler import MixtureSampler, RankBatches
from mint.types import MintError

TASKS = ["notes"] * 64 + ["chords"] * 16 + ["rare"]


def epoch(sampler: MixtureSampler, number: int) -> list[tuple[int, int]]:
    sampler.set_epoch(number)
    return list(sampler)


def tasks_drawn(sampler: MixtureSampler, number: int = 0) -> Counter[str]:
    return Counter(TASKS[index] for index, _ in epoch(sampler, number))


def test_an_epoch_follows_from_seed_and_number_alone() -> None:
    sampler, fresh = MixtureSampler(TASKS, {}, seed=3), MixtureSampler(TASKS, {}, seed=3)
    epochs = [epoch(sampler, number) for number in range(4)]
    assert [epoch(fresh, number) for number in (3, 1, 0, 2)] == [epochs[number] for number in (3, 1, 0, 2)]
    assert len({tuple(one) for one in epochs}) == 4
    assert epoch(MixtureSampler(TASKS, {}, seed=4), 0) != epochs[0]


def test_another_process_draws_the_same() -> None:
    """The order hangs on no hash of a text, which Python salts anew in each process."""
    code = (
        "from mint.data.batches.sampler import MixtureSampler; s = MixtureSampler(['a', 'b', 'b', 'c'] * 5, {}, 9, 7); "
        "s.set_epoch(2); print(list(s))"
    )
    runs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "ab"
    }
    sampler = MixtureSampler(["a", "b", "b", "c"] * 5, {}, 9, 7)
    assert runs == {f"{epoch(sampler, 2)}\n"}


@pytest.mark.parametrize(
    ("weights", "captioned", "expected"),
    [
        ({"notes": 5, "percussion": 2, "ensembles": 2, "chords": 1}, False, "721c2ddd53358d45"),
        ({"notes": 5, "percussion": 1, "ensembles": 0.7, "chords": 0.1, "captioning": 3.6}, True, "eda6955e44280151"),
        ({}, False, "5b503d10db97742b"),
    ],
)
def test_the_quickstart_draws_what_it_always_drew(weights: dict[str, float], captioned: bool, expected: str) -> None:
    """Published results follow from these draws; the digests are of the first version of the sampler."""
    tasks = ["notes"] * 1496 + ["ensembles"] * 500 + ["chords"] * 360 + ["percussion"] * 448
    if captioned:
        tasks += ["captioning"] * len(tasks)
    sizes = [index * 37 % 101 for index in range(len(tasks))] if captioned else None
    sampler = MixtureSampler(tasks, weights, None, 0, sizes=sizes, batch_size=4 if captioned else 1)
    state = hashlib.sha256("".join(repr(epoch(sampler, number)) for number in (0, 1, 5)).encode())
    assert state.hexdigest()[:16] == expected


def test_shares_are_square_roots_of_sizes() -> None:
    assert tasks_drawn(MixtureSampler(TASKS, {}, length=130)) == {"notes": 80, "chords": 40, "rare": 10}


def test_weights_of_the_recipe_replace_square_roots() -> None:
    assert tasks_drawn(MixtureSampler(TASKS, {"notes": 1, "chords": 4}, length=60)) == {
        "notes": 10,
        "chords": 40,
        "rare": 10,
    }
    assert tasks_drawn(MixtureSampler(TASKS, {"rare": 0.0}, length=12)) == {"notes": 8, "chords": 4}


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    length=st.integers(1, 100),
    seed=st.integers(0, 2**32),
    start=st.integers(0, 5),
)
@settings(deadline=None, max_examples=60)
def test_every_item_comes_once_before_any_comes_twice(sizes: list[int], length: int, seed: int, start: int) -> None:
    tasks = [str(group) for group, size in enumerate(sizes) for _ in range(size)]
    sampler = MixtureSampler(tasks, {}, length, seed)
    drawn: Counter[int] = Counter()
    for number in range(start + 3):
        draws = epoch(sampler, number)
        assert len(draws) == len(sampler) == length
        drawn.update(index for index, _ in draws)
        for task in set(tasks):
            counts = [drawn[index] for index, other in enumerate(tasks) if other == task]
            assert max(counts) - min(counts) <= 1


@given(sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=8), length=st.integers(1, 500))
@settings(deadline=None, max_examples=60)
def test_shares_are_rounded_by_less_than_one(sizes: list[int], length: int) -> None:
    tasks = [str(group) for group, size in enumerate(sizes) for _ in range(size)]
    counts = MixtureSampler(tasks, {}, length).counts
    whole = sum(math.sqrt(size) for size in sizes)
    assert sum(counts.values()) == length
    for group, size in enumerate(sizes):
        assert abs(counts[str(group)] - length * math.sqrt(size) / whole) < 1


def test_batches_of_like_size_hold_the_same_draws() -> None:
    sizes = [hash((index,)) % 97 for index in range(len(TASKS))]
    plain = MixtureSampler(TASKS, {}, length=150, seed=1)
    grouped = MixtureSampler(TASKS, {}, length=150, seed=1, sizes=sizes, batch_size=4)
    drawn = [index for index, _ in epoch(grouped, 2)]
    assert sorted(drawn) == sorted(index for index, _ in epoch(plain, 2))
    assert drawn == [index for index, _ in epoch(grouped, 2)]

    def spread(indices: list[int]) -> int:
        batches = [[sizes[index] for index in indices[first : first + 4]] for first in range(0, 148, 4)]
        return sum(max(batch) - min(batch) for batch in batches)

    assert spread(drawn) < spread([index for index, _ in epoch(plain, 2)]) / 3
    first_sizes = [sizes[index] for index in drawn[:64:4]]
    assert first_sizes != sorted(first_sizes)


@given(
    length=st.integers(1, 60),
    batch=st.integers(1, 4),
    ranks=st.integers(1, 5),
    drop_last=st.booleans(),
    number=st.integers(0, 2),
)
@settings(deadline=None, max_examples=200)
def test_ranks_share_what_one_process_draws(length: int, batch: int, ranks: int, drop_last: bool, number: int) -> None:
    sampler = MixtureSampler(TASKS, {}, length, seed=2)
    draws = epoch(sampler, number)
    whole = list(RankBatches(sampler, batch * ranks, drop_last=drop_last))
    assert [draw for one in whole for draw in one] == draws[: sum(map(len, whole))]
    parts = [list(RankBatches(sampler, batch * ranks, rank, ranks, drop_last)) for rank in range(ranks)]
    for rank, part in enumerate(parts):
        assert len(part) == len(RankBatches(sampler, batch * ranks, rank, ranks, drop_last))
        assert all(1 <= len(one) <= batch for one in part)
    together = [[draw for part in parts for draw in part[index]] for index in range(len(parts[0]))]
    left = length % (batch * ranks)
    assert together == (whole[:-1] if not drop_last and 0 < left < ranks else whole)
    sizes = {len(part[-1]) for part in parts if part}
    assert not sizes or max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("weights", "length", "message"),
    [
        ({"note": 1.0}, None, "data.mixture names 'note'; the manifests have notes, chords, rare"),
        ({"notes": -1.0}, None, "weights must not be negative"),
        ({"notes": 0, "chords": 0, "rare": 0}, None, "one must be positive"),
        ({}, 0, "data.examples_per_epoch is 0; it must be at least 1"),
    ],
)
def test_mistakes(weights: dict[str, float], length: int | None, message: str) -> None:
    with pytest.raises(MintError, match=message):
        MixtureSampler(TASKS, weights, length)
