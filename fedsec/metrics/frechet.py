"""The Fréchet distance between two Gaussians fitted to features (Dowson & Landau 1982; Heusel et al. 2017, FID)."""

from __future__ import annotations

from functools import partial

import numpy as np

from fedsec.metrics.samples import measured, usable
from fedsec.types import Features, Score


def frechet_distance(real: Features, fake: Features) -> float:
    """||mu_r - mu_f||^2 + tr(A) + tr(B) - 2 tr((A B)^(1/2)), A and B the unbiased covariances. Never negative.

    Guarantee: symmetric; independent of the order of rows; 0 for a sample and itself; a shift adds its squared length.
    Exact, without ``sqrtm`` of a non-symmetric product: with centred rows X, Y over sqrt(n - 1), A = X'X and B = Y'Y,
    so tr((A B)^(1/2)) is the sum of singular values of X Y'. Where n > d, X is replaced by the R of its QR
    factorisation, which has the same X'X. Works on rank-deficient covariances too (n <= d).
    Biased upwards for small n, as every estimate of it: compare numbers of equal n only.
    Errors: MetricError for fewer than 2 rows, unequal d or non-finite values.

    >>> real = np.array([[0.0], [1.0], [2.0]])
    >>> round(frechet_distance(real, real + 3), 6)
    9.0
    """
    real, fake = usable(real, fake, least=2)
    x, y = _factor(real), _factor(fake)
    shift = real.mean(axis=0) - fake.mean(axis=0)
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return max(0.0, float(shift @ shift + (x**2).sum() + (y**2).sum() - 2 * cross))


def frechet(name: str, real: Features, fake: Features) -> Score:
    """The distance under its protocol's name: ``fid`` for Inception's features only, else ``frechet-domain``."""
    return measured(name, "lower", frechet_distance, real, fake)


fid = partial(frechet, "fid")
frechet_domain = partial(frechet, "frechet-domain")


def _factor(sample: Features) -> Features:
    """(min(n, d), d) F with F'F the unbiased covariance of ``sample`` (n, d)."""
    centred = (sample - sample.mean(axis=0)) / np.sqrt(len(sample) - 1)
    if len(sample) <= sample.shape[1]:
        return np.asarray(centred, np.float64)
    return np.asarray(np.linalg.qr(centred, mode="r"), np.float64)
