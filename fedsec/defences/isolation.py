"""How far the highest generator losses stand apart, and how far honest ones do: FedDetect's forest, calibrated.

An isolation forest separates a far point in few random cuts (Liu et al. 2008). Losses are one number a client, and in
one dimension the forest's mean path length has a closed form: a uniform random cut falls in the gap ``g_j`` before any
other of the gaps between ``x_j`` and ``x`` with probability ``g_j / (x - x_j)``, so infinitely many full-depth trees
cut ``x`` from what lies below it in

    depth(x) = sum over points x_j below x of (x_{j+1} - x_j) / (x - x_j)            (1 = first cut, always >= 1)

cuts on average: no seed, no sampling noise, no dependence on the order of clients. Departures from scikit-learn's
forest, each the cure of a measured fault (docs/feddetect.md):
- only cuts *below* a point count, so a low loss is never suspicious and colluders above a point do not mask it;
- ``REFERENCES`` points stand around the clients' median, as far apart as honest clients are (``spread_at``, shrunk
  towards the spread of the clients below); identical losses are then ordinary, and four clients are judged by more than
  three others;
- the threshold of depth is the quantile that honest clients reach at the asked-for rate, by Monte Carlo, not 0.5.

Limit: few clients do not show their own spread, so the rate holds where it is about ``spread_at``; honest clients twice
as far apart are flagged at 5 times the rate (n = 4), 3 to 4 times (10), 1 to 2 times (16), less than the rate from 30
on (measured on the nulls).
Losses skewed to the right break the nulls: exponential ones of that spread are flagged at up to 0.03.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
from scipy.special import ndtri

from fedsec.seeds import stream
from fedsec.types import Vector

SPREAD = 0.08
"""Standard deviation of honest clients' smoothed relative losses at round 30; measured 0.01-0.13 in clean trials."""
DRIFT = (5, 60)
"""Rounds between which that grows with the square root of the round: local discriminators drift apart like walkers.
Without it an honest client in one of ten clean trials was ground down after round 50."""
PRIOR = 12
"""How many clients' worth of evidence the measured spread is; the clients of the round outweigh it from 13 on."""
REFERENCES = cast(Vector, ndtri((np.arange(8) + 0.5) / 8))
"""Normal quantiles, in units of the spread."""
NULLS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Vector]] = {
    "student": lambda rng, shape: rng.standard_t(5, shape) * np.sqrt(3 / 5),
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "uniform": lambda rng, shape: rng.uniform(-np.sqrt(3), np.sqrt(3), shape),
}
"""How honest clients' persistent losses may be distributed, each with variance 1."""
KNOTS = (1, 2, 3, 4, 6, 8)
"""Ranks that are simulated."""
DEEPEST = 2.5
"""No threshold is above this depth: groups flagged by mistake would be large ones."""
FEWEST = 4
"""With fewer clients the paper's gate |flags| < floor(n/2) forbids any flag."""


@dataclass(frozen=True)
class Threshold:
    """For the k-th highest of n clients, k = 1 .. n//2 - 1: flag at a depth of at most ``depth[k-1]``.

    ``scale[k-1]`` undoes how much the sum of squares of the n-k clients below shrinks by leaving the k highest out.
    """

    depth: Vector
    scale: Vector


@dataclass(frozen=True)
class Isolation:
    """Per client, in the order given: is it flagged, its depth, and its margin (threshold / depth; >= 1 is flagged)."""

    flagged: tuple[bool, ...]
    margin: tuple[float, ...]


def spread_at(number: int) -> float:
    """The spread of honest clients in round ``number`` (1, 2, ...): 0.033 up to round 5, 0.08 at 30, 0.113 from 60."""
    return SPREAD * math.sqrt(min(max(number, DRIFT[0]), DRIFT[1]) / 30)


def isolate(values: Vector, false_flags: float, spread: float = SPREAD) -> Isolation:
    """Flag the clients whose value a forest isolates from those below sooner than it would honest clients.

    ``values``: (n,) finite, higher = more suspicious; honest ones have about the standard deviation ``spread``.
    Ranks k = 1 .. n//2 - 1 are tested from the top; when the k-th highest stands apart, it and all above it are
    flagged, so at most n//2 - 1 are (the paper's gate; where ties would flag more, nobody is). Guarantee: over honest
    clients drawn from a null, the expected share of flagged clients is at most ``false_flags`` up to Monte Carlo error;
    equal values get equal verdicts; permuting ``values`` permutes the result. n < 4 flags nobody.
    """
    n = len(values)
    if n < FEWEST:
        return Isolation((False,) * n, (0.0,) * n)
    limits = thresholds(n, false_flags)
    rows = np.sort(values / spread)[None, :]
    ranks = range(1, len(limits.depth) + 1)
    margin = np.array([limits.depth[k - 1] / _depth(rows, k, limits.scale[k - 1])[0] for k in ranks])
    lowest_first = np.maximum.accumulate(margin[::-1])
    tested = rows[0, -len(margin) :]
    place = np.searchsorted(tested, values / spread, side="right")
    margins = np.where(place > 0, lowest_first[np.maximum(place - 1, 0)], 0.0)
    flagged = margins >= 1
    if flagged.sum() >= n // 2:  # ties at the lowest flagged value break the paper's gate
        flagged = np.zeros(n, dtype=bool)
    return Isolation(tuple(map(bool, flagged)), tuple(map(float, margins)))


@lru_cache(maxsize=64)
def thresholds(n: int, false_flags: float) -> Threshold:
    """The thresholds for n >= 4 clients: the lowest over the nulls of what honest clients reach at the asked rate.

    A flag at rank k hits k clients; each of the K ranks gets the same share of the n * false_flags clients that may be
    flagged: P(rank k) = n * false_flags / (K * k). Ranks beyond KNOTS share the last knot's threshold, and none is
    above DEEPEST: there the honest depth grows with k, a true gap's does not. Deterministic; computed once a process
    in about 0.2 s.
    """
    last = n // 2 - 1
    knots = [k for k in KNOTS if k <= last]
    lowest = np.full(len(knots), DEEPEST)
    scale = np.ones(len(knots))
    for name, null in NULLS.items():
        draws = int(np.clip(250_000 // n, 2500, 20_000))
        rows = np.sort(null(stream(0, "isolation-threshold", n, name), (draws, n)), axis=1)
        for at, k in enumerate(knots):
            if name == "student":  # the first: one scale for all nulls
                scale[at] = (n - k - 1) / float(_squares(rows[:, :-k]).mean())
            depth = _depth(rows, k, scale[at])
            lowest[at] = min(lowest[at], _low_quantile(depth, min(0.5, n * false_flags / (last * k))))
    at_log, every = np.log(knots), np.log(np.arange(1, last + 1))
    return Threshold(np.interp(every, at_log, lowest), np.interp(every, at_log, scale))


def _low_quantile(depth: Vector, rate: float) -> float:
    """The quantile of the simulated depths; beyond the last 25 draws, along the tail's line in normal scores."""
    inner, outer = 0.05, 25 / len(depth)
    if rate >= outer:
        return float(np.quantile(depth, rate))
    near, far = np.log(np.quantile(depth, [inner, outer]) - 1)
    slope = (near - far) / (ndtri(inner) - ndtri(outer))
    return float(1 + np.exp(far + slope * (ndtri(rate) - ndtri(outer))))


def _squares(below: Vector) -> Vector:
    total: Vector = np.square(below - below.mean(axis=1, keepdims=True)).sum(axis=1)
    return total


def _depth(rows: Vector, rank: int, scale: float) -> Vector:
    """(draws, n) ascending, in measured spreads -> (draws,) depth of the rank-th highest among those below it."""
    below, x = rows[:, :-rank], rows[:, -rank, None]
    spread = np.sqrt((PRIOR + scale * _squares(below)) / (PRIOR + below.shape[1] - 1))
    references = np.median(rows, axis=1)[:, None] + spread[:, None] * REFERENCES
    points = np.sort(np.concatenate([below, references], axis=1), axis=1)
    points = np.minimum(points, x)  # a reference above x makes it ordinary: one more cut each
    distance = x - points
    gap = np.diff(points, axis=1, append=x)
    share = np.divide(gap, distance, out=np.ones_like(gap), where=distance > 0)  # so does a tie
    depth: Vector = share.sum(axis=1)
    return depth
