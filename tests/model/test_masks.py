"""The three masks: as literal matrices, and by what gradients a tiny Bridge-Net lets through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from mint.model import masks
from tiny_models import present

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from mint.model.bridge_net import BridgeNet

    Mask = Callable[[int, Tensor], Tensor]

# Two queries, three tokens; the second row of the batch has one token of padding at its end.
TEXT = torch.tensor([[True, True, True], [True, True, False]])
DRAWN: dict[Mask, tuple[str, str]] = {
    masks.unimodal: (
        """
        x x . . .
        x x . . .
        . . x x x
        . . x x x
        . . x x x
        """,
        """
        x x . . .
        x x . . .
        . . x x .
        . . x x .
        . . x x .
        """,
    ),
    masks.bidirectional: (
        """
        x x x x x
        x x x x x
        x x x x x
        x x x x x
        x x x x x
        """,
        """
        x x x x .
        x x x x .
        x x x x .
        x x x x .
        x x x x .
        """,
    ),
    masks.causal: (
        """
        x x . . .
        x x . . .
        x x x . .
        x x x x .
        x x x x x
        """,
        """
        x x . . .
        x x . . .
        x x x . .
        x x x x .
        x x x x .
        """,
    ),
}


def matrix(drawing: str) -> Tensor:
    return torch.tensor([[mark == "x" for mark in line.split()] for line in drawing.split("\n") if line.strip()])


@pytest.mark.parametrize("mask", DRAWN)
def test_mask_equals_its_drawing(mask: Mask) -> None:
    made = mask(2, TEXT)
    assert made.dtype == torch.bool
    assert made.shape == (2, 1, 5, 5)
    for row, drawing in enumerate(DRAWN[mask]):
        assert torch.equal(made[row, 0], matrix(drawing)), drawing


@pytest.mark.parametrize("mask", DRAWN)
def test_docstring_draws_the_mask_that_is_made(mask: Mask) -> None:
    lines = (mask.__doc__ or "").split("\n")
    rows = [
        line.split()[1:] for line in lines if line.split()[:1] in (["q"], ["t"]) and {*line.split()[1:]} <= {"x", "."}
    ]
    assert torch.equal(torch.tensor([[mark == "x" for mark in row] for row in rows]), mask(2, TEXT[:1])[0, 0])


BOTH_TEXTS = (
    """
    x x . . . . . .
    x x . . . . . .
    x x x . . . . .
    x x x x . . . .
    x x x x x . . .
    . . . . . x x x
    . . . . . x x x
    . . . . . x x x
    """,
    """
    x x . . . . . .
    x x . . . . . .
    x x x . . . . .
    x x x x . . . .
    x x x x . . . .
    . . . . . x x .
    . . . . . x x .
    . . . . . x x .
    """,
)
"""The mask that runs by default in stage 1: queries, the text that is generated, and the text by itself."""


def test_mask_of_both_texts_equals_its_drawings() -> None:
    made = masks.unimodal_and_causal(2, TEXT)
    assert made.dtype == torch.bool
    assert made.shape == (2, 1, 8, 8)
    for row, drawing in enumerate(BOTH_TEXTS):
        assert torch.equal(made[row, 0], matrix(drawing)), drawing

    rows = []
    for line in (masks.unimodal_and_causal.__doc__ or "").split("\n"):
        first, *marks = line.split() or [""]
        if first in ("q", "g", "t") and {*marks} <= {"x", "."}:
            rows.append([mark == "x" for mark in marks])
    assert torch.equal(torch.tensor(rows), made[0, 0])


def test_key_padding_is_broadcast_over_heads_and_rows() -> None:
    assert torch.equal(masks.key_padding(TEXT), TEXT[:, None, None, :])


QUERIES, TOKENS = 3, 5


def sources_of(bridge: BridgeNet, mask: Mask, position: int) -> set[int]:
    """Positions (queries, then tokens) whose input embeddings reach the output at one position."""
    text_mask = torch.ones(1, TOKENS, dtype=torch.bool)
    generator = torch.Generator().manual_seed(1)
    audio = bridge.project_audio(torch.randn(1, 4, 10, generator=generator), torch.ones(1, 4, dtype=torch.bool))
    ids = torch.randint(0, 40, (1, TOKENS), generator=generator)
    query_inputs = bridge.embed_queries(1).detach().requires_grad_()
    text_inputs = bridge.embed_text(ids, text_mask).detach().requires_grad_()
    bridge.embed_queries = lambda batch: query_inputs  # type: ignore[method-assign]
    bridge.embed_text = lambda ids, mask, texts=1: text_inputs  # type: ignore[method-assign]
    output = bridge.encode_pair(audio, ids, text_mask, mask)
    outputs = torch.cat([present(output.queries), present(output.text)], dim=1)[0]
    weights = torch.randn(outputs.shape[1], generator=generator)  # the sum alone is constant after a LayerNorm
    gradients = torch.autograd.grad(outputs[position] @ weights, [query_inputs, text_inputs])
    reach = torch.cat([gradients[0][0], gradients[1]]).abs().amax(dim=1)
    assert ((reach == 0) | (reach > 1e-6)).all(), reach
    return set(reach.nonzero()[:, 0].tolist())


ALL = set(range(QUERIES + TOKENS))
QUERY_POSITIONS, TEXT_POSITIONS = set(range(QUERIES)), set(range(QUERIES, QUERIES + TOKENS))


@pytest.mark.parametrize("position", sorted(ALL))
def test_unimodal_lets_nothing_across(bridge: BridgeNet, position: int) -> None:
    own_side = QUERY_POSITIONS if position in QUERY_POSITIONS else TEXT_POSITIONS
    assert sources_of(bridge, masks.unimodal, position) == own_side


@pytest.mark.parametrize("position", sorted(ALL))
def test_causal_hides_later_tokens_and_hides_text_from_queries(bridge: BridgeNet, position: int) -> None:
    expected = QUERY_POSITIONS if position in QUERY_POSITIONS else set(range(position + 1))
    assert sources_of(bridge, masks.causal, position) == expected


@pytest.mark.parametrize("position", sorted(ALL))
def test_bidirectional_lets_everything_through(bridge: BridgeNet, position: int) -> None:
    assert sources_of(bridge, masks.bidirectional, position) == ALL
