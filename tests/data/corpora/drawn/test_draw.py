"""Draws of feature maps: the classifier takes them for their class, and they stay what features can be."""

from __future__ import annotations

import torch

from mint.data.corpora.drawn.draw import GOALS, draw_maps, make_pool
from mint.types import NamedClasses

CLASSES, WIDTH, TOKENS = 12, 64, 3


def classifier(least: float | None) -> NamedClasses:
    """Return a random classifier, most of whose weights are negative, as YAMNet's are."""
    generator = torch.Generator().manual_seed(0)
    return NamedClasses(
        names=tuple(f"class {number}" for number in range(CLASSES)),
        weight=0.4 * torch.randn(CLASSES, WIDTH, generator=generator) - 0.2,
        bias=torch.zeros(CLASSES),
        tokens=TOKENS,
        samples=100,
        least=least,
    )


def maps(generator: torch.Generator, count: int = 200) -> torch.Tensor:
    """Return sparse maps [N, G, D], as after a ReLU."""
    return torch.relu(torch.randn(count, 1, WIDTH, generator=generator) - 0.7).repeat(1, TOKENS, 1)


def draw(least: float | None, seed: int, are_rivals: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return targets [B] and the maps [B, G, D] that are drawn for them."""
    classes = classifier(least)
    pool = make_pool(maps(torch.Generator().manual_seed(1)), classes)
    targets = torch.arange(CLASSES).repeat(8)
    if are_rivals is None:
        are_rivals = torch.ones(CLASSES, dtype=torch.bool)
    return targets, draw_maps(pool, classes, targets, are_rivals, torch.Generator().manual_seed(seed))


def test_the_pool_knows_what_comes_nearest_to_each_class() -> None:
    classes = classifier(0.0)
    all_maps = maps(torch.Generator().manual_seed(1))
    pool = make_pool(all_maps, classes)
    logits = classes.logits(all_maps.mean(dim=1))
    wanted = torch.log_softmax(logits / 2, dim=1)
    for number in range(CLASSES):
        assert set(pool.nearest[number].tolist()) == set(wanted[:, number].argsort(descending=True)[:30].tolist())


def test_the_classifier_takes_a_draw_for_its_class() -> None:
    targets, drawn = draw(0.0, seed=2)
    assert drawn.shape == (len(targets), TOKENS, WIDTH)
    logits = classifier(0.0).logits(drawn.mean(dim=1))
    assert (logits.argmax(dim=1) == targets).float().mean() > 0.9
    own = logits.gather(1, targets[:, None])[:, 0]
    assert own.mean() > GOALS[0]
    assert drawn.min() >= 0
    assert (drawn == 0).float().mean() > 0.3  # still sparse


def test_features_that_may_be_negative_are_left_so() -> None:
    targets, drawn = draw(None, seed=2)
    logits = classifier(None).logits(drawn.mean(dim=1))
    assert (logits.argmax(dim=1) == targets).float().mean() > 0.9
    assert drawn.min() < 0


def test_headings_are_not_held_against_a_class() -> None:
    are_rivals = torch.ones(CLASSES, dtype=torch.bool)
    are_rivals[0] = False
    classes = classifier(0.0)
    targets, with_heading = draw(0.0, seed=2)
    _, without = draw(0.0, seed=2, are_rivals=are_rivals)
    others = targets != 0

    def heading(drawn: torch.Tensor) -> torch.Tensor:
        return classes.logits(drawn.mean(dim=1))[others, 0]

    assert heading(without).mean() > heading(with_heading).mean()


def test_draws_differ_and_follow_from_the_seed() -> None:
    targets, first = draw(0.0, seed=2)
    _, again = draw(0.0, seed=2)
    _, other = draw(0.0, seed=3)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    same_class = first[targets == 4].flatten(1)
    assert torch.cdist(same_class, same_class).fill_diagonal_(1).min() > 0
