"""The least-squares start of the projection: NumPy's moments, scikit-learn's ridge on them; what it is for."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from mint.model.projection import RIDGE, Moments, WhitenedLinear


def moments_of(inputs: Tensor, targets: Tensor, weights: Tensor) -> Moments:
    """The moments of examples that come in batches of seven."""
    moments = Moments(inputs.shape[1], targets.shape[1])
    for rows in torch.arange(len(inputs)).split(7):
        moments.add(inputs[rows], targets[rows], weights[rows])
    return moments


def examples() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 6, generator=generator) @ torch.randn(6, 6, generator=generator) + torch.arange(6)
    return inputs, torch.randn(60, 5, generator=generator), torch.rand(60, generator=generator) + 0.1


def test_moments_are_those_of_all_examples_together() -> None:
    inputs, targets, weights = examples()
    moments = moments_of(inputs, targets, weights)
    both = np.concatenate([inputs.double().numpy(), targets.double().numpy()], axis=1)
    covariance = np.cov(both.T, aweights=weights.double().numpy(), bias=True)
    np.testing.assert_allclose(moments.centre, np.average(both[:, :6], axis=0, weights=weights.double()), atol=1e-6)
    np.testing.assert_allclose(moments.target, np.average(both[:, 6:], axis=0, weights=weights.double()), atol=1e-6)
    np.testing.assert_allclose(moments.covariance, covariance[:6, :6], atol=1e-6)
    np.testing.assert_allclose(moments.cross_covariance, covariance[:6, 6:], atol=1e-6)


def test_the_layer_is_ridge_regression() -> None:
    inputs, targets, weights = examples()
    layer = WhitenedLinear(6, 5)
    layer.align(moments_of(inputs, targets, weights))
    covariance = np.cov(inputs.double().numpy().T, aweights=weights.double().numpy(), bias=True)
    strength = RIDGE * np.trace(covariance) / 6 * weights.double().sum().item()
    reference = Ridge(alpha=strength).fit(inputs.double(), targets.double(), sample_weight=weights.double())
    np.testing.assert_allclose(layer(inputs).detach(), reference.predict(inputs.double()), atol=1e-4)


def test_its_inputs_are_white_and_it_is_one_layer() -> None:
    inputs, targets, weights = examples()
    layer = WhitenedLinear(6, 5)
    plain = torch.nn.functional.linear(inputs, layer.weight, layer.bias)
    torch.testing.assert_close(layer(inputs), plain)  # before it is aligned
    layer.align(moments_of(inputs, targets, torch.ones_like(weights)))
    white = layer.whitened(inputs)
    torch.testing.assert_close(white.mean(dim=0), torch.zeros(6), atol=1e-4, rtol=0)
    variances = torch.linalg.eigvalsh(inputs.T.cov(correction=0))
    expected = variances / (variances + RIDGE * variances.mean())
    torch.testing.assert_close(torch.linalg.eigvalsh(white.T.cov(correction=0)), expected, atol=1e-3, rtol=0)
    weight = layer.weight @ layer.whitening.T
    folded = torch.nn.functional.linear(inputs, weight, layer.bias - weight @ layer.centre)
    torch.testing.assert_close(layer(inputs), folded, atol=1e-4, rtol=1e-4)


def test_directions_without_variance_stay_small() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = WhitenedLinear(4, 2)
    inputs = torch.randn(100, 4, generator=generator) * torch.tensor([1.0, 1.0, 1e-6, 0.0])
    layer.align(moments_of(inputs, torch.randn(100, 2, generator=generator), torch.ones(100)))
    assert layer.whitened(inputs)[:, 2:].abs().max() < 1e-4
    assert layer.whitening.isfinite().all()


def test_queries_that_tell_the_answer_land_on_its_side() -> None:
    generator = torch.Generator().manual_seed(1)
    words = torch.randn(4, 16, generator=generator)
    answer = torch.arange(80) % 4
    clues = torch.randn(4, 12, generator=generator)
    inputs = clues[answer] + 0.3 * torch.randn(80, 12, generator=generator)
    layer = WhitenedLinear(12, 16)
    layer.align(moments_of(inputs, words[answer], torch.ones(80)))
    nearest = torch.cdist(layer(inputs) - words.mean(0), words - words.mean(0)).argmin(1)
    assert (nearest == answer).float().mean() > 0.95
