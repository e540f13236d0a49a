"""Bridge-Net: a Q-Former over frozen audio features (paper, section 2.1).

A stack of BERT blocks in which learnable queries and text share the self-attention, each has its own feed-forward, and
the queries alone cross-attend to the audio. The architecture, and through `convert.py` the weights, are those of
BLIP-2's Q-Former. The stack departs from the published code in how work is shared between passes, never in results:

- the audio's keys and values depend on frozen features only, so `project_audio` computes them once a batch, and a
  matching pass over other pairs uses them again;
- queries and texts are rows without padding, and the last block leaves out what nobody asked for;
- one pass serves ALC and ATG: neither lets the queries see text, so that they are the same in both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from mint.model import masks
from mint.model.attention import Attention, AudioKeysValues, CrossAttention, Layout
from mint.model.dropout import Dropout
from mint.model.feed_forward import FeedForward
from mint.types import BridgeOutput, MintError

Mask = Callable[[int, Tensor], Tensor]
"""One of `mint.model.masks`."""


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
        self.dropout = Dropout(dropout)
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
        layout = Layout.of(len(features), 0, mask)
        frames = functional.layer_norm(layout.packed(features), features.shape[-1:], eps=self.audio_norm.eps)
        if torch.is_autocast_enabled(features.device.type):  # once, where each product would convert and keep its own
            frames = frames.to(torch.get_autocast_dtype(features.device.type))
        crossing = [block.cross_attention for block in self.blocks if isinstance(block, Block)]
        pairs = tuple(
            attention.project(frames, layout, self.audio_norm) for attention in crossing if attention is not None
        )
        return AudioKeysValues(pairs, mask)

    def encode_queries(self, audio: AudioKeysValues) -> BridgeOutput:
        """Pass of the queries alone: the audio side of ALC."""
        return self._run(mask=None, audio=[audio])

    def encode_text(self, ids: Tensor, mask: Tensor, length: int | None = None) -> BridgeOutput:
        """Pass of the text alone: the text side of ALC.

        Args:
            ids: [B, L], [CLS] first.
            mask: [B, L] bool, True: real.
            length: of how many tokens to give the output; None: all.
        """
        return self._run(mask=masks.key_padding(mask), ids=ids, text_mask=mask, length=length)

    def encode_pair(
        self,
        audio: AudioKeysValues | Sequence[AudioKeysValues],
        ids: Tensor,
        mask: Tensor,
        attention: Mask = masks.bidirectional,
        length: int | None = None,
    ) -> BridgeOutput:
        """Joint pass of queries and text.

        Args:
            audio: B clips, or parts that name B clips one after another.
            ids: [B, L].
            mask: [B, L] bool, True: real.
            attention: who sees whom, one of `mint.model.masks`.
            length: of how many tokens of the text to give the output; None: all.
        """
        audio = [audio] if isinstance(audio, AudioKeysValues) else audio
        return self._run(mask=attention(self.num_queries, mask), audio=audio, ids=ids, text_mask=mask, length=length)

    def encode_unimodal_and_causal(
        self, audio: AudioKeysValues, ids: Tensor, generated: Tensor, mask: Tensor
    ) -> BridgeOutput:
        """The passes of ALC and ATG in one: the queries, a text that is generated from them, and a text by itself.

        The queries see no text in either, so they are the same in both (`masks.unimodal_and_causal`).

        Args:
            audio: B clips.
            ids: [B, L], [CLS] first: the text by itself, of which the output of [CLS] is given.
            generated: [B, L], [DEC] first.
            mask: [B, L] bool, True: real; of both.
        """
        length = ids.shape[1]
        output = self._run(
            mask=masks.unimodal_and_causal(self.num_queries, mask),
            audio=[audio],
            ids=torch.cat([generated, ids], dim=1),
            text_mask=mask.repeat(1, 2),
            texts=2,
            length=length + 1,
        )
        assert output.text is not None
        return replace(output, text=output.text[:, :length], lone_text=output.text[:, length:])

    def embed_queries(self, batch: int) -> Tensor:
        """The queries as the first block sees them, [B, Q, D]; they have no position embedding."""
        return self.dropout(self.embedding_norm(self.queries.expand(batch, -1, -1)))

    def embed_text(self, ids: Tensor, mask: Tensor, texts: int = 1) -> Tensor:
        """The real tokens of text [B, L] as the first block sees them, [M, D].

        Args:
            ids: of one text a row, or of several of equal length side by side.
            mask: bool, True: real.
            texts: how many stand side by side; positions start at 0 in each.

        Raises:
            MintError: the text is longer than there are positions.
        """
        length = ids.shape[1] // texts
        if length > self.position_embeddings.num_embeddings:
            raise MintError(
                f"text of {length} tokens is longer than the {self.position_embeddings.num_embeddings} positions "
                "of Bridge-Net; truncate it"
            )
        places = mask.flatten().nonzero()[:, 0]
        words = self.word_embeddings(ids.flatten()[places]) + self.position_embeddings(places % length)
        return self.dropout(self.embedding_norm(words))

    def _run(
        self,
        *,
        mask: Tensor | None,
        audio: Sequence[AudioKeysValues] = (),
        ids: Tensor | None = None,
        text_mask: Tensor | None = None,
        texts: int = 1,
        length: int | None = None,
    ) -> BridgeOutput:
        """All blocks over the queries (where there is audio) and the texts (where there are `ids`)."""
        rows: list[Tensor] = []
        if audio:
            rows.append(self.embed_queries(sum(map(len, audio))).flatten(0, 1))
        if ids is not None and text_mask is not None:
            rows.append(self.embed_text(ids, text_mask, texts))
        batch = sum(map(len, audio)) if ids is None else len(ids)
        layout = Layout.of(batch, self.num_queries if audio else 0, text_mask)
        hidden = torch.cat(rows)
        for index, block in enumerate(self.blocks):
            hidden, layout = block(hidden, layout, mask, audio, length if index == len(self.blocks) - 1 else None)
        padded = layout.padded(hidden)
        return BridgeOutput(
            queries=padded[:, : layout.queries] if audio else None,
            text=padded[:, layout.queries :] if layout.columns > layout.queries else None,
        )


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
        hidden: Tensor,
        layout: Layout,
        mask: Tensor | None,
        audio: Sequence[AudioKeysValues],
        length: int | None,
    ) -> tuple[Tensor, Layout]:
        """One block over queries, texts, or both.

        Args:
            hidden: [N, D].
            layout: of these rows.
            mask: of the self-attention, boolean, broadcastable to [B, H, R, R].
            audio: what the queries hear.
            length: of how many tokens of each text to compute the output; None: all.

        Returns:
            the same for what was to be computed.
        """
        attention = self.attention
        keys, values = (attention.split(layout.padded(layer(hidden))) for layer in (attention.key, attention.value))
        if length is not None:
            hidden, layout = layout.leading(hidden, length)
        if mask is not None and mask.shape[2] > 1:
            mask = mask[:, :, : layout.columns]
        asking = attention.split(layout.padded(attention.query(hidden)))
        attended = layout.packed(attention.attend(asking, keys, values, mask))
        queries, tokens = layout.split(attention.finish(hidden, attended))
        parts = []
        if len(queries):
            if self.cross_attention is not None:
                heard = self.cross_attention(queries.unflatten(0, (layout.batch, layout.queries)), audio)
                queries = heard.flatten(0, 1)
            parts.append(self.query_feed_forward(queries))
        if len(tokens):
            parts.append(self.text_feed_forward(tokens))
        return torch.cat(parts), layout


def _initialise(module: nn.Module) -> None:
    """BERT's initialisation: N(0, 0.02) weights, zero biases."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
