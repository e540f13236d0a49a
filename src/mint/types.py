"""The small records and protocols that the parts of MINT exchange.

Shapes use one alphabet everywhere: B batch, S samples, T audio frames, L text tokens, Q queries, D width, H heads,
E shared space, V vocabulary. Importing this module does not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor, dtype, nn

CAPTION_PROMPT = "Generate audio caption:"
"""Instruction of every captioning corpus (paper, Table 1)."""


class MintError(ValueError):
    """A mistake that the caller can mend; the message names the value and the cure. The CLI prints it in one line."""


@dataclass(frozen=True)
class Example:
    """One line of a manifest: a clip, and what is known about it."""

    id: str
    """Unique within its corpus."""
    audio: Path
    """Absolute path of the file (in the manifest: relative to the manifest)."""
    task: str
    """What it is evaluated as: `notes`, `labels`, `captioning`, ..."""
    split: str
    """`train`, `validation`, `test` or `unseen`."""
    corpus: str
    start: float = 0.0
    """Seconds into the file where the clip begins."""
    duration: float | None = None
    """Seconds; None: to the end of the file."""
    prompt: str | None = None
    """Instruction for the language model and for Bridge-Net (paper, Table 1)."""
    answer: str | None = None
    """What the language model should say; labels joined with ", "."""
    labels: tuple[str, ...] = ()
    """The true labels, in the corpus's label order."""
    unknown: tuple[str, ...] = ()
    """Labels of which nobody knows whether they are true; every other label of the task is absent."""
    captions: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    """Anything else the corpus knows (pitch, programme, licence, source id)."""


@dataclass(frozen=True)
class Clip:
    """Decoded audio: mono float32 in [-1, 1]."""

    samples: Any
    """NumPy array [S]."""
    rate: int


@dataclass(frozen=True)
class BridgeOutput:
    """What one pass of Bridge-Net returns."""

    queries: Tensor | None
    """Output query embeddings [B, Q, D]; None for a pass over text alone."""
    text: Tensor | None
    """Output text embeddings [B, L, D]; None for a pass over queries alone."""
    lone_text: Tensor | None = None
    """Of a pass over two texts: [CLS] of the one that nothing else was seen by, [B, 1, D]."""


class AudioEncoder(Protocol):
    """A frozen audio encoder: waveform in, token sequence out. Always in eval mode, no gradients."""

    sample_rate: int
    """Hz; mono float32 waveforms at this rate."""
    width: int
    """D of the features."""
    bands: int
    """Tokens of one moment, one for each band of frequencies; they follow each other."""
    step_seconds: float
    """From one moment to the next."""
    identity: str
    """Name, revision and preprocessing in one string: part of the feature cache's key."""
    cache_dtype: dtype
    """Precision in which its features are kept, and so in which they are used."""

    def encode(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a zero-padded batch.

        Args:
            waveform: [B, S] float32.
            lengths: [B] int64, the number of real samples in each row.

        Returns:
            features [B, T, D] float32, and mask [B, T] bool (True: real). What lies under the mask never depends on
            the padding: a clip alone gives the same features as in a batch.
        """
        ...


@dataclass(frozen=True)
class NamedClasses:
    """The classifier that an encoder was trained with: the mean of some tokens goes through one linear layer."""

    names: tuple[str, ...]
    """Display names of the C classes."""
    weight: Tensor
    """[C, D]"""
    bias: Tensor
    """[C]"""
    tokens: int
    """Number of consecutive tokens whose mean is classified."""
    samples: int
    """Number of samples that these tokens stand for."""
    least: float | None
    """The lowest value of a feature, as after a ReLU; None: there is none."""

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits [..., C] of mean features [..., D]."""
        return features @ self.weight.T + self.bias


@runtime_checkable
class NamesClasses(Protocol):
    """What an encoder offers that was trained to name sounds; `None` where its weights came without a classifier."""

    @property
    def named_classes(self) -> NamedClasses | None:
        """The classifier of its features."""
        ...


def classes_of(encoder: AudioEncoder) -> NamedClasses | None:
    """Return the classifier that an encoder was trained with; None where it has none."""
    return encoder.named_classes if isinstance(encoder, NamesClasses) else None


class LanguageModel(Protocol):
    """A frozen language model that reads soft prompts. Always in eval mode, no gradients for its weights."""

    width: int
    """D of its token embeddings."""
    identity: str
    embedding: nn.Embedding
    """Of its tokens: [V, D]."""

    def collate(self, prompts: Sequence[str], answers: Sequence[str]) -> dict[str, Tensor]:
        """Tokenise B prompts and answers for `loss`: `prompt_ids`, `prompt_mask` [B, L] and `labels` [B, L']."""
        ...

    def loss(self, soft_prompt: Tensor, prompt_ids: Tensor, prompt_mask: Tensor, labels: Tensor) -> Tensor:
        """Mean negative log-likelihood of the answers' tokens (end of sequence included) after [soft_prompt; prompt].

        Args:
            soft_prompt: [B, Q, D]; gradients flow into it.
            prompt_ids: from `collate`.
            prompt_mask: from `collate`; bool, True: real.
            labels: from `collate`; -100 where nothing is predicted.

        Returns:
            Scalar.
        """
        ...

    def score(self, soft_prompt: Tensor, prompts: Sequence[str], candidates: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Log-likelihood of each candidate as the whole answer.

        Returns:
            sums [B, C] of the tokens' log-probabilities (end of sequence included), and the token counts [C].
        """
        ...

    def generate(
        self,
        soft_prompt: Tensor,
        prompts: Sequence[str],
        watch: Callable[[int, int], bool] | None = None,
        **options: Any,
    ) -> list[str]:
        """Continue [soft_prompt; prompt]; options are those of transformers' `generate`.

        `watch` takes each row and its next token, and returns whether the row goes on (`mint.language.watching`).
        """
        ...

    def text_of(self, tokens: Sequence[int]) -> str:
        """Return the text of some tokens of an answer, as `watch` sees them."""
        ...

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of a text."""
        ...
