"""The layers of Bridge-Net's blocks, and the two forms in which they are fed: packed rows and projected audio.

They compute what BERT's layers compute, and share work that the published code repeats: queries and texts are the rows
of one matrix without padding, except inside attention (`Layout`), and the audio's keys and values serve every
pass and every pairing of clips with texts without being copied for each (`AudioKeysValues`).
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
class Layout:
    """Where the rows of a matrix [N, D] stand in a padded batch [B, R, D] of R = Q + L columns.

    The rows are all Q queries of the B clips, clip after clip, and then the real tokens of the texts, text after text.
    (For audio there are no queries, and the frames of the clips in the place of tokens.)
    """

    batch: int
    queries: int
    """Q; 0 in a pass over texts alone."""
    columns: int
    """R."""
    places: Tensor | None
    """[N] int64: clip times R plus column; None where the rows are the batch, row after row."""

    @classmethod
    def of(cls, batch: int, queries: int, text_mask: Tensor | None) -> Layout:
        """Of B x Q queries and of texts whose real tokens are True in `text_mask` [B, L]; None: no texts."""
        if text_mask is None:
            return cls(batch, queries, queries, None)
        length = text_mask.shape[1]
        if not queries and text_mask.all():
            return cls(batch, queries, length, None)
        columns = queries + length
        firsts = torch.arange(batch, device=text_mask.device) * columns
        of_queries = firsts[:, None] + torch.arange(queries, device=text_mask.device)
        tokens = text_mask.flatten().nonzero()[:, 0]
        of_tokens = firsts[tokens // length] + queries + tokens % length
        return cls(batch, queries, columns, torch.cat([of_queries.flatten(), of_tokens]))

    def padded(self, rows: Tensor) -> Tensor:
        """[N, D] to [B, R, D]; zeros are the padding."""
        if self.places is not None:
            empty = rows.new_zeros(self.batch * self.columns, rows.shape[-1])
            rows = empty.index_copy(0, self.places, rows)
        return rows.unflatten(0, (self.batch, self.columns))

    def packed(self, padded: Tensor) -> Tensor:
        """The other way round: [B, R, D] to [N, D]."""
        rows = padded.flatten(0, 1)
        return rows if self.places is None else rows.index_select(0, self.places)

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """[N, D] to the queries' rows and the tokens'."""
        count = self.batch * self.queries
        return rows[:count], rows[count:]

    def leading(self, rows: Tensor, length: int) -> tuple[Tensor, Layout]:
        """Without the tokens from place `length` of each text on."""
        columns = self.queries + length
        if self.places is None or columns >= self.columns:
            return rows, self
        if not length:
            return self.split(rows)[0], Layout(self.batch, self.queries, columns, None)
        column = self.places % self.columns
        kept = (column < columns).nonzero()[:, 0]
        places = (self.places // self.columns * columns + column)[kept]
        return rows[kept], replace(self, columns=columns, places=places)


@dataclass(frozen=True)
class AudioKeysValues:
    """Clips as Bridge-Net's cross-attention sees them, and which of them a batch of texts hears in turn."""

    pairs: tuple[tuple[Tensor, Tensor], ...]
    """Keys and values, each [B, H, T, D/H], one pair a cross-attending block."""
    mask: Tensor
    """[B, T] bool, True: real."""
    rows: Tensor | None = None
    """[N] the clips that are heard; None: all B in order."""
    times: int = 1
    """How often this sequence is gone through: clip after clip, then from the beginning."""

    def __len__(self) -> int:
        return self.times * len(self.mask if self.rows is None else self.rows)

    def select(self, rows: Tensor) -> AudioKeysValues:
        """The clips `rows` [N] in their order; their keys and values are fetched where they are used."""
        return replace(self, rows=rows if self.rows is None else self.rows[rows])

    def repeated(self, times: int) -> AudioKeysValues:
        """Each clip heard `times` as often."""
        return replace(self, times=self.times * times)


def attention_with_dropout(asking: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """`scaled_dot_product_attention` with dropout on the CPU.

    For this torch has no fused kernel, and what it does in place of one scales and copies the keys, and keeps both.
    A row that may attend to nothing attends to everything.
    """
    scores = asking * asking.shape[-1] ** -0.5 @ keys.transpose(-2, -1)
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

    def attend(self, asking: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Means of the values for what is asked [B, H, L, D/H], heads joined: [B, L, D].

        `mask` is boolean, broadcastable to [B, H, L, K].
        """
        dropout = self.dropout.p if self.training else 0.0
        if dropout and asking.device.type == "cpu":
            attended = attention_with_dropout(asking, keys, values, mask, dropout)
        else:
            attended = functional.scaled_dot_product_attention(asking, keys, values, attn_mask=mask, dropout_p=dropout)
        return attended.transpose(1, 2).flatten(2)

    def finish(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """BERT's output layer: dense, dropout, residual, LayerNorm; both are [..., D]."""
        return self.norm(hidden + self.dropout(self.output(attended)))

    def split(self, projected: Tensor) -> Tensor:
        """[B, L, D] to heads [B, H, L, D/H]."""
        return projected.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class CrossAttention(Attention):
    """Attention of the queries to the audio, in the block that is number `index` of those which cross-attend."""

    def __init__(
        self, index: int, width: int, audio_width: int, num_heads: int, dropout: float, layer_norm_eps: float
    ) -> None:
        super().__init__(width, audio_width, num_heads, dropout, layer_norm_eps)
        self.index = index

    def project(self, frames: Tensor, layout: Layout, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
        """Keys and values [B, H, T, D/H] of the audio after its LayerNorm.

        The norm's scale and shift are put into the weights: what is multiplied is then a constant, so that no gradient
        of the size of the audio has to be computed.

        Args:
            frames: [N, audio width], the real frames with zero mean and unit variance.
            layout: of these frames.
            norm: gives the scale and the shift.
        """
        keys, values = (
            functional.linear(frames, layer.weight * norm.weight, layer.bias + layer.weight @ norm.bias)
            for layer in (self.key, self.value)
        )
        keys, values = (self.split(layout.padded(rows)).contiguous() for rows in (keys, values))
        return keys, values  # contiguous, so that no pass needs to copy them again

    def forward(self, queries: Tensor, audio: Sequence[AudioKeysValues]) -> Tensor:
        """Queries [N, Q, D] attend to the N clips that the parts of `audio` name one after another."""
        asking = self.split(self.query(queries)).split([len(part) for part in audio])
        attended = [self._hear(of_part, part) for of_part, part in zip(asking, audio, strict=True)]
        return self.finish(queries, attended[0] if len(attended) == 1 else torch.cat(attended))

    def _hear(self, asking: Tensor, part: AudioKeysValues) -> Tensor:
        """The queries [times x clips, H, Q, D/H] of one part; those that hear the same clip stand side by side."""
        asking = asking.unflatten(0, (part.times, -1)).permute(1, 2, 0, 3, 4).flatten(2, 3)  # [clips, H, times Q, D/H]
        keys, values = part.pairs[self.index]
        if part.rows is None:
            attended = self.attend(asking, keys, values, masks.key_padding(part.mask))
        else:
            inputs = (asking, keys, values, part.mask, part.rows)
            attended = checkpoint(self._fetch_and_attend, *inputs, use_reentrant=False)
        return attended.unflatten(1, (part.times, -1)).transpose(0, 1).flatten(0, 1)

    def _fetch_and_attend(self, asking: Tensor, keys: Tensor, values: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
        """In a checkpoint: what is fetched is fetched again for the backward pass, and not kept until then."""
        keys, values = (tensor.index_select(0, rows) for tensor in (keys, values))  # the gradient of [rows] is slower
        return self.attend(asking, keys, values, masks.key_padding(mask[rows]))
