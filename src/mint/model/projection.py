"""Where stage 2's fully-connected layer starts, and in which coordinates it learns (ours; the paper is silent).

A random layer gives the frozen language model soft prompts that mean nothing to it, and the first hundreds of steps go
into finding its embedding space. But where a good soft prompt lies is roughly known: at the language model's own
embeddings of the answer. Ridge regression of these embeddings on stage 1's query outputs has a closed form and takes
seconds, and leaves to the gradient what it is needed for: how the model reads them.

Query outputs differ far more from query to query than from clip to clip: after the quickstart's stage 1 their mean has
a norm of 4.6 and the variances about it run from 6 to 0.002, so that a step on a plain layer moves little but its bias.
So the layer's inputs are whitened, by a fixed affine map: the two maps are one fully-connected layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

RIDGE = 0.01
"""Share of the mean variance that is added to each direction's, so that noise stays small: the ridge."""


class Moments:
    """Weighted first and second moments of inputs and targets that come batch by batch, in float64.

    Args:
        width: D, width of the inputs.
        target_width: W, width of the targets.
        device: where they are summed.
    """

    def __init__(self, width: int, target_width: int, device: torch.device | str = "cpu") -> None:
        # A column of ones beside the inputs makes their sums a part of the products.
        self._gram = torch.zeros(width + 1, width + 1, dtype=torch.float64, device=device)
        self._cross = torch.zeros(width + 1, target_width, dtype=torch.float64, device=device)

    def add(self, inputs: Tensor, targets: Tensor, weights: Tensor) -> None:
        """Add N examples.

        Args:
            inputs: [N, D].
            targets: [N, W].
            weights: [N].
        """
        inputs = torch.cat([inputs.double(), inputs.new_ones(len(inputs), 1, dtype=torch.float64)], dim=1)
        weighted = inputs * weights.double()[:, None]
        self._gram += weighted.T @ inputs
        self._cross += weighted.T @ targets.double()

    @property
    def centre(self) -> Tensor:
        """The mean of the inputs, [D]."""
        return self._gram[-1, :-1] / self._gram[-1, -1]

    @property
    def target(self) -> Tensor:
        """The mean of the targets, [W]."""
        return self._cross[-1] / self._gram[-1, -1]

    @property
    def covariance(self) -> Tensor:
        """The covariance of the inputs, [D, D]."""
        return self._gram[:-1, :-1] / self._gram[-1, -1] - torch.outer(self.centre, self.centre)

    @property
    def cross_covariance(self) -> Tensor:
        """The covariance of inputs and targets, [D, W]."""
        return self._cross[:-1] / self._gram[-1, -1] - torch.outer(self.centre, self.target)


class WhitenedLinear(nn.Linear):
    """A linear layer whose inputs are first centred and made uncorrelated; before `align`, they are taken as they are.

    Args:
        width: D, width of the inputs.
        output_width: W, width of the outputs.
    """

    centre: Tensor
    """[D], the mean of the inputs."""
    whitening: Tensor
    """[D, D], a matrix that makes the centred inputs uncorrelated."""

    def __init__(self, width: int, output_width: int) -> None:
        super().__init__(width, output_width)
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("whitening", torch.eye(width))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [..., D] to [..., W]."""
        return super().forward(self.whitened(inputs))

    def whitened(self, inputs: Tensor) -> Tensor:
        """Return the inputs in the layer's own coordinates, [..., D]."""
        return (inputs - self.centre) @ self.whitening

    @torch.no_grad()
    def align(self, moments: Moments) -> None:
        """Choose the coordinates by the inputs' moments, and the weights by ridge regression of the targets on them."""
        covariance = moments.covariance
        ridge = RIDGE * covariance.diagonal().mean()
        regularised = covariance + ridge * torch.eye(len(covariance), dtype=torch.float64, device=covariance.device)

        # C = L L', so that inputs times the inverse of L' are white. Other roots of C would serve; this one is quick.
        lower = torch.linalg.cholesky(regularised)
        identity = torch.eye(len(lower), dtype=torch.float64, device=lower.device)
        whitening = torch.linalg.solve_triangular(lower.T, identity, upper=True)

        self.centre.copy_(moments.centre)
        self.whitening.copy_(whitening)
        # In white coordinates, ridge regression is the covariance of inputs and targets.
        self.weight.copy_((whitening.T @ moments.cross_covariance).T)
        self.bias.copy_(moments.target)
