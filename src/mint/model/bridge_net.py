"""Bridge-Net: a Q-Former over frozen audio features (paper, section 2.1).

A stack of BERT blocks in which learnable queries and text share the self-attention, each has its own feed-forward, and
the queries alone cross-attend to the audio. The architecture, and through `convert.py` the weights, are those of
BLIP-2's Q-Former. The stack departs from the published code in how work is shared between passes, never in results:

- the audio's keys and values depend on frozen features only, so `project_audio` computes them once a batch, and a
  matching pass over other pairs selects rows of them;
- a pass over the queries alone can return its self-attention keys and values, on which a later causal pass over the
  text continues: with the causal mask queries never see text, so the result equals the joint pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from mint.model import masks
from mint.types import BridgeOutput, MintError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class AudioKeysValues:
    """The audio as Bridge-Net's cross-attention sees it, one entry a cross-attending block."""

    pairs: tuple[tuple[Tensor, Tensor], ...]
    """Keys and values, each [B, H, T, D/H]."""
    mask: Tensor
    """[B, T] bool, True: real."""

    def select(self, rows: Tensor) -> AudioKeysValues:
        """The audio of other rows [N] of the batch, in their order."""
        return AudioKeysValues(tuple((keys[rows], values[rows]) for keys, values in self.pairs), self.mask[rows])

    @staticmethod
    def join(parts: Sequence[AudioKeysValues]) -> AudioKeysValues:
        """Several batches as one, padded to the longest."""
        longest = max(part.mask.shape[1] for part in parts)
        padded = [part._pad(longest) for part in parts]
        pairs = tuple(
            (torch.cat([keys for keys, _ in block]), torch.cat([values for _, values in block]))
            for block in zip(*(part.pairs for part in padded), strict=True)
        )
        return AudioKeysValues(pairs, torch.cat([part.mask for part in padded]))

    def _pad(self, length: int) -> AudioKeysValues:
        missing = length - self.mask.shape[1]
        if not missing:
            return self
        pairs = tuple(
            (functional.pad(keys, (0, 0, 0, missing)), functional.pad(values, (0, 0, 0, missing)))
            for keys, values in self.pairs
        )
        return AudioKeysValues(pairs, functional.pad(self.mask, (0, missing)))


class BridgeNet(nn.Module):
    """Queries and text in one stack.

    Args:
        vocab_size: V, [DEC] included.
        width: D.
        num_layers: blocks.
        num_heads: H.
        intermediate: width of the feed-forward layers.
        max_positions: longest text.
        audio_width: width of the frozen audio features.
        num_queries: Q.
        cross_attention_every: blocks 0, n, 2n, ... cross-attend.
        dropout: of hidden states and attention weights.
        layer_norm_eps: epsilon of every LayerNorm of the stack.

    Raises:
        MintError: the heads do not divide the width.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        width: int,
        num_layers: int,
        num_heads: int,
        intermediate: int,
        max_positions: int,
        audio_width: int,
        num_queries: int,
        cross_attention_every: int = 2,
        dropout: float = 0.1,
        layer_norm_eps: float = 1e-12,
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise MintError(f"width {width} is not a multiple of num_heads {num_heads}; choose one that divides it")
        self.num_queries = num_queries
        self.width = width
        self.queries = nn.Parameter(torch.empty(1, num_queries, width))
        self.audio_norm = nn.LayerNorm(audio_width)
        self.word_embeddings = nn.Embedding(vocab_size, width)
        self.position_embeddings = nn.Embedding(max_positions, width)
        self.embedding_norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                width=width,
                num_heads=num_heads,
                intermediate=intermediate,
                audio_width=audio_width if index % cross_attention_every == 0 else None,
                dropout=dropout,
                layer_norm_eps=layer_norm_eps,
            )
            for index in range(num_layers)
        )
        self.apply(_initialise)
        nn.init.normal_(self.queries, std=0.02)

    def project_audio(self, features: Tensor, mask: Tensor) -> AudioKeysValues:
        """Keys and values of the audio for every cross-attending block, computed once and shared by all passes.

        Args:
            features: [B, T, audio width], as the frozen encoder gives them.
            mask: [B, T] bool, True: real.
        """
        normed = self.audio_norm(features)
        cross_attentions = [block.cross_attention for block in self.blocks if isinstance(block, Block)]
        pairs = tuple(attention.project(normed) for attention in cross_attentions if attention is not None)
        return AudioKeysValues(pairs, mask)

    def encode_queries(self, audio: AudioKeysValues, keep_keys_values: bool = False) -> BridgeOutput:
        """Pass of the queries alone: the audio side of ALC, and what the text of ATG continues on."""
        hidden = self.embed_queries(audio.mask.shape[0])
        hidden, kept = self._run(hidden, self.num_queries, mask=None, audio=audio)
        return BridgeOutput(queries=hidden, text=None, keys_values=kept if keep_keys_values else ())

    def encode_text(self, ids: Tensor, mask: Tensor) -> BridgeOutput:
        """Pass of the text [B, L] alone: the text side of ALC."""
        hidden, _ = self._run(self.embed_text(ids), 0, mask=masks.key_padding(mask))
        return BridgeOutput(queries=None, text=hidden)

    def encode_pair(self, audio: AudioKeysValues, ids: Tensor, attention: Tensor) -> BridgeOutput:
        """Joint pass of queries and text.

        Args:
            audio: of B clips.
            ids: [B, L].
            attention: [B, 1, Q + L, Q + L] bool, one of `mint.model.masks`.
        """
        hidden = torch.cat([self.embed_queries(ids.shape[0]), self.embed_text(ids)], dim=1)
        hidden, _ = self._run(hidden, self.num_queries, mask=attention, audio=audio)
        return BridgeOutput(queries=hidden[:, : self.num_queries], text=hidden[:, self.num_queries :])

    def continue_text(self, queries: BridgeOutput, ids: Tensor, mask: Tensor) -> BridgeOutput:
        """Causal pass of the text on the kept keys and values of `encode_queries`: ATG.

        Equals `encode_pair` under the causal mask, without running the queries again.
        """
        attention = masks.causal(self.num_queries, mask)[:, :, self.num_queries :]  # [B, 1, L, Q + L]
        hidden, _ = self._run(self.embed_text(ids), 0, mask=attention, past=queries.keys_values)
        return BridgeOutput(queries=None, text=hidden)

    def embed_queries(self, batch: int) -> Tensor:
        """The queries as the first block sees them, [B, Q, D]; they have no position embedding."""
        return self.dropout(self.embedding_norm(self.queries.expand(batch, -1, -1)))

    def embed_text(self, ids: Tensor) -> Tensor:
        """Text [B, L] as the first block sees it, [B, L, D]; positions start at 0.

        Raises:
            MintError: the text is longer than there are positions.
        """
        if ids.shape[1] > self.position_embeddings.num_embeddings:
            raise MintError(
                f"text of {ids.shape[1]} tokens is longer than the {self.position_embeddings.num_embeddings} positions "
                "of Bridge-Net; truncate it"
            )
        words = self.word_embeddings(ids) + self.position_embeddings.weight[: ids.shape[1]]
        return self.dropout(self.embedding_norm(words))

    def _run(
        self,
        hidden: Tensor,
        num_queries: int,
        mask: Tensor | None,
        audio: AudioKeysValues | None = None,
        past: Sequence[tuple[Tensor, Tensor]] = (),
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        kept: list[tuple[Tensor, Tensor]] = []
        audio_pairs = iter(audio.pairs if audio is not None else ())
        audio_mask = masks.key_padding(audio.mask) if audio is not None else None
        for index, block in enumerate(self.blocks):
            seen = next(audio_pairs) if num_queries and block.cross_attention is not None else None
            hidden, keys_values = block(hidden, num_queries, mask, seen, audio_mask, past=past[index] if past else None)
            kept.append(keys_values)
        return hidden, kept


class Block(nn.Module):
    """One BERT block (post-norm) with a second feed-forward and, where `audio_width` is given, cross-attention."""

    def __init__(
        self,
        *,
        width: int,
        num_heads: int,
        intermediate: int,
        audio_width: int | None,
        dropout: float,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        self.attention = Attention(width, width, num_heads, dropout, layer_norm_eps)
        self.cross_attention = (
            Attention(width, audio_width, num_heads, dropout, layer_norm_eps) if audio_width is not None else None
        )
        self.query_feed_forward = FeedForward(width, intermediate, dropout, layer_norm_eps)
        self.text_feed_forward = FeedForward(width, intermediate, dropout, layer_norm_eps)

    def forward(
        self,
        hidden: Tensor,
        num_queries: int,
        mask: Tensor | None,
        audio: tuple[Tensor, Tensor] | None,
        audio_mask: Tensor | None,
        past: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One block over `hidden` [B, num_queries + L, D]; also returns its self-attention keys and values."""
        keys, values = self.attention.project(hidden)
        if past is not None:
            keys, values = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
        hidden = self.attention(hidden, keys, values, mask)
        outputs = []
        if num_queries:
            queries = hidden[:, :num_queries]
            if self.cross_attention is not None:
                assert audio is not None
                queries = self.cross_attention(queries, *audio, audio_mask)
            outputs.append(self.query_feed_forward(queries))
        if hidden.shape[1] > num_queries:
            outputs.append(self.text_feed_forward(hidden[:, num_queries:]))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1), (keys, values)


class Attention(nn.Module):
    """Multi-head attention with BERT's output layer: dense, dropout, residual, LayerNorm."""

    def __init__(self, width: int, source_width: int, num_heads: int, dropout: float, layer_norm_eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source_width, width)
        self.value = nn.Linear(source_width, width)
        self.output = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.dropout = nn.Dropout(dropout)

    def project(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, H, T, D/H] of a source [B, T, source width]."""
        return self._split(self.key(source)), self._split(self.value(source))

    def forward(self, hidden: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from `hidden` [B, L, D] to the keys and values; `mask` is boolean, broadcastable to [B, H, L, K]."""
        attended = functional.scaled_dot_product_attention(
            self._split(self.query(hidden)),
            keys,
            values,
            attn_mask=mask,
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        joined = attended.transpose(1, 2).flatten(2)  # [B, L, D]
        return self.norm(hidden + self.dropout(self.output(joined)))

    def _split(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B, H, L, D/H]


class FeedForward(nn.Module):
    """BERT's feed-forward: dense, GELU, dense, dropout, residual, LayerNorm."""

    def __init__(self, width: int, intermediate: int, dropout: float, layer_norm_eps: float) -> None:
        super().__init__()
        self.expand = nn.Linear(width, intermediate)
        self.contract = nn.Linear(intermediate, width)
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, L, D] to [B, L, D]."""
        return self.norm(hidden + self.dropout(self.contract(functional.gelu(self.expand(hidden)))))


def _initialise(module: nn.Module) -> None:
    """BERT's initialisation: N(0, 0.02) weights, zero biases."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
