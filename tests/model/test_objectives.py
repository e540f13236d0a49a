"""The three objectives against references written as plain loops, and the hard negatives as a distribution."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertLMPredictionHead

from mint.model.objectives.alc import alc_loss, similarity
from mint.model.objectives.alm import MATCHED, alm_loss, draw_negatives, pair_noise, same_caption
from mint.model.objectives.atg import LanguageHead, atg_loss, decoder_input
from tiny_models import DEC, randomise, tiny_batch

close = partial(torch.testing.assert_close, atol=1e-6, rtol=0.0)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def numbers(count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 1 << 62, (count,), generator=torch.Generator().manual_seed(seed))


# ALC


def test_similarity_is_the_best_querys() -> None:
    queries, texts = normal(4, 3, 5), normal(6, 5, seed=1)
    expected = [[max(float(query @ text) for query in clip) for text in texts] for clip in queries]
    close(similarity(queries, texts), torch.tensor(expected))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_alc_is_the_smoothed_cross_entropy_of_both_directions(smoothing: float) -> None:
    to_texts, to_clips, targets = normal(3, 7), normal(3, 7, seed=1), [2, 3, 4]
    total = 0.0
    for scores in (to_texts.double(), to_clips.double()):
        for row, target in zip(scores.tolist(), targets, strict=True):
            normaliser = math.log(sum(math.exp(score) for score in row))
            for column, score in enumerate(row):
                wanted = smoothing / 7 + (1 - smoothing) * (column == target)
                total -= wanted * (score - normaliser)
    loss = alc_loss(to_texts, to_clips, torch.tensor(targets), smoothing)
    assert float(loss) == pytest.approx(total / 6, abs=1e-6)


def test_alc_of_one_pair_is_zero() -> None:
    assert float(alc_loss(torch.tensor([[3.0]]), torch.tensor([[3.0]]), torch.tensor([0]), 0.1)) == 0


# ALM


def test_negatives_are_drawn_in_proportion_to_the_softmax() -> None:
    """Chi-square over 20,000 draws; one column is the pair itself, one has the same caption."""
    scores = torch.tensor([1.5, 0.2, -1.0, 0.9, 3.0, -2.5])
    forbidden = torch.tensor([True, False, False, False, True, False])
    count = 20_000
    noise = pair_noise(numbers(count), numbers(6, seed=1), salt=1)
    columns, valid = draw_negatives(scores.expand(count, -1), forbidden.expand(count, -1), noise)
    assert valid.all()
    seen = columns.bincount(minlength=6)
    assert (seen[forbidden] == 0).all()
    expected = scores[~forbidden].double().softmax(dim=0) * count
    assert stats.chisquare(seen[~forbidden].numpy(), expected.numpy()).pvalue > 0.01


def test_noise_is_gumbels() -> None:
    noise = pair_noise(numbers(300), numbers(300, seed=1), salt=1).flatten()
    assert noise.isfinite().all()
    assert stats.kstest(noise.numpy(), "gumbel_r").pvalue > 0.01


def test_noise_of_small_consecutive_numbers_is_gumbels_and_differs_between_directions() -> None:
    rows = torch.arange(300)
    one, other = (pair_noise(rows, rows, salt=salt) for salt in (1, 2))
    for noise in (one, other):
        assert stats.kstest(noise.flatten().numpy(), "gumbel_r").pvalue > 0.01
    for shift in range(-3, 4):
        moved = other.roll(shift, dims=0)
        assert abs(float(torch.corrcoef(torch.stack([one.flatten(), moved.flatten()]))[0, 1])) < 0.02, shift


def test_noise_belongs_to_the_pair_wherever_it_stands() -> None:
    draws, order = numbers(16), torch.randperm(16, generator=torch.Generator().manual_seed(2))
    noise = pair_noise(draws, draws, salt=1)
    assert torch.equal(pair_noise(draws[order], draws[order], salt=1), noise[order][:, order])
    assert torch.equal(pair_noise(draws[4:8], draws, salt=1), noise[4:8])
    assert torch.equal(pair_noise(draws, draws[:3], salt=1), noise[:, :3])
    assert not torch.equal(pair_noise(draws + 1, draws, salt=1), noise)


def test_negatives_follow_their_examples_when_the_batch_is_shuffled() -> None:
    draws, scores = numbers(16), normal(16, 16)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(2))
    captions = torch.randint(0, 5, (16, 1), generator=torch.Generator().manual_seed(3))
    drawn, valid = draw_negatives(scores, same_caption(captions, captions), pair_noise(draws, draws, salt=1))
    moved, moved_valid = draw_negatives(
        scores[order][:, order],
        same_caption(captions[order], captions[order]),
        pair_noise(draws[order], draws[order], salt=1),
    )
    assert torch.equal(order[moved], drawn[order])
    assert torch.equal(moved_valid, valid[order])


def test_a_negative_is_never_the_pair_nor_of_the_same_caption() -> None:
    for seed in range(50):
        ids = torch.randint(0, 2, (12, 3), generator=torch.Generator().manual_seed(seed))
        draws = numbers(12, seed=seed)
        drawn, valid = draw_negatives(
            normal(12, 12, seed=seed) + 50 * torch.eye(12), same_caption(ids, ids), pair_noise(draws, draws, salt=1)
        )
        for row, column in enumerate(drawn.tolist()):
            others = [other for other in range(12) if ids[other].tolist() != ids[row].tolist()]
            assert bool(valid[row]) == bool(others)
            assert not others or column in others


def test_rows_with_forbidden_columns_only_are_not_valid() -> None:
    scores, noise = normal(2, 3), normal(2, 3, seed=1)
    drawn, valid = draw_negatives(scores, torch.tensor([[True] * 3, [True, True, False]]), noise)
    assert valid.tolist() == [False, True]
    assert drawn[1] == 2
    assert 0 <= drawn[0] < 3


def test_drawing_gives_no_gradient_to_the_scores() -> None:
    scores = normal(3, 3).requires_grad_()
    drawn, valid = draw_negatives(scores, torch.eye(3, dtype=torch.bool), normal(3, 3, seed=1))
    assert not drawn.requires_grad
    assert not valid.requires_grad


def test_alm_is_the_mean_cross_entropy_of_the_valid_pairs() -> None:
    logits, labels = normal(5, 2), torch.tensor([1, 1, 0, 0, 0])
    valid = torch.tensor([True, True, False, True, True])
    terms = []
    for row, label, counts in zip(logits.tolist(), labels.tolist(), valid.tolist(), strict=True):
        if counts:
            terms.append(math.log(math.exp(row[0]) + math.exp(row[1])) - row[label])
    assert float(alm_loss(logits, labels, valid)) == pytest.approx(sum(terms) / 4, abs=1e-6)
    assert MATCHED == 1


# ATG


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_atg_equals_the_loss_of_full_padded_logits(smoothing: float) -> None:
    batch = tiny_batch(dtype=torch.float64)
    ids, mask = batch["text_ids"], batch["text_mask"]
    head = LanguageHead(width=8, vocab_size=40).double()
    randomise(head)
    words = normal(40, 8, seed=1).double().requires_grad_()
    hidden = normal(4, 6, 8, seed=2).double().requires_grad_()
    loss = atg_loss(hidden, ids, mask, lambda part: head(part, words), smoothing)

    logits = head(hidden, words)
    labels = ids.masked_fill(~mask, -100)
    plain = functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, label_smoothing=smoothing
    )
    close(loss, plain)
    inputs = [hidden, words, *head.parameters()]
    for ours, theirs in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(plain, inputs), strict=True):
        close(ours, theirs)


def test_atg_starts_with_dec_and_leaves_its_input_alone() -> None:
    ids = torch.tensor([[1, 5, 2], [1, 7, 0]])
    assert decoder_input(ids, DEC).tolist() == [[DEC, 5, 2], [DEC, 7, 0]]
    assert ids.tolist() == [[1, 5, 2], [1, 7, 0]]


@torch.no_grad()
def test_language_head_equals_berts() -> None:
    ours = LanguageHead(width=8, vocab_size=40)
    theirs = BertLMPredictionHead(BertConfig(vocab_size=40, hidden_size=8))  # type: ignore[no-untyped-call]
    randomise(ours)
    words, hidden = normal(40, 8, seed=1), normal(4, 6, 8, seed=2)
    theirs.transform.dense.load_state_dict(ours.dense.state_dict())
    theirs.transform.LayerNorm.load_state_dict(ours.norm.state_dict())
    theirs.decoder.weight.copy_(words)
    theirs.decoder.bias.copy_(ours.bias)
    theirs.bias.copy_(ours.bias)
    torch.testing.assert_close(ours(hidden, words), theirs(hidden))
