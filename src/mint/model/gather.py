"""What the ranks of a distributed run exchange, so that the losses are those of the global batch (paper, section 3.2).

The published code gathers contrastive features without gradient and, for matching, the encoder's whole sequences. Here
the shared-space features travel with gradient, and of the audio only the clips that were drawn as negatives. Ranks may
hold different numbers of rows, of frames and of tokens. Without a process group nothing travels and a batch is its own
global batch.

Distributed data parallelism takes the mean of the ranks' gradients. A loss that is a mean over a rank's own rows is
therefore weighted by `share`: the mean over ranks is then the mean over all rows, and so is its gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def share(count: Tensor | int, device: torch.device) -> Tensor:
    """This rank's `count` over the mean count of the ranks: the weight of a mean over `count` terms. Scalar."""
    own = torch.as_tensor(count, device=device, dtype=torch.float32)
    return own * world_size() / over_ranks(own)


def over_ranks(counts: Tensor) -> Tensor:
    """The sum of the ranks' counts, of any one shape; all ranks must ask."""
    total = counts.clone()
    if world_size() > 1:
        distributed.all_reduce(total)
    return total


def any_rank(said: bool, device: torch.device) -> bool:
    """Whether some rank says so; all ranks must ask."""
    return bool(over_ranks(torch.tensor(int(said), device=device)))


def own_columns(rows: int, device: torch.device) -> Tensor:
    """Places [rows] of this rank's rows in the global batch, which has the ranks' rows in their order."""
    first = sum(_all_shapes((rows,), device)[: distributed.get_rank(), 0].tolist()) if world_size() > 1 else 0
    return torch.arange(first, first + rows, device=device)


def all_rows(rows: Tensor, fill: int = 0) -> Tensor:
    """The rows of all ranks, with gradient.

    Args:
        rows: [B, ...]; all sizes may differ between ranks.
        fill: what rows of smaller sizes are padded with.

    Returns:
        [G, ...], in the order of the ranks.
    """
    if world_size() == 1:
        return rows
    shapes = _all_shapes(tuple(rows.shape), rows.device)
    padded = _pad_to(rows, shapes.amax(dim=0).tolist(), fill)
    parts = _AllGather.apply(padded)  # type: ignore[no-untyped-call]
    return torch.cat([part[:count] for part, count in zip(parts, shapes[:, 0].tolist(), strict=True)])


def fetch_rows(wanted: Tensor, *sources: Tensor) -> tuple[Tensor, ...]:
    """Rows of the global batch, from the ranks that hold them; nothing else travels. No gradient.

    Args:
        wanted: [N], places in the global batch.
        sources: [B, T, ...] each, this rank's rows; B and T may differ between ranks, and are the same in all sources.

    Returns:
        [N, T', ...] each, T' the largest T, padded with zeros.
    """
    if world_size() == 1:
        return tuple(source[wanted] for source in sources)
    counts, longest = _all_shapes(tuple(sources[0].shape[:2]), wanted.device).T
    ends = counts.cumsum(dim=0)
    owners = torch.bucketize(wanted, ends, right=True)
    order = owners.argsort(stable=True)  # what arrives is in the order of its owners
    requests = all_rows(torch.stack([owners, wanted - (ends - counts)[owners]], dim=1)[order])  # [all N, owner and row]
    askers = torch.repeat_interleave(_all_shapes((len(wanted),), wanted.device)[:, 0])
    mine = requests[:, 0] == distributed.get_rank()
    receives = owners.bincount(minlength=world_size()).tolist()
    sends = askers[mine].bincount(minlength=world_size()).tolist()
    fetched = []
    for source in sources:
        rows = _pad_to(source, [len(source), int(longest.max()), *source.shape[2:]], 0)[requests[mine, 1]]
        arrived = rows.new_empty(len(wanted), *rows.shape[1:])
        distributed.all_to_all_single(_bytes(arrived), _bytes(rows), receives, sends)
        fetched.append(torch.empty_like(arrived).index_copy_(0, order, arrived))
    return tuple(fetched)


class _AllGather(torch.autograd.Function):
    """The tensors of all ranks, of one shape; each rank's gradient is the sum of what all ranks make of it."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> tuple[Tensor, ...]:
        parts = [torch.empty_like(tensor) for _ in range(world_size())]
        distributed.all_gather(parts, tensor.contiguous())
        return tuple(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = torch.stack(gradients)
        distributed.all_reduce(total)
        return total[distributed.get_rank()]


def _all_shapes(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """[ranks, dimensions]: the shapes that the ranks have."""
    own = torch.tensor(shape, device=device)
    shapes = [torch.empty_like(own) for _ in range(world_size())]
    distributed.all_gather(shapes, own)
    return torch.stack(shapes)


def _pad_to(tensor: Tensor, shape: list[int], fill: int) -> Tensor:
    """Pad every dimension at its end."""
    missing = [amount for size, target in zip(tensor.shape, shape, strict=True) for amount in (target - size, 0)]
    return functional.pad(tensor, missing[::-1], value=fill)


def _bytes(tensor: Tensor) -> Tensor:
    """The same memory as bytes: not every backend sends every type."""
    return tensor.view(torch.uint8)
