"""Texts, scores and embeddings of clips: the same whatever is in memory together, and by the decoding asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mint import predict
from mint.builders.stages import Trained, load_trained
from mint.evaluation.settings import Decoding
from mint.run_folder import find_stages
from mint.types import CAPTION_PROMPT
from tiny_runs import train_both


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    place = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINT_CACHE", str(place / "cache"))
        yield load_trained(find_stages(train_both(place, max_steps=2)))


class Stored(Sequence[Any]):
    """Clips that are made anew whenever they are read, and how often each was."""

    def __init__(self, clips: Sequence[Sequence[Tensor]]) -> None:
        self.clips = clips
        self.reads: list[int] = []

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, place: Any) -> Any:
        self.reads.append(place)
        return [window.clone() for window in self.clips[place]]


@pytest.fixture
def clips(trained: Trained) -> list[list[Tensor]]:
    """Five clips of different lengths, one of three windows."""
    assert trained.stage2 is not None
    width = trained.stage2.model.bridge.audio_norm.normalized_shape[0]
    generator = torch.Generator().manual_seed(0)
    lengths = [[9], [4], [12, 5, 7], [6], [3]]
    return [[torch.randn(length, width, generator=generator) for length in windows] for windows in lengths]


def texts(
    trained: Trained, clips: Sequence[Any], decoding: Decoding, prompt: str = CAPTION_PROMPT, **options: Any
) -> list[str]:
    assert trained.stage2 is not None
    return predict.generate(trained.stage2, clips, prompt, **decoding.options(), **options)


def test_clips_are_read_some_at_a_time_and_give_the_same(
    trained: Trained, clips: list[list[Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trained.stage1 is not None
    assert trained.stage2 is not None
    more: Any = ("The pitch is", ["low", "high"])
    embedded = predict.embed_clips(trained.stage1, clips)
    scores, _ = predict.rank_vocabulary(trained.stage2, clips, *more)
    said = texts(trained, clips, Decoding(max_tokens=5))
    monkeypatch.setattr(predict, "CLIPS_AT_ONCE", 2)
    stored = Stored(clips)
    torch.testing.assert_close(predict.embed_clips(trained.stage1, stored), embedded, atol=1e-5, rtol=0)
    assert stored.reads == [0, 1, 2, 3, 4]
    some, _ = predict.rank_vocabulary(trained.stage2, Stored(clips), *more)
    torch.testing.assert_close(some, scores, atol=1e-4, rtol=0)
    assert texts(trained, Stored(clips), Decoding(max_tokens=5)) == said


def test_progress_sees_every_batch(trained: Trained, clips: list[list[Tensor]]) -> None:
    seen: list[Any] = []

    def progress(batches: Any, total: int) -> Iterator[Any]:
        seen.append(total)
        for batch in batches:
            seen.append(batch[1])
            yield batch

    texts(trained, clips, Decoding(max_tokens=2), batch_size=3, progress=progress)
    total, *owners = seen
    assert total == 2
    assert sorted(owner for batch in owners for owner in batch) == [0, 1, 2, 2, 2, 3, 4]


def test_beam_search_finds_what_greedy_decoding_misses(trained: Trained, clips: list[list[Tensor]]) -> None:
    assert trained.stage2 is not None
    single = [clips[0][:1]]

    def found(prompt: str) -> tuple[str, str]:
        greedy, beam = (texts(trained, single, Decoding(beams=beams, max_tokens=2), prompt) for beams in (1, 50))
        return greedy[0], beam[0]

    pairs = {prompt: found(prompt) for prompt in "abcdefghijklmnopqrstuvwxyz"}
    missed = {prompt: pair for prompt, pair in pairs.items() if pair[0] != pair[1] and "\ufffd" not in "".join(pair)}
    assert missed
    for prompt, pair in missed.items():
        sums, _ = predict.rank_vocabulary(trained.stage2, single, prompt, pair)
        assert sums[0, 1] >= sums[0, 0]


def test_samples_depend_on_their_seed_alone(trained: Trained, clips: list[list[Tensor]]) -> None:
    decoding = Decoding(top_p=0.95, max_tokens=8)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = texts(trained, clips, decoding)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert texts(trained, clips, decoding) == first
    assert texts(trained, clips, Decoding(top_p=0.95, max_tokens=8, seed=1)) != first


def test_a_narrow_nucleus_is_greedy(trained: Trained, clips: list[list[Tensor]]) -> None:
    greedy = texts(trained, clips, Decoding(max_tokens=6))
    assert texts(trained, clips, Decoding(top_p=1e-6, max_tokens=6)) == greedy
    assert texts(trained, clips, Decoding(top_p=1.0, max_tokens=6)) != greedy
