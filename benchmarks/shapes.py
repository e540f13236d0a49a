"""The sizes at which the stages are measured, with models and batches of random numbers at these sizes.

Cost does not depend on what the weights and features are, only on how many there are. The lengths of the captions do
matter, because the published code pads to 30 tokens: they are drawn around 15 tokens, between 6 and 30. (Clotho's
captions have 8 to 20 words; the quickstart's have 12 to 19 tokens on average, depending on the corpus.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mint.model.bridge_net import BridgeNet
from mint.model.stage1 import Stage1

MAX_TEXT_TOKENS = 30
"""Longest text (paper, section 3.2), and what the published code pads to."""
MEAN_TOKENS, SPREAD = 15, 4
CLS = 1


@dataclass(frozen=True)
class Shape:
    """Sizes of Bridge-Net and of a batch."""

    name: str
    layers: int
    width: int
    heads: int
    every: int
    """Every how many blocks the queries cross-attend."""
    queries: int
    audio_width: int
    frames: int
    batch: int
    dropout: float
    vocabulary: int = 30523
    """BERT's tokens and [DEC]."""

    @property
    def case(self) -> str:
        """How tables name it."""
        return f"{self.name}, {self.frames} frames, batch {self.batch}"

    def bridge(self) -> BridgeNet:
        """A Bridge-Net of this shape; random weights, the same on every call."""
        torch.manual_seed(0)
        return BridgeNet(
            vocab_size=self.vocabulary,
            width=self.width,
            num_layers=self.layers,
            num_heads=self.heads,
            intermediate=4 * self.width,
            max_positions=512,
            audio_width=self.audio_width,
            num_queries=self.queries,
            cross_attention_every=self.every,
            dropout=self.dropout,
        )

    def stage1(self) -> Stage1:
        """Stage 1 at this shape."""
        return Stage1(bridge=self.bridge(), dec_token=self.vocabulary - 1)

    def audio(self) -> dict[str, Tensor]:
        """Features of clips that are all as long as the shape says."""
        generator = torch.Generator().manual_seed(1)
        return {
            "audio_features": torch.randn(self.batch, self.frames, self.audio_width, generator=generator),
            "audio_mask": torch.ones(self.batch, self.frames, dtype=torch.bool),
        }

    def pairs(self) -> dict[str, Tensor]:
        """A batch of stage 1: all captions differ."""
        generator = torch.Generator().manual_seed(2)
        drawn = MEAN_TOKENS + SPREAD * torch.randn(self.batch, generator=generator)
        counts = drawn.round().clamp(6, MAX_TEXT_TOKENS).long()
        mask = torch.arange(int(counts.max())) < counts[:, None]
        ids = torch.randint(CLS + 1, self.vocabulary - 1, mask.shape, generator=generator)
        ids[:, 0] = CLS
        return {
            **self.audio(),
            "text_ids": ids.masked_fill(~mask, 0),
            "text_mask": mask,
            "draws": torch.randint(0, 1 << 62, (self.batch,), generator=generator),
        }


TINY = Shape("tiny", 2, 32, 4, 1, 4, 16, 12, 4, 0.0, vocabulary=100)
"""To see that a benchmark works."""
QUICKSTART = Shape("quickstart", 3, 384, 12, 1, 8, 1024, 30, 32, 0.0)
"""Three blocks of MiniLM's width over YAMNet's features of 4 s clips, as `recipes/quickstart/stage1.yaml` has them."""
PAPER = Shape("paper", 12, 768, 12, 2, 32, 768, 499, 4, 0.1)
"""Twelve blocks of BERT-base over data2vec's features of 10 s clips (paper, section 3.2); 64 pairs a GPU there."""
PAPER_LONG = replace(PAPER, frames=1499)
"""30 s, the longest clip."""


def same_shape(shape: Shape, shapes: Mapping[str, Shape], device: str) -> list[str]:
    """Arguments by which a script that knows some shapes by name gets this one again."""
    same = {"batch": shape.batch, "dropout": shape.dropout}
    name = next(name for name, known in shapes.items() if replace(known, **same) == shape)  # type: ignore[arg-type]
    return ["--shape", name, "--batch", str(shape.batch), "--dropout", str(shape.dropout), "--device", device]


def on_device(batch: dict[str, Tensor], device: str) -> dict[str, Any]:
    """A batch, moved."""
    return {name: tensor.to(device) for name, tensor in batch.items()}


def pad_text(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same batch of stage 1 with its captions padded to the limit, as the published code pads them."""
    missing = MAX_TEXT_TOKENS - batch["text_ids"].shape[1]
    padded = {name: functional.pad(batch[name], (0, missing)) for name in ("text_ids", "text_mask")}
    return {**batch, **padded}
