"""What the ranks of a distributed run exchange, so that the losses are those of the global batch (paper, section 3.2).

The published code gathers contrastive features without gradient and, for matching, the encoder's whole sequences. Here
the shared-space features travel with gradient, and of the audio only the clips that were drawn as negatives. Ranks may
hold different numbers of rows, of frames and of tokens. Without a process group nothing travels and a batch is its own
global batch.

Distributed data parallelism takes the mean of the ranks' gradients. A loss that is a mean over a rank's own rows is
therefore weighted by `share`: the mean over ranks is then the mean over all rows, and so is its gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather
from torch.nn import functional


def world_size() -> int:
    """Return the number of ranks; 1 without a process group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def share(count: Tensor | int, device: torch.device) -> Tensor:
    """Return this rank's `count` over the mean count of the ranks: the weight of a mean over `count` terms. Scalar."""
    local = torch.as_tensor(count, device=device, dtype=torch.float32)
    return local * world_size() / over_ranks(local)


def over_ranks(counts: Tensor) -> Tensor:
    """Return the sum of the ranks' counts, of any one shape. A collective: every rank must call it."""
    total = counts.clone()
    if world_size() > 1:
        distributed.all_reduce(total)
    return total


def any_rank(value: bool, device: torch.device) -> bool:
    """Return True if any rank passed True. A collective: every rank must call it."""
    return bool(over_ranks(torch.tensor(int(value), device=device)))


def own_columns(rows: int, device: torch.device) -> Tensor:
    """Return the indices [rows] of this rank's rows in the global batch, which has the ranks' rows in their order."""
    first = 0
    if world_size() > 1:
        counts = _all_shapes((rows,), device)[:, 0].tolist()
        first = sum(counts[: distributed.get_rank()])
    return torch.arange(first, first + rows, device=device)


def all_rows(rows: Tensor, fill: int = 0) -> Tensor:
    """Return the rows of all ranks, with gradient. A collective: every rank must call it.

    Args:
        rows: [B, ...]; all sizes may differ between ranks.
        fill: the value that rows of smaller sizes are padded with.

    Returns:
        [G, ...], in the order of the ranks.
    """
    if world_size() == 1:
        return rows

    # Ranks exchange tensors of one shape: they are padded to the largest, and cut to their own rows afterwards.
    shapes = _all_shapes(tuple(rows.shape), rows.device)  # [ranks, dimensions]
    padded = _pad_to(rows, shapes.amax(dim=0).tolist(), fill)
    gathered = all_gather(padded)
    counts = shapes[:, 0].tolist()
    return torch.cat([of_rank[:count] for of_rank, count in zip(gathered, counts, strict=True)])


def fetch_rows(wanted: Tensor, *sources: Tensor) -> tuple[Tensor, ...]:
    """Return rows of the global batch, from the ranks that hold them; nothing else travels, and no gradient.

    A collective: every rank must call it.

    Args:
        wanted: [N], indices in the global batch.
        sources: [B, T, ...] each, this rank's rows; B and T may differ between ranks, and are the same in all sources.

    Returns:
        [N, T', ...] each, T' the largest T, padded with zeros.
    """
    if world_size() == 1:
        return tuple(source[wanted] for source in sources)

    # Which rank holds each wanted row, and at which of its own indices.
    counts, longest = _all_shapes(tuple(sources[0].shape[:2]), wanted.device).T  # [ranks] each
    ends = counts.cumsum(dim=0)
    owners = torch.bucketize(wanted, ends, right=True)  # [N]
    rows_there = wanted - (ends - counts)[owners]  # [N]

    # All ranks tell all others what they want. What arrives later is in the order of its owners, so they ask in it too.
    order = owners.argsort(stable=True)
    requests = all_rows(torch.stack([owners, rows_there], dim=1)[order])  # [all N, owner and row]
    askers = torch.repeat_interleave(_all_shapes((len(wanted),), wanted.device)[:, 0])  # [all N]
    of_this_rank = requests[:, 0] == distributed.get_rank()
    receives = owners.bincount(minlength=world_size()).tolist()
    sends = askers[of_this_rank].bincount(minlength=world_size()).tolist()

    fetched = []
    for source in sources:
        padded = _pad_to(source, [len(source), int(longest.max()), *source.shape[2:]], 0)
        rows = padded[requests[of_this_rank, 1]]
        arrived = rows.new_empty(len(wanted), *rows.shape[1:])
        distributed.all_to_all_single(_bytes(arrived), _bytes(rows), receives, sends)
        fetched.append(torch.empty_like(arrived).index_copy_(0, order, arrived))
    return tuple(fetched)


def _all_shapes(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the shapes that the ranks have, [ranks, dimensions]."""
    local = torch.tensor(shape, device=device)
    shapes = [torch.empty_like(local) for _ in range(world_size())]
    distributed.all_gather(shapes, local)
    return torch.stack(shapes)


def _pad_to(tensor: Tensor, shape: list[int], fill: int) -> Tensor:
    """Pad every dimension at its end, to the sizes in `shape`."""
    amounts: list[int] = []
    for size, target in zip(reversed(tensor.shape), reversed(shape), strict=True):  # `pad` begins with the last one
        amounts += [0, target - size]
    return functional.pad(tensor, amounts, value=fill)


def _bytes(tensor: Tensor) -> Tensor:
    """View the memory as bytes, as not every backend sends every type."""
    return tensor.view(torch.uint8)
