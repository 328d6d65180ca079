"""Controls on activations: noise of the deviation asked for, and distance correlation by its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform

from fedsec.defences.activations import CONTROLS, Control, distance_correlation, noisy
from fedsec.errors import ConfigError


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def by_definition(x: np.ndarray, z: np.ndarray) -> float:
    """Entry by entry."""
    n = len(x)
    a, b = squareform(pdist(x.reshape(n, -1))), squareform(pdist(z.reshape(n, -1)))

    def covariance(a: np.ndarray, b: np.ndarray) -> float:
        total = 0.0
        for i in range(n):
            for j in range(n):
                left = a[i, j] - a[i].mean() - a[:, j].mean() + a.mean()
                total += left * (b[i, j] - b[i].mean() - b[:, j].mean() + b.mean())
        return total / n**2

    return float(np.sqrt(covariance(a, b) / np.sqrt(covariance(a, a) * covariance(b, b))))


def test_distance_correlation_is_its_definition() -> None:
    x, z = draw(9, 3, 4, 4), draw(9, 2, 2, 2, seed=1)
    z = z + x[:, :2, :2, :2]
    assert float(distance_correlation(x, z)) == pytest.approx(by_definition(x.numpy(), z.numpy()), rel=1e-9)


def test_distance_correlation_laws() -> None:
    x = draw(40, 1)
    assert float(distance_correlation(x, 3 - 2 * x)) == pytest.approx(1)
    wide, other = draw(20, 6), draw(20, 4, seed=2)
    turned = torch.linalg.qr(draw(6, 6, seed=3))[0]
    value = float(distance_correlation(wide, other))
    assert float(distance_correlation(other, wide)) == pytest.approx(value)
    assert float(distance_correlation(5 * wide @ turned + 1, other)) == pytest.approx(value)
    assert 0 <= value <= 1
    assert float(distance_correlation(x, torch.ones_like(x))) == 0


def test_independent_numbers_are_near_zero_and_a_square_is_not() -> None:
    x = draw(1000, 1)
    assert float(distance_correlation(x, draw(1000, 1, seed=1))) < 0.1
    assert abs(float(torch.corrcoef(torch.cat([x, x**2], dim=1).T)[0, 1])) < 0.15
    assert float(distance_correlation(x, x**2)) > 0.4


def test_the_gradient_is_right_and_finite_for_equal_images() -> None:
    z = draw(5, 3, seed=1).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda z: distance_correlation(draw(5, 2), z), [z])
    twins = torch.cat([z[:1], z]).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(distance_correlation(draw(6, 2), twins), twins)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0


def test_the_penalty_can_be_trained_down() -> None:
    x = draw(16, 4)
    z = (x + 0.1 * draw(16, 4, seed=1)).requires_grad_(True)
    adam, start = torch.optim.Adam([z], 0.1), 0.0
    for step in range(60):
        loss = Control(decorrelation=2.0).penalty(x, z)
        start = start if step else float(loss.detach())
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    assert 1.8 < start < 2
    assert float(loss.detach()) < 0.7 * start


@pytest.mark.parametrize("deviation", [0.1, 1.0, 3.0])
def test_noise_hits_its_deviation(deviation: float) -> None:
    z = (5 + 2 * draw(16, 8, 16, 16)).requires_grad_(True)
    noise = noisy(z, deviation, rng(1)) - z
    assert float(noise.detach().std()) == pytest.approx(deviation * float(z.detach().std()), rel=0.02)
    assert abs(float(noise.detach().mean())) < 0.05 * deviation
    (gradient,) = torch.autograd.grad(noisy(z, deviation, rng(1)).sum(), z)
    assert torch.equal(gradient, torch.ones_like(z))


def test_a_control_does_what_it_says_alone() -> None:
    z = draw(4, 2, 3, 3)
    assert torch.equal(CONTROLS["none"].sent(z, rng()), z)
    assert torch.equal(CONTROLS["no-peek"].sent(z, rng()), z)
    assert not torch.equal(CONTROLS["noise"].sent(z, rng()), z)
    assert float(CONTROLS["noise"].penalty(z, z)) == float(CONTROLS["none"].penalty(z, z)) == 0
    assert torch.equal(noisy(z, 1.0, rng(4)), noisy(z, 1.0, rng(4)))
    with pytest.raises(ConfigError, match="below 0"):
        Control(noise=-0.1)
