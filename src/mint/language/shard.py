"""A frozen language model that is larger than one accelerator: its blocks' weights lie spread over all ranks.

Each block is one unit of PyTorch's `fully_shard` (FSDP2): its weights are gathered while it runs, forward and backward,
and are let go afterwards. Nothing else changes: the weights take no gradients, so none are reduced, and the stage model
around it is trained by whatever the Trainer was told. Embeddings, head and final norms stay whole on every rank.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mint.types import MintError


def shard_blocks(model: Any, device: torch.device | str, ranks: int) -> None:
    """Spread the weights of a frozen model's blocks over all ranks, each rank's part on its device.

    From then on all ranks must run the model equally often. With one rank nothing happens.

    Args:
        model: a model of transformers that is not on its device yet; it is changed in place.
        device: the device of this rank.
        ranks: number of ranks.

    Raises:
        MintError: transformers does not say which of its modules are blocks.
    """
    if ranks == 1:
        return

    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # One unit for each block: only one block's weights are whole at a time.
    blocks = find_blocks(model)
    mesh = init_device_mesh(torch.device(device).type, (ranks,))
    for block in blocks:
        fully_shard(block, mesh=mesh)


def find_blocks(model: Any) -> list[nn.Module]:
    """Return the blocks of a model, in order.

    They are the modules that transformers keeps in one piece when it spreads a model over devices.
    """
    names = set(getattr(model, "_no_split_modules", None) or ())
    blocks = [module for module in model.modules() if type(module).__name__ in names]
    if not blocks:
        raise MintError(
            f"language.shard is true, but {type(model).__name__} does not name its blocks; leave it out, or choose "
            "a model that does"
        )
    return blocks
