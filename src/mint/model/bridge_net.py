"""Bridge-Net: a Q-Former over frozen audio features (paper, section 2.1).

A stack of BERT blocks in which learnable queries and text share the self-attention, each has its own feed-forward, and
the queries alone cross-attend to the audio. The architecture, and through `convert.py` the weights, are those of
BLIP-2's Q-Former. The stack departs from the published code in how work is shared between passes, never in results:

- the audio's keys and values depend on frozen features only, so `project_audio` computes them once a batch, and a
  matching pass over other pairs uses them again;
- text is held without padding, and the last block leaves out what nobody asked for;
- a pass over the queries alone can return its self-attention keys and values, on which a later causal pass over the
  text continues: with the causal mask queries never see text, so the result equals the joint pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mint.model import masks
from mint.model.attention import Attention, AudioKeysValues, CrossAttention, PackedText
from mint.types import BridgeOutput, MintError

KeysValues = tuple[Tensor, Tensor]
Mask = Callable[[int, Tensor], Tensor]
"""One of `mint.model.masks`."""
TextOutput = Literal["all", "first", "none"]
"""Which of the text's tokens the last block computes."""


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
        crossing = range(0, num_layers, cross_attention_every)
        self.blocks = nn.ModuleList(
            Block(
                width=width,
                num_heads=num_heads,
                intermediate=intermediate,
                audio_width=audio_width,
                crossing=crossing.index(index) if index in crossing else None,
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
        standardised = functional.layer_norm(features, features.shape[-1:], eps=self.audio_norm.eps)
        crossing = [block.cross_attention for block in self.blocks if isinstance(block, Block)]
        pairs = tuple(
            attention.project(standardised, self.audio_norm) for attention in crossing if attention is not None
        )
        return AudioKeysValues(pairs, mask)

    def encode_queries(self, audio: AudioKeysValues, keep_keys_values: bool = False) -> BridgeOutput:
        """Pass of the queries alone: the audio side of ALC, and what the text of ATG continues on."""
        queries, _, kept = self._run(self.embed_queries(len(audio)), None, mask=None, audio=[audio])
        return BridgeOutput(queries=queries, text=None, keys_values=kept if keep_keys_values else ())

    def encode_text(self, ids: Tensor, mask: Tensor, first_only: bool = False) -> BridgeOutput:
        """Pass of the text alone: the text side of ALC.

        Args:
            ids: [B, L], [CLS] first.
            mask: [B, L] bool, True: real.
            first_only: give the output of [CLS] alone, [B, 1, D].
        """
        _, text, _ = self._run(
            None, self.embed_text(ids, mask), mask=masks.key_padding(mask), text_output="first" if first_only else "all"
        )
        return BridgeOutput(queries=None, text=text)

    def encode_pair(
        self,
        audio: AudioKeysValues | Sequence[AudioKeysValues],
        ids: Tensor,
        mask: Tensor,
        attention: Mask = masks.bidirectional,
        with_text: bool = True,
    ) -> BridgeOutput:
        """Joint pass of queries and text.

        Args:
            audio: B clips, or parts that name B clips one after another.
            ids: [B, L].
            mask: [B, L] bool, True: real.
            attention: who sees whom, one of `mint.model.masks`.
            with_text: give the outputs of the text too.
        """
        audio = [audio] if isinstance(audio, AudioKeysValues) else audio
        queries, text, _ = self._run(
            self.embed_queries(len(ids)),
            self.embed_text(ids, mask),
            mask=attention(self.num_queries, mask),
            audio=audio,
            text_output="all" if with_text else "none",
        )
        return BridgeOutput(queries=queries, text=text)

    def continue_text(self, queries: BridgeOutput, ids: Tensor, mask: Tensor) -> BridgeOutput:
        """Causal pass of the text on the kept keys and values of `encode_queries`: ATG.

        Equals `encode_pair` under the causal mask, without running the queries again.
        """
        attention = masks.causal(self.num_queries, mask)[:, :, self.num_queries :]  # [B, 1, L, Q + L]
        _, text, _ = self._run(None, self.embed_text(ids, mask), mask=attention, past=queries.keys_values)
        return BridgeOutput(queries=None, text=text)

    def embed_queries(self, batch: int) -> Tensor:
        """The queries as the first block sees them, [B, Q, D]; they have no position embedding."""
        return self.dropout(self.embedding_norm(self.queries.expand(batch, -1, -1)))

    def embed_text(self, ids: Tensor, mask: Tensor) -> PackedText:
        """Text [B, L] as the first block sees it; positions start at 0.

        Raises:
            MintError: the text is longer than there are positions.
        """
        if ids.shape[1] > self.position_embeddings.num_embeddings:
            raise MintError(
                f"text of {ids.shape[1]} tokens is longer than the {self.position_embeddings.num_embeddings} positions "
                "of Bridge-Net; truncate it"
            )
        places = mask.flatten().nonzero()[:, 0]
        words = self.word_embeddings(ids.flatten()[places]) + self.position_embeddings(places % ids.shape[1])
        return PackedText(self.dropout(self.embedding_norm(words)), places, mask)

    def _run(
        self,
        queries: Tensor | None,
        text: PackedText | None,
        *,
        mask: Tensor | None,
        audio: Sequence[AudioKeysValues] = (),
        past: Sequence[KeysValues] = (),
        text_output: TextOutput = "all",
    ) -> tuple[Tensor | None, Tensor | None, list[KeysValues]]:
        """All blocks: queries [B, Q, D], text [B, L, D], and each block's self-attention keys and values."""
        kept: list[KeysValues] = []
        for index, block in enumerate(self.blocks):
            wanted = text_output if index == len(self.blocks) - 1 else "all"
            queries, text, keys_values = block(queries, text, mask, audio, past[index] if past else None, wanted)
            kept.append(keys_values)
        return queries, text.padded(text.hidden) if text is not None else None, kept


class Block(nn.Module):
    """One BERT block (post-norm) with a second feed-forward and, where `crossing` is given, cross-attention."""

    def __init__(
        self,
        *,
        width: int,
        num_heads: int,
        intermediate: int,
        audio_width: int,
        crossing: int | None,
        dropout: float,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        self.attention = Attention(width, width, num_heads, dropout, layer_norm_eps)
        self.cross_attention = (
            CrossAttention(crossing, width, audio_width, num_heads, dropout, layer_norm_eps)
            if crossing is not None
            else None
        )
        self.query_feed_forward = FeedForward(width, intermediate, dropout, layer_norm_eps)
        self.text_feed_forward = FeedForward(width, intermediate, dropout, layer_norm_eps)

    def forward(
        self,
        queries: Tensor | None,
        text: PackedText | None,
        mask: Tensor | None,
        audio: Sequence[AudioKeysValues],
        past: KeysValues | None,
        text_output: TextOutput,
    ) -> tuple[Tensor | None, PackedText | None, KeysValues]:
        """One block over queries [B, Q, D], text, or both; also returns its self-attention keys and values.

        Args:
            queries: or None.
            text: or None.
            mask: of the self-attention, boolean, broadcastable to [B, H, rows, columns].
            audio: what the queries hear.
            past: keys and values that stand before those of this pass.
            text_output: which tokens of the text to compute.
        """
        keys, values = (self._project(layer, queries, text) for layer in (self.attention.key, self.attention.value))
        if past is not None:
            keys, values = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
        if text is not None and text_output != "all":
            text = text.first() if text_output == "first" else None
        count = queries.shape[1] if queries is not None else 0
        if mask is not None and mask.shape[2] > 1 and text is None:
            mask = mask[:, :, :count]
        asking = self._project(self.attention.query, queries, text)
        attended = self.attention.attend(asking, keys, values, mask)  # [B, rows, D]
        if queries is not None:
            queries = self.attention.finish(queries, attended[:, :count])
            if self.cross_attention is not None:
                queries = self.cross_attention(queries, audio)
            queries = self.query_feed_forward(queries)
        if text is not None:
            hidden = self.attention.finish(text.hidden, text.packed(attended[:, count:]))
            text = replace(text, hidden=self.text_feed_forward(hidden))
        return queries, text, (keys, values)

    def _project(self, layer: nn.Linear, queries: Tensor | None, text: PackedText | None) -> Tensor:
        """A linear layer over queries and text, as heads [B, H, rows, D/H]."""
        rows = [layer(queries)] if queries is not None else []
        if text is not None:
            rows.append(text.padded(layer(text.hidden)))
        return self.attention.split(rows[0] if len(rows) == 1 else torch.cat(rows, dim=1))


class FeedForward(nn.Module):
    """BERT's feed-forward: dense, GELU, dense, dropout, residual, LayerNorm."""

    def __init__(self, width: int, intermediate: int, dropout: float, layer_norm_eps: float) -> None:
        super().__init__()
        self.expand = nn.Linear(width, intermediate)
        self.contract = nn.Linear(intermediate, width)
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        return self.norm(hidden + self.dropout(self.contract(functional.gelu(self.expand(hidden)))))


def _initialise(module: nn.Module) -> None:
    """BERT's initialisation: N(0, 0.02) weights, zero biases."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
