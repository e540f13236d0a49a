"""Where stage 2's fully-connected layer starts, and in which coordinates it learns (ours; the paper is silent).

A random layer gives the frozen language model soft prompts that mean nothing to it, and the first hundreds of steps go
into finding its embedding space. But where a good soft prompt lies is roughly known: at the language model's own
embedding of the answer. Ridge regression of these embeddings on stage 1's query outputs has a closed form and takes
seconds, and leaves to the gradient what it is needed for: how the model reads them.

Query outputs differ far more from query to query than from clip to clip: after the quickstart's stage 1 their mean has
a norm of 4.6 and the variances about it run from 6 to 0.002, so that a step on a plain layer moves little but its bias
for each query. So the layer's inputs are whitened, by a fixed affine map: the two maps are one fully-connected layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

RIDGE = 0.01
"""Strength of the ridge regression, as a share of the inputs' mean variance."""
VARIANCE = 0.01
"""Share of the mean variance that is added to each direction's before it is scaled to 1, so that noise stays small."""
GAIN = 2.0
"""What the fitted deviations from the mean are multiplied by: regression shrinks them, and small ones go unread."""


class WhitenedLinear(nn.Linear):
    """A linear layer whose inputs are first centred and made uncorrelated; before `whiten`, they are taken as they are.

    Args:
        width: D, width of the inputs.
        output_width: width of the outputs.
    """

    centre: Tensor
    """[D], the mean of the inputs."""
    whitening: Tensor
    """[D, D], the symmetric matrix that makes the centred inputs uncorrelated."""

    def __init__(self, width: int, output_width: int) -> None:
        super().__init__(width, output_width)
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("whitening", torch.eye(width))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [..., D] to [..., output width]."""
        return super().forward(self.whitened(inputs))

    def whitened(self, inputs: Tensor) -> Tensor:
        """Return the inputs in the layer's own coordinates, [..., D]."""
        return (inputs - self.centre) @ self.whitening

    @torch.no_grad()
    def whiten(self, inputs: Tensor) -> None:
        """Choose the coordinates by some inputs, [N, D]."""
        values = inputs.double()
        centred = values - values.mean(dim=0)
        variances, directions = torch.linalg.eigh(centred.T @ centred / len(values))  # [D] and [D, D]
        scales = (variances.clamp(min=0) + VARIANCE * variances.mean()).rsqrt()

        self.centre.copy_(values.mean(dim=0))
        self.whitening.copy_(directions * scales @ directions.T)


@torch.no_grad()
def align_projection(projection: WhitenedLinear, queries: Tensor, targets: Tensor) -> None:
    """Set a layer so that it maps query outputs to about the embeddings of their answers.

    Args:
        projection: from D to the width of the language model; its coordinates, weight and bias are overwritten.
        queries: [N, Q, D], the query outputs of N examples.
        targets: [N, Q, width of the language model], what the soft prompt of each example should be; or [N, width], one
            target for all queries of an example.
    """
    flat = queries.flatten(0, 1)  # [N Q, D]
    projection.whiten(flat)
    inputs = projection.whitened(flat).double()  # their mean is 0
    wanted = (targets[:, None] if targets.dim() == 2 else targets).double().expand(-1, queries.shape[1], -1)
    by_query = wanted.mean(dim=0)  # [Q, width], the same in all examples
    mean = by_query.mean(dim=0)

    # Regression shrinks what differs from example to example; what a query always says it finds by itself.
    deviations = (by_query - mean + GAIN * (wanted - by_query)).flatten(0, 1)  # [N Q, width]
    scatter = inputs.T @ inputs  # [D, D]
    ridge = RIDGE * scatter.diagonal().mean() * torch.eye(len(scatter), dtype=scatter.dtype, device=scatter.device)
    projection.weight.copy_(torch.linalg.solve(scatter + ridge, inputs.T @ deviations).T)
    projection.bias.copy_(mean)
