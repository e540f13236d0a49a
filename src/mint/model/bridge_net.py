"""Bridge-Net: a Q-Former over frozen audio features (paper, section 2.1).

A stack of BERT blocks in which learnable queries and text share the self-attention, each has its own feed-forward, and
the queries alone cross-attend to the audio. The architecture, and through `convert.py` the weights, are those of
BLIP-2's Q-Former. The stack departs from the published code in how work is shared between passes, never in results:

- the audio's keys and values depend on frozen features only, so `project_audio` computes them once a batch, and a
  matching pass over other pairs uses them again;
- queries and texts are rows without padding, and the last block computes only the outputs that are wanted;
- one pass serves ALC and ATG: neither lets the queries attend to text, so that they are the same in both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from mint.model import masks
from mint.model.attention import Attention, AudioKeysValues, CrossAttention, RowLayout
from mint.model.dropout import Dropout
from mint.model.feed_forward import FeedForward
from mint.types import BridgeOutput, MintError

MaskFunction = Callable[[int, Tensor], Tensor]
"""One of the functions of `mint.model.masks`: from Q and the text's mask [B, L] to who may attend to whom."""


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
        cross_attention_every: n, where the blocks 0, n, 2n, ... cross-attend.
        dropout: share of hidden states and of attention weights that is set to zero in training.
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

        self.blocks = nn.ModuleList()
        crossing = range(0, num_layers, cross_attention_every)
        for index in range(num_layers):
            block = Block(
                width=width,
                num_heads=num_heads,
                intermediate=intermediate,
                audio_width=audio_width,
                crossing=crossing.index(index) if index in crossing else None,
                dropout=dropout,
                layer_norm_eps=layer_norm_eps,
            )
            self.blocks.append(block)

        self.apply(_initialise)
        nn.init.normal_(self.queries, std=0.02)

    def project_audio(self, features: Tensor, mask: Tensor) -> AudioKeysValues:
        """Project the audio to keys and values for every cross-attending block, once for all passes.

        Args:
            features: [B, T, audio width], as the frozen encoder gives them.
            mask: [B, T] bool, True: real.
        """
        layout = RowLayout.of(len(features), 0, mask)
        frames = layout.packed(features)  # [N, audio width]
        frames = functional.layer_norm(frames, frames.shape[-1:], eps=self.audio_norm.eps)

        # Under autocast each product would convert the frames and keep a copy of its own; so they are converted once.
        device = features.device.type
        if torch.is_autocast_enabled(device):
            frames = frames.to(torch.get_autocast_dtype(device))

        pairs = []
        for block in self.blocks:
            assert isinstance(block, Block)
            if block.cross_attention is not None:
                pairs.append(block.cross_attention.project(frames, layout, self.audio_norm))
        return AudioKeysValues(tuple(pairs), mask)

    def encode_queries(self, audio: AudioKeysValues) -> BridgeOutput:
        """Run the queries alone: the audio side of ALC."""
        return self._run(mask=None, audio=[audio])

    def encode_text(self, ids: Tensor, mask: Tensor, length: int | None = None) -> BridgeOutput:
        """Run the text alone: the text side of ALC.

        Args:
            ids: [B, L], [CLS] first.
            mask: [B, L] bool, True: real.
            length: the number of tokens whose output is wanted; None: all.
        """
        return self._run(mask=masks.key_padding(mask), ids=ids, text_mask=mask, length=length)

    def encode_pair(
        self,
        audio: AudioKeysValues | Sequence[AudioKeysValues],
        ids: Tensor,
        mask: Tensor,
        attention: MaskFunction = masks.bidirectional,
        length: int | None = None,
    ) -> BridgeOutput:
        """Run queries and text together.

        Args:
            audio: B clips, or several sources that name B clips one after another.
            ids: [B, L].
            mask: [B, L] bool, True: real.
            attention: who may attend to whom, one of `mint.model.masks`.
            length: the number of tokens of the text whose output is wanted; None: all.
        """
        audio = [audio] if isinstance(audio, AudioKeysValues) else audio
        attends = attention(self.num_queries, mask)  # [B, 1, Q + L, Q + L]
        return self._run(mask=attends, audio=audio, ids=ids, text_mask=mask, length=length)

    def encode_unimodal_and_causal(
        self, audio: AudioKeysValues, ids: Tensor, generated: Tensor, mask: Tensor
    ) -> BridgeOutput:
        """Run the passes of ALC and ATG as one: the queries, a text generated from them, and a text by itself.

        The queries attend to no text in either pass, so they are the same in both (`masks.unimodal_and_causal`).

        Args:
            audio: B clips.
            ids: [B, L], [CLS] first: the text by itself, of which the output of [CLS] is returned.
            generated: [B, L], [DEC] first.
            mask: [B, L] bool, True: real; the same for both texts.
        """
        length = ids.shape[1]

        # The generated text stands first: then its L outputs and that of [CLS] are the first L + 1.
        output = self._run(
            mask=masks.unimodal_and_causal(self.num_queries, mask),
            audio=[audio],
            ids=torch.cat([generated, ids], dim=1),
            text_mask=mask.repeat(1, 2),
            texts=2,
            length=length + 1,
        )
        assert output.text is not None  # [B, L + 1, D]
        return replace(output, text=output.text[:, :length], lone_text=output.text[:, length:])

    def embed_queries(self, batch: int) -> Tensor:
        """Return the queries as the first block receives them, [B, Q, D]; they have no position embedding."""
        return self.dropout(self.embedding_norm(self.queries.expand(batch, -1, -1)))

    def embed_text(self, ids: Tensor, mask: Tensor, texts: int = 1) -> Tensor:
        """Return the M real tokens of texts as the first block receives them, [M, D].

        Args:
            ids: [B, L], one text in each row, or several of equal length side by side.
            mask: [B, L] bool, True: real.
            texts: how many texts stand side by side; positions start at 0 in each.

        Raises:
            MintError: the text is longer than there are positions.
        """
        length = ids.shape[1] // texts
        if length > self.position_embeddings.num_embeddings:
            raise MintError(
                f"text of {length} tokens is longer than the {self.position_embeddings.num_embeddings} positions "
                "of Bridge-Net; truncate it"
            )

        tokens = mask.flatten().nonzero()[:, 0]  # [M], the row times L plus the column
        words = self.word_embeddings(ids.flatten()[tokens])  # [M, D]
        positions = self.position_embeddings(tokens % length)  # [M, D]
        return self.dropout(self.embedding_norm(words + positions))

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
        """Run all blocks over the queries (where there is audio) and the texts (where there are `ids`)."""
        rows: list[Tensor] = []
        if audio:
            clips = sum(len(source) for source in audio)
            rows.append(self.embed_queries(clips).flatten(0, 1))  # [B Q, D]
        if ids is not None and text_mask is not None:
            rows.append(self.embed_text(ids, text_mask, texts))  # [M, D]
        hidden = torch.cat(rows)  # [N, D]

        batch = clips if ids is None else len(ids)
        layout = RowLayout.of(batch, self.num_queries if audio else 0, text_mask)

        # Only the last block may leave out tokens: the others' outputs are the keys and values of the next block.
        *others, last = self.blocks
        for block in others:
            hidden, layout = block(hidden, layout, mask, audio, None)
        hidden, layout = last(hidden, layout, mask, audio, length)

        padded = layout.padded(hidden)  # [B, Q + L, D]
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
        layout: RowLayout,
        mask: Tensor | None,
        audio: Sequence[AudioKeysValues],
        length: int | None,
    ) -> tuple[Tensor, RowLayout]:
        """One block over queries, texts, or both.

        Args:
            hidden: [N, D].
            layout: where these rows stand in the padded batch.
            mask: of the self-attention, boolean, broadcastable to [B, H, R, R].
            audio: the clips that the queries attend to.
            length: the number of tokens of each text whose output is wanted; None: all.

        Returns:
            the outputs that are wanted, and their layout.
        """
        # Every row gives keys and values; only rows whose output is wanted give queries.
        attention = self.attention
        keys = attention.split(layout.padded(attention.key(hidden)))  # [B, H, R, D/H]
        values = attention.split(layout.padded(attention.value(hidden)))
        if length is not None:
            hidden, layout = layout.leading(hidden, length)
        if mask is not None and mask.shape[2] > 1:
            mask = mask[:, :, : layout.columns]

        # Self-attention, which queries and text share.
        asking = attention.split(layout.padded(attention.query(hidden)))
        attended = layout.packed(attention.attend(asking, keys, values, mask))  # [N, D]
        queries, tokens = layout.split(attention.finish(hidden, attended))

        # Cross-attention of the queries alone, and a feed-forward for each side.
        outputs = []
        if len(queries):
            if self.cross_attention is not None:
                batched = queries.unflatten(0, (layout.batch, layout.queries))  # [B, Q, D]
                queries = self.cross_attention(batched, audio).flatten(0, 1)
            outputs.append(self.query_feed_forward(queries))
        if len(tokens):
            outputs.append(self.text_feed_forward(tokens))
        return torch.cat(outputs), layout


def _initialise(module: nn.Module) -> None:
    """Draw a layer's weights as BERT does: from N(0, 0.02), with zero biases."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
