from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from fedsec.errors import MetricError
from fedsec.metrics.frechet import frechet_distance
from fedsec.types import Features
from tests.metrics.samples import gaussian


def by_sqrtm(real: Features, fake: Features) -> float:
    """The textbook formula, as pytorch-fid computes it."""
    shift = real.mean(axis=0) - fake.mean(axis=0)
    a, b = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    return float(shift @ shift + np.trace(a) + np.trace(b) - 2 * np.trace(sqrtm(a @ b).real))


def exactly(mean: Features, covariance: Features, n: int, *address: str) -> Features:
    """n samples whose mean and unbiased covariance are exactly those given."""
    d = len(covariance)
    raw = gaussian(n, d, *address)
    raw = raw - raw.mean(axis=0)
    white = np.linalg.qr(raw)[0] * np.sqrt(n - 1)
    return np.asarray(white @ np.linalg.cholesky(covariance).T + mean)


@pytest.mark.parametrize(("n", "d"), [(200, 10), (11, 10), (10, 10), (9, 10), (3, 50)])
def test_is_zero_for_a_sample_and_itself(n: int, d: int) -> None:
    sample = gaussian(n, d, mixed=True)
    assert frechet_distance(sample, sample) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(("m", "n", "d"), [(200, 150, 10), (200, 8, 10), (12, 200, 10)])
def test_agrees_with_sqrtm(m: int, n: int, d: int) -> None:
    real, fake = gaussian(m, d, "a", mixed=True), gaussian(n, d, "b", shift=0.5, mixed=True)
    assert frechet_distance(real, fake) == pytest.approx(by_sqrtm(real, fake), rel=1e-5)


def test_agrees_with_the_closed_form_of_commuting_covariances() -> None:
    a, b = np.array([1.0, 4.0, 9.0]), np.array([4.0, 1.0, 0.25])
    real, fake = exactly(np.zeros(3), np.diag(a), 50, "a"), exactly(np.array([1.0, 2.0, 2.0]), np.diag(b), 70, "b")
    expected = 9 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-10)


def test_agrees_with_the_closed_form_of_non_commuting_covariances() -> None:
    a = np.array([[2.0, 0.5], [0.5, 1.0]])
    b = np.array([[1.0, -0.7], [-0.7, 3.0]])
    cross = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))  # tr sqrt of a 2 x 2 matrix
    real, fake = exactly(np.zeros(2), a, 30, "a"), exactly(np.zeros(2), b, 30, "b")
    assert frechet_distance(real, fake) == pytest.approx(np.trace(a) + np.trace(b) - 2 * cross, rel=1e-10)


@pytest.mark.parametrize(("m", "n", "d"), [(60, 40, 10), (8, 9, 20), (8, 60, 20)])
def test_is_symmetric(m: int, n: int, d: int) -> None:
    real, fake = gaussian(m, d, "a", mixed=True), gaussian(n, d, "b", shift=1)
    assert frechet_distance(real, fake) == pytest.approx(frechet_distance(fake, real), rel=1e-10)


@pytest.mark.parametrize(("n", "d"), [(100, 10), (8, 20)])
def test_a_shift_adds_its_squared_length(n: int, d: int) -> None:
    sample = gaussian(n, d, mixed=True)
    assert frechet_distance(sample, sample + 0.5) == pytest.approx(0.25 * d, rel=1e-9)


@pytest.mark.parametrize(("n", "d"), [(100, 10), (8, 20)])
def test_scales_with_the_square_and_ignores_rotation(n: int, d: int) -> None:
    real, fake = gaussian(n, d, "a"), gaussian(n, d, "b", shift=0.2, mixed=True)
    turn = np.linalg.qr(gaussian(d, d, "turn"))[0]
    plain = frechet_distance(real, fake)
    assert frechet_distance(3 * real @ turn, 3 * fake @ turn) == pytest.approx(9 * plain, rel=1e-9)


def test_constant_samples_differ_by_their_means_alone() -> None:
    assert frechet_distance(np.zeros((5, 3)), np.full((4, 3), 2.0)) == pytest.approx(12)


def test_says_everything_that_is_wrong_at_once() -> None:
    bad = gaussian(1, 4)
    bad[0, 0] = np.nan
    with pytest.raises(MetricError, match=r"1 real images: needs at least 2; 1 of 1 real .*; 4 real against 5"):
        frechet_distance(bad, gaussian(9, 5))
