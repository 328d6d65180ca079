"""Kernel inception distance (Binkowski et al. 2018), on whichever features the run's Fréchet distance uses."""

from __future__ import annotations

from fedsec.metrics.samples import measured, usable
from fedsec.types import Features, Score

BLOCK = 1000
"""Rows of the kernel matrix held at once; changes memory, not the answer."""


def kid_distance(real: Features, fake: Features) -> float:
    """Unbiased squared MMD with the kernel (x.y / d + 1)^3 (sec. 4). Around 0, and below it half of the time, when
    both samples come from one distribution.

    Departure: the source averages over random subsets of 1,000; we take the whole U-statistic, summed block by block,
    which has the same mean, less variance, no seed, and does not depend on the order of rows.
    Errors: MetricError for fewer than 2 rows, unequal d or non-finite values.
    """
    real, fake = usable(real, fake, least=2)
    m, n = len(real), len(fake)
    within_real = (_kernel_sum(real, real) - _kernel_diagonal(real)) / (m * (m - 1))
    within_fake = (_kernel_sum(fake, fake) - _kernel_diagonal(fake)) / (n * (n - 1))
    return within_real + within_fake - 2 * _kernel_sum(real, fake) / (m * n)


def kid(real: Features, fake: Features) -> Score:
    """``kid_distance`` as a Score; lower is better."""
    return measured("kid", "lower", kid_distance, real, fake)


def _kernel_sum(x: Features, y: Features) -> float:
    total = 0.0
    for start in range(0, len(x), BLOCK):
        base = x[start : start + BLOCK] @ y.T / x.shape[1] + 1
        total += float((base * base * base).sum())
    return total


def _kernel_diagonal(x: Features) -> float:
    return float((((x**2).sum(axis=1) / x.shape[1] + 1) ** 3).sum())
