"""Where stage 2's fully-connected layer starts: by least squares, rather than at random (ours; the paper is silent).

A random layer gives the frozen language model soft prompts that mean nothing to it, and the first hundreds of steps go
into finding its embedding space. But where a good soft prompt lies is roughly known: at the language model's own
embedding of the answer. Ridge regression of these embeddings on stage 1's query outputs has a closed form and takes
seconds, and leaves to the gradient what it is needed for: how the model reads them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

RIDGE = 0.01
"""Share of the query outputs' mean variance that is added to each."""
GAIN = 2.0
"""What the fitted deviations from the mean are multiplied by: regression shrinks them, and small ones go unread."""


@torch.no_grad()
def align_projection(projection: nn.Linear, queries: Tensor, targets: Tensor) -> None:
    """Set a layer so that it maps query outputs to about the embeddings of their answers.

    Args:
        projection: D -> width of the language model; its weight and bias are overwritten.
        queries: query outputs [N, Q, D] of N examples.
        targets: [N, width of the language model], the mean embedding of each one's answer; for all its queries.
    """
    inputs = queries.flatten(0, 1).double()
    wanted = targets.repeat_interleave(queries.shape[1], dim=0).double()
    input_mean, wanted_mean = inputs.mean(dim=0), wanted.mean(dim=0)
    centred = inputs - input_mean
    scatter = centred.T @ centred
    ridge = RIDGE * scatter.diagonal().mean() * torch.eye(len(scatter), dtype=scatter.dtype, device=scatter.device)
    weight = GAIN * torch.linalg.solve(scatter + ridge, centred.T @ (wanted - wanted_mean)).T
    projection.weight.copy_(weight)
    projection.bias.copy_(wanted_mean - weight @ input_mean)
