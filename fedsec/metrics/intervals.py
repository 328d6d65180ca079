"""Means over seeds with a 95 % t-interval, and paired comparisons of two arms over the same seeds.

Missing values (NaN) never vanish: they stay in ``values``, are counted, and carry their reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from fedsec.types import Score, Vector

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """``mean`` over the finite ``values`` with its 95 % interval; NaN bounds below two values, NaN mean at none."""

    mean: float
    low: float
    high: float
    values: tuple[float, ...]
    reasons: tuple[str, ...] = ()

    @property
    def missing(self) -> int:
        return sum(not math.isfinite(value) for value in self.values)

    def to_json(self) -> dict[str, object]:
        """{"mean", "ci95": [lo, hi], "values": [one a seed]}; what is not a number is None (JSON has no NaN).

        With missing values also "missing" (how many) and "reasons".
        """
        row: dict[str, object] = {
            "mean": _or_none(self.mean),
            "ci95": [_or_none(self.low), _or_none(self.high)],
            "values": [_or_none(value) for value in self.values],
        }
        return {**row, "missing": self.missing, "reasons": list(self.reasons)} if self.missing else row


def mean_interval(values: Sequence[float], reasons: Sequence[str] = ()) -> Interval:
    """Student's interval of the mean over seeds; equal values give an interval of no width.

    >>> found = mean_interval([1.0, 2.0, 3.0])
    >>> round(found.mean, 2), round(found.low, 2), round(found.high, 2)
    (2.0, -0.48, 4.48)
    """
    finite = np.array([value for value in values if math.isfinite(value)], np.float64)
    mean, half = _mean_and_half(finite)
    return Interval(mean, mean - half, mean + half, tuple(values), tuple(dict.fromkeys(r for r in reasons if r)))


def by_seed(groups: Sequence[Sequence[float]], reasons: Sequence[str] = ()) -> Interval:
    """Student's interval over seeds of values that come in one group a seed: sites, images or rounds of one model.

    A seed counts once, by the mean of its finite values: what shares a model is not independent, and an interval over
    all of them would be too narrow. 18 sites of three seeds have 2 degrees of freedom. ``values``: the seeds' means,
    NaN for a seed without a value. One seed gives no interval, however many values it has.
    """
    finite = [[value for value in group if math.isfinite(value)] for group in groups]
    return mean_interval([float(np.mean(group)) if group else math.nan for group in finite], reasons)


def summarise(scores: Sequence[Score]) -> Interval:
    """One score of one arm over its seeds."""
    assert len({score.name for score in scores}) == 1, [score.name for score in scores]
    return mean_interval([score.value for score in scores], [score.reason for score in scores])


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Interval of ours - theirs, seed by seed: the spread that both arms share over seeds cancels out."""
    pairs = list(zip(ours, theirs, strict=True))
    absent = ["a seed lacks one of its two values"] if any(not math.isfinite(a - b) for a, b in pairs) else []
    return mean_interval([a - b for a, b in pairs], absent)


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Geometric mean of ours / theirs, seed by seed, with the t-interval of its logarithm.

    A pair with a value that is missing, zero or negative has no ratio: it is NaN in ``values`` and counted.
    """
    ratios = [a / b if a > 0 and b > 0 else math.nan for a, b in zip(ours, theirs, strict=True)]
    absent = ["a ratio needs two positive values"] if any(not math.isfinite(r) for r in ratios) else []
    mean, half = _mean_and_half(np.log([ratio for ratio in ratios if math.isfinite(ratio)]))
    low, middle, high = (float(np.exp(x)) for x in (mean - half, mean, mean + half))
    return Interval(middle, low, high, tuple(ratios), tuple(absent))


def _mean_and_half(finite: Vector) -> tuple[float, float]:
    """Mean and half the width of its interval; NaN where there are too few values."""
    n = len(finite)
    if n == 0:
        return math.nan, math.nan
    if n == 1:
        return float(finite[0]), math.nan
    factor = float(student.ppf((1 + LEVEL) / 2, n - 1))
    return float(finite.mean()), factor * float(finite.std(ddof=1)) / math.sqrt(n)


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
