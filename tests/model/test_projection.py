"""The least-squares start of the projection: scikit-learn's ridge on inputs whitened by NumPy; what it is for."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import Ridge

from mint.model.projection import GAIN, RIDGE, VARIANCE, WhitenedLinear, align_projection


def test_is_ridge_regression_on_white_inputs_with_its_deviations_multiplied() -> None:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(40, 3, 6, generator=generator) + torch.arange(6)
    targets = torch.randn(40, 5, generator=generator)
    layer = WhitenedLinear(6, 5)
    align_projection(layer, queries, targets)
    inputs, wanted = queries.flatten(0, 1).double().numpy(), targets.repeat_interleave(3, 0).double().numpy()
    variances, directions = np.linalg.eigh(np.cov(inputs.T, bias=True))
    scales = (variances + VARIANCE * variances.mean()) ** -0.5
    inputs = (inputs - inputs.mean(0)) @ (directions * scales) @ directions.T
    strength = RIDGE * (inputs - inputs.mean(0)).var(axis=0).mean() * len(inputs)
    reference = Ridge(alpha=strength).fit(inputs, wanted).predict(inputs)
    expected = wanted.mean(0) + GAIN * (reference - wanted.mean(0))
    np.testing.assert_allclose(layer(queries).detach().flatten(0, 1).numpy(), expected, atol=1e-4)


def test_queries_that_tell_the_answer_land_on_its_side() -> None:
    generator = torch.Generator().manual_seed(1)
    words = torch.randn(4, 16, generator=generator)
    answer = torch.arange(80) % 4
    clues = torch.randn(4, 12, generator=generator)
    queries = clues[answer][:, None] + 0.3 * torch.randn(80, 2, 12, generator=generator)
    layer = WhitenedLinear(12, 16)
    align_projection(layer, queries, words[answer])
    nearest = torch.cdist(layer(queries).mean(1) - words.mean(0), words - words.mean(0)).argmin(1)
    assert (nearest == answer).float().mean() > 0.95
