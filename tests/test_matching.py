"""Match scores equal the plain pass over one pair at a time, however they are batched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mint.builders.stages import TrainedStage
from mint.data.batches.collate import pad_features, tokenize
from mint.evaluation.metrics.retrieval import retrieve
from mint.evaluation.metrics.similarity import similarity
from mint.language.tiny import tiny_bert_tokenizer
from mint.model.stage1 import Stage1
from mint.predict import Matcher, embed_clips, embed_texts
from mint.types import MintError
from tiny_models import BRIDGE, randomise, tiny_bridge

TEXTS = ["a dog", "rain on a roof", "", "two dogs bark, far away", "a bell"]
TOKENS = 12


def make_stage1(**options: Any) -> TrainedStage[Stage1]:
    tokenizer = tiny_bert_tokenizer()
    stage1 = Stage1(
        bridge=tiny_bridge(vocab_size=len(tokenizer) + 1), dec_token=len(tokenizer), shared_width=8, **options
    )
    randomise(stage1, seed=1)
    return TrainedStage(stage1.eval(), tokenizer, TOKENS, max_seconds=30.0)


def make_clips() -> list[list[Tensor]]:
    """Four clips; the second has three windows."""
    generator = torch.Generator().manual_seed(0)
    return [
        [torch.randn(frames, BRIDGE["audio_width"], generator=generator) for frames in several]
        for several in ([5], [7, 7, 2], [1], [6])
    ]


@torch.no_grad()
def plain_score(trained: TrainedStage[Stage1], clip: list[Tensor], text: str) -> float:
    """One pair, window by window, from the raw features."""
    stage1 = trained.model
    ids, mask = tokenize(tiny_bert_tokenizer(), [text], TOKENS)
    return sum(
        _log_odds(stage1.match(stage1.bridge.project_audio(**_renamed(window)), ids, mask)) for window in clip
    ) / len(clip)


def _log_odds(logits: Tensor) -> float:
    """The logarithm of the probability of a match over that of none."""
    probabilities = logits.softmax(dim=1)[0]
    return float(probabilities[1].log() - probabilities[0].log())


def _renamed(window: Tensor) -> dict[str, Tensor]:
    part = pad_features([window])
    return {"features": part["audio_features"], "mask": part["audio_mask"]}


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_scores_are_those_of_one_pair_at_a_time(batch_size: int) -> None:
    stage1, clips = make_stage1(), make_clips()
    matcher = Matcher(stage1, clips, TEXTS, batch_size)
    pairs = torch.cartesian_prod(torch.arange(len(clips)), torch.arange(len(TEXTS)))
    pairs = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(3))]
    expected = [plain_score(stage1, clips[clip], TEXTS[text]) for clip, text in pairs.tolist()]
    torch.testing.assert_close(matcher(pairs[:, 0], pairs[:, 1]), torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_re_ranking_orders_by_match_and_similarity() -> None:
    stage1, clips = make_stage1(), make_clips() * 3
    texts = TEXTS * 3
    owner = torch.arange(len(texts)) % len(clips)
    queries, embedded = embed_clips(stage1, clips), embed_texts(stage1, texts)
    matcher = Matcher(stage1, clips, texts)
    found = retrieve(queries, embedded, owner, reranker=matcher, temperature=0.07, top=len(clips))
    pairs = torch.cartesian_prod(torch.arange(len(clips)), torch.arange(len(texts)))
    match = matcher(pairs[:, 0], pairs[:, 1]).view(len(clips), len(texts))
    final = match + similarity(queries, embedded) / 0.07
    for text, clip in enumerate(owner.tolist()):
        others = [one for one in range(len(clips)) if one != clip]
        rank = 1 + sum(final[one, text] >= final[clip, text] - 1e-5 for one in others)
        assert found.text_to_audio.best[text, 0] == rank


def test_the_mode_is_left_as_it_was() -> None:
    stage1 = make_stage1()
    stage1.model.train()
    Matcher(stage1, make_clips(), TEXTS)(torch.tensor([0]), torch.tensor([1]))
    assert stage1.model.training


def test_a_head_that_was_not_trained_is_refused() -> None:
    with pytest.raises(MintError, match=r"without ALM \(objectives.alm is false\)"):
        Matcher(make_stage1(alm=False), make_clips(), TEXTS)
