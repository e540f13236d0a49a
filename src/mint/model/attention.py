"""The attention layers of Bridge-Net's blocks, fed with packed rows and projected audio.

What is computed is BERT's attention. Written plainly, cross-attention is four lines:

    keys, values = key(audio_norm(audio)), value(audio_norm(audio))   # [B, T, D]
    scores = query(queries) @ keys.mT / sqrt(D / H)                   # [B, H, Q, T]
    attended = scores.masked_fill(padding, -inf).softmax(-1) @ values # [B, Q, D]
    return norm(queries + dropout(output(attended)))

`benchmarks/plain_stage1.py` has the whole of stage 1 in that form, and a test holds the two equal. This file departs
from it in two ways, both for speed:

- Queries and texts are rows of one matrix without padding, except inside attention (`RowLayout`).
- The audio's keys and values serve every pass, and every pairing of clips with texts, without being copied for each
  (`AudioKeysValues`). Where several rows of a batch attend to the same clip, their queries are concatenated, so that
  one product with the clip's keys serves them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mint.model import masks
from mint.model.dropout import Dropout, drop


@dataclass(frozen=True)
class RowLayout:
    """Where the rows of a packed matrix [N, D] stand in a padded batch [B, R, D] of R = Q + L columns.

    The rows are all Q queries of the B clips, clip after clip, and then the real tokens of the texts, text after text:

        padded, B = 2, Q = 2, L = 3        packed, N = 4 + 4
        q q t t .                          q q q q t t t t
        q q t t .                          (clip 1, clip 2, text 1, text 2)

    For audio there are no queries, and the frames of the clips stand in the place of tokens.
    """

    batch: int
    """B."""
    queries: int
    """Q; 0 in a pass over texts alone."""
    columns: int
    """R."""
    index: Tensor | None
    """[N] int64, the clip times R plus the column of each row; None where the rows are the batch, row after row."""

    @classmethod
    def of(cls, batch: int, queries: int, text_mask: Tensor | None) -> RowLayout:
        """Return the layout of B x Q queries and of the real tokens of texts.

        Args:
            batch: B.
            queries: Q.
            text_mask: [B, L] bool, True: real; None: no texts.
        """
        if text_mask is None:
            return cls(batch, queries, queries, None)

        length = text_mask.shape[1]
        if not queries and text_mask.all():
            return cls(batch, queries, length, None)

        columns = queries + length
        row_starts = torch.arange(batch, device=text_mask.device) * columns  # [B]
        query_index = row_starts[:, None] + torch.arange(queries, device=text_mask.device)  # [B, Q]
        tokens = text_mask.flatten().nonzero()[:, 0]  # [M], the text times L plus the position
        token_index = row_starts[tokens // length] + queries + tokens % length
        return cls(batch, queries, columns, torch.cat([query_index.flatten(), token_index]))

    def padded(self, rows: Tensor) -> Tensor:
        """Turn packed rows [N, D] into a padded batch [B, R, D]; the padding is zeros."""
        if self.index is not None:
            empty = rows.new_zeros(self.batch * self.columns, rows.shape[-1])
            rows = empty.index_copy(0, self.index, rows)
        return rows.unflatten(0, (self.batch, self.columns))

    def packed(self, padded: Tensor) -> Tensor:
        """Turn a padded batch [B, R, D] into packed rows [N, D]."""
        rows = padded.flatten(0, 1)
        return rows if self.index is None else rows.index_select(0, self.index)

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Split packed rows [N, D] into those of the queries [B Q, D] and those of the tokens."""
        count = self.batch * self.queries
        return rows[:count], rows[count:]

    def leading(self, rows: Tensor, length: int) -> tuple[Tensor, RowLayout]:
        """Leave out the tokens from position `length` of each text on.

        Returns:
            the remaining rows, and their layout.
        """
        columns = self.queries + length
        if self.index is None or columns >= self.columns:
            return rows, self
        if not length:
            return self.split(rows)[0], RowLayout(self.batch, self.queries, columns, None)

        column = self.index % self.columns
        remaining = (column < columns).nonzero()[:, 0]
        index = (self.index // self.columns * columns + column)[remaining]
        return rows[remaining], replace(self, columns=columns, index=index)


@dataclass(frozen=True)
class AudioKeysValues:
    """Projected keys and values of the clips, with the index of the clip that each row of a batch attends to."""

    pairs: tuple[tuple[Tensor, Tensor], ...]
    """Keys and values, each [B, H, T, D/H], one pair for each block that cross-attends."""
    mask: Tensor
    """[B, T] bool, True: real."""
    clips: Tensor | None = None
    """[N] index of the clip that each row attends to; None: row b attends to clip b."""
    repeats: int = 1
    """The batch has `repeats` times as many rows: the sequence of clips, then the same sequence again, and so on."""

    def __len__(self) -> int:
        return self.repeats * len(self.mask if self.clips is None else self.clips)

    def select(self, clips: Tensor) -> AudioKeysValues:
        """Let the rows attend to the clips with these indices [N]; nothing is copied before it is used."""
        return replace(self, clips=clips if self.clips is None else self.clips[clips])

    def repeated(self, repeats: int) -> AudioKeysValues:
        """Let `repeats` times as many rows attend to the same sequence of clips."""
        return replace(self, repeats=self.repeats * repeats)


def attention_with_dropout(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, dropout: float
) -> Tensor:
    """Compute `scaled_dot_product_attention` with dropout on the CPU.

    torch has no fused kernel for this; what it does in place of one scales and copies the keys, and keeps both. A row
    that may attend to nothing attends to everything.

    Args:
        queries: [B, H, L, D/H].
        keys: [B, H, K, D/H].
        values: [B, H, K, D/H].
        mask: boolean, broadcastable to [B, H, L, K]; True: may attend.
        dropout: share of the attention weights that is set to zero.

    Returns:
        [B, H, L, D/H].
    """
    scores = queries * queries.shape[-1] ** -0.5 @ keys.transpose(-2, -1)  # [B, H, L, K]
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return drop(scores.softmax(dim=-1), dropout) @ values


class Attention(nn.Module):
    """Multi-head attention with BERT's output layer, in pieces that a block puts together."""

    def __init__(self, width: int, source_width: int, num_heads: int, dropout: float, layer_norm_eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source_width, width)
        self.value = nn.Linear(source_width, width)
        self.output = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.dropout = Dropout(dropout)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from queries [B, H, L, D/H] to keys and values [B, H, K, D/H], and join the heads: [B, L, D].

        `mask` is boolean, broadcastable to [B, H, L, K]; True: may attend.
        """
        dropout = self.dropout.p if self.training else 0.0
        if dropout and queries.device.type == "cpu":
            attended = attention_with_dropout(queries, keys, values, mask, dropout)
        else:
            attended = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, dropout_p=dropout)
        return attended.transpose(1, 2).flatten(2)

    def finish(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """Apply BERT's output layer to [..., D]: dense, dropout, residual, LayerNorm."""
        return self.norm(hidden + self.dropout(self.output(attended)))

    def split(self, projected: Tensor) -> Tensor:
        """Split the width of [B, L, D] into heads: [B, H, L, D/H]."""
        return projected.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class CrossAttention(Attention):
    """Attention of the queries to the audio, in the block that is number `index` of those which cross-attend."""

    def __init__(
        self, index: int, width: int, audio_width: int, num_heads: int, dropout: float, layer_norm_eps: float
    ) -> None:
        super().__init__(width, audio_width, num_heads, dropout, layer_norm_eps)
        self.index = index

    def project(self, frames: Tensor, layout: RowLayout, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
        """Project the audio, after its LayerNorm, to keys and values [B, H, T, D/H].

        Args:
            frames: [N, audio width], the real frames, already with zero mean and unit variance.
            layout: where these frames stand in [B, T].
            norm: the LayerNorm, whose scale and shift are still to be applied.
        """
        projected = []
        for layer in (self.key, self.value):
            # The norm's scale and shift are put into the weights: what is multiplied is then a constant, so that no
            # gradient of the size of the audio has to be computed.
            weight = layer.weight * norm.weight
            bias = layer.bias + layer.weight @ norm.bias
            rows = functional.linear(frames, weight, bias)  # [N, D]

            # They are made contiguous once, so that no pass needs to copy them again.
            projected.append(self.split(layout.padded(rows)).contiguous())
        keys, values = projected
        return keys, values

    def forward(self, queries: Tensor, audio: Sequence[AudioKeysValues]) -> Tensor:
        """Let queries [N, Q, D] attend to the N clips that the sources in `audio` name one after another: [N, Q, D]."""
        of_source = self.split(self.query(queries)).split([len(source) for source in audio])
        attended = [self._attend_to(*pair) for pair in zip(audio, of_source, strict=True)]
        return self.finish(queries, attended[0] if len(attended) == 1 else torch.cat(attended))

    def _attend_to(self, source: AudioKeysValues, queries: Tensor) -> Tensor:
        """Attend from queries [repeats x clips, H, Q, D/H] to one source: [repeats x clips, Q, D]."""
        # Queries of rows that attend to the same clip are concatenated: one product with its keys serves them all.
        queries = queries.unflatten(0, (source.repeats, -1))  # [repeats, clips, H, Q, D/H]
        queries = queries.permute(1, 2, 0, 3, 4).flatten(2, 3)  # [clips, H, repeats x Q, D/H]

        keys, values = source.pairs[self.index]
        if source.clips is None:
            attended = self.attend(queries, keys, values, masks.key_padding(source.mask))
        else:
            # In a checkpoint, the selected keys and values are selected again for the backward pass, not kept.
            inputs = (queries, keys, values, source.mask, source.clips)
            attended = checkpoint(self._select_and_attend, *inputs, use_reentrant=False)

        attended = attended.unflatten(1, (source.repeats, -1))  # [clips, repeats, Q, D]
        return attended.transpose(0, 1).flatten(0, 1)

    def _select_and_attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, clips: Tensor) -> Tensor:
        """Attend to the clips with the indices `clips` [N]."""
        # `index_select` rather than keys[clips], whose gradient is slower.
        keys, values = keys.index_select(0, clips), values.index_select(0, clips)
        return self.attend(queries, keys, values, masks.key_padding(mask[clips]))
