from __future__ import annotations

import numpy as np
import pytest

from fedsec.metrics import kid as module
from fedsec.metrics.kid import kid_distance
from fedsec.types import Features
from tests.metrics.samples import gaussian


def by_definition(x: Features, y: Features) -> float:
    """Binkowski et al. 2018, eq. 4, pair by pair."""

    def kernel(a: Features, b: Features) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    m, n = len(x), len(y)
    xx = sum(kernel(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    yy = sum(kernel(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return xx + yy - 2 * sum(kernel(a, b) for a in x for b in y) / (m * n)


def test_is_the_u_statistic() -> None:
    x, y = gaussian(7, 4, "x"), gaussian(9, 4, "y", shift=0.5)
    assert kid_distance(x, y) == pytest.approx(by_definition(x, y), rel=1e-10)


def test_is_unbiased_around_zero() -> None:
    draws = np.array([kid_distance(gaussian(40, 8, "x", i), gaussian(30, 8, "y", i)) for i in range(200)])
    error = draws.std(ddof=1) / np.sqrt(len(draws))
    assert abs(draws.mean()) < 3 * error
    assert 0.3 < (draws < 0).mean() < 0.75


def test_blocks_change_the_memory_and_not_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = gaussian(50, 4, "x"), gaussian(33, 4, "y")
    whole = kid_distance(x, y)
    monkeypatch.setattr(module, "BLOCK", 7)
    assert kid_distance(x, y) == pytest.approx(whole, rel=1e-9)


def test_is_symmetric() -> None:
    x, y = gaussian(50, 4, "x"), gaussian(33, 4, "y", shift=1)
    assert kid_distance(x, y) == pytest.approx(kid_distance(y, x), rel=1e-10)
