"""From updates to one update. Pure functions on float64 deltas (n, d); the table is the index.

Guarantees, for every entry: the same bits for the same input on one machine and number of threads, and the same bits
in whatever order the clients stand (ties go by value, see ``Ordered``); extra memory well below that of the updates;
no division by zero for zero, equal or single updates. Values must be finite: replies were checked before they got here.
A RobustnessError says that a rule cannot withstand f of n clients (NEEDS) or lacks what it needs. All but
``norm_clipping``, ``centred_clipping`` (they pull to a fixed point), ``foolsgold`` and ``fltrust`` (they read
directions) move with a shift of all updates; all scale with them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import logit

from fedsec.config.added import Table
from fedsec.defences.geometry import (
    Matrix,
    Ordered,
    cosines,
    shrinking,
    squared_distances,
    squared_distances_to,
    weighted_sum,
    window_mean,
)
from fedsec.errors import RobustnessError
from fedsec.types import Indices, Vector
from fedsec.weights import Updates

WEISZFELD = 100
"""Steps to the geometric median. The source takes a few, since each asks all clients; here one costs n^2."""
SMOOTHING = 1e-6
"""Distances to the centre count as at least this part of a typical one; in the source's code as 1e-6 or 1e-5 itself."""
CLIPPINGS = 5
"""Inner iterations of centred clipping."""
ALIKE = 1e-9
"""FoolsGold: a diversity below this is rounding."""


@dataclass(frozen=True)
class Situation:
    """What a reducer may know beside the updates.

    ``n_byzantine``: the f it must withstand. ``previous``: (d,) last round's reduced update, zeros before round 1;
    centred clipping alone reads it. ``totals``: (n, d) each client's updates summed over all rounds so far, this one
    included; FoolsGold alone reads it. ``root``: (d,) the update the server made on its own clean root images, None
    without.
    """

    n_byzantine: int = 0
    previous: Vector = field(default_factory=lambda: np.zeros(0))
    totals: Updates = field(default_factory=lambda: np.zeros((0, 0)))
    root: Vector | None = None


@dataclass(frozen=True)
class Reduced:
    """``update``: (d,). ``shares``: (n,), >= 0, sum 1: how much each client's update counts in it.

    Coordinate-wise rules: the mean over coordinates, where the clients whose value lies in the kept range have equal
    parts. Clipping rules: proportional to the factor a client's update is multiplied by.
    """

    update: Vector
    shares: Vector


Reducer = Callable[[Updates, Situation], Reduced]

NEEDS: dict[str, tuple[int, int]] = {
    "median": (2, 1),
    "trimmed-mean": (2, 1),
    "krum": (2, 3),
    "multi-krum": (2, 3),
    "bulyan": (4, 3),
    "geometric-median": (2, 1),
    "centred-clipping": (2, 1),
    "norm-clipping": (2, 1),
}
"""Rule -> (a, b): it takes n >= a f + b updates. In the others f plays no part."""


def needs(rule: str) -> tuple[int, int]:
    """The same of any rule; one that another package adds says it as an attribute ``needs`` of its function."""
    if rule in NEEDS:
        return NEEDS[rule]
    told: tuple[int, int] = getattr(REDUCERS[rule], "needs", (0, 1))
    return told


def check(rule: str, n: int, n_byzantine: int) -> None:
    """Raise a RobustnessError when ``rule`` cannot withstand ``n_byzantine`` of ``n`` updates."""
    assert n_byzantine >= 0, n_byzantine
    times, plus = needs(rule)
    least = times * n_byzantine + plus
    if n < least:
        raise RobustnessError(
            f"{rule}: {n} updates, {n_byzantine} of them byzantine: needs n >= {times} f + {plus} = {least}; "
            "ask more clients or lower defence.byzantine (defence.mixing = 'bucketing' halves n)"
        )


def mean(updates: Updates, weights: Vector) -> Vector:
    """Weighted mean (McMahan et al. 2017). ``weights``: (n,), non-negative, sum 1; weight 0 leaves a row out.

    The sum runs in row order in float64, so equal inputs give equal bits.
    """
    assert weights.shape == (len(updates),), (weights.shape, len(updates))
    assert abs(float(weights.sum()) - 1) < 1e-9, weights
    return weighted_sum(list(updates), weights)


def uniform_mean(updates: Updates, situation: Situation) -> Reduced:
    """The mean. Withstands nobody: one client moves it anywhere."""
    return _weighted(Ordered.of(updates), np.full(len(updates), 1 / len(updates)))


def median(updates: Updates, situation: Situation) -> Reduced:
    """Coordinate-wise median (Yin et al. 2018, Def. 1); of an even number, the mean of the two in the middle.

    >>> median(np.array([[0.0, 1.0], [1.0, 2.0], [99.0, -99.0]]), Situation(1)).update
    array([1., 1.])
    """
    n = len(updates)
    check("median", n, situation.n_byzantine)
    return trimmed_mean(updates, replace(situation, n_byzantine=(n - 1) // 2))


def trimmed_mean(updates: Updates, situation: Situation) -> Reduced:
    """Coordinate-wise mean without the f largest and f smallest values (Yin et al. 2018, Def. 2 with beta = f/n).

    >>> trimmed_mean(np.array([[0.0], [1.0], [3.0], [99.0]]), Situation(1)).update
    array([2.])
    """
    n, f = len(updates), situation.n_byzantine
    check("trimmed-mean", n, f)
    return Reduced(*window_mean(list(updates), n - 2 * f, lambda columns: np.full(len(columns), f)))


def krum(updates: Updates, situation: Situation) -> Reduced:
    """The update whose n - f - 2 nearest others are nearest (Blanchard et al. 2017): least sum of squared distances.

    Of equal sums the first update by value; the source takes the lowest client number.

    >>> krum(np.array([[0.0], [1.0], [2.0], [2.5], [99.0]]), Situation(1)).shares
    array([0., 0., 1., 0., 0.])
    """
    check("krum", len(updates), situation.n_byzantine)
    return _best(updates, situation.n_byzantine, 1)


def multi_krum(updates: Updates, situation: Situation) -> Reduced:
    """Mean of the m updates with the lowest Krum scores (Blanchard et al. 2017), scored once, m = n - f - 2.

    Departures: the source picks one after the other and has no proof for scoring once; reproductions take m = n - f, El
    Mhamdi et al. 2019 (arXiv 1905.04374) and their code this m.
    """
    n, f = len(updates), situation.n_byzantine
    check("multi-krum", n, f)
    return _best(updates, f, n - f - 2)


def bulyan(updates: Updates, situation: Situation) -> Reduced:
    """Bulyan of Krum (El Mhamdi et al. 2018): Krum picks n - 2f updates one after the other, each from those left;
    a coordinate is the mean of their n - 4f values next to their median (of two equally near, the lower).

    Departure: of r updates left Krum counts r - f - 2 neighbours, but at least 1; the source does not say how to go
    on once that is below 1, which the last picks meet.
    """
    n, f = len(updates), situation.n_byzantine
    check("bulyan", n, f)
    ordered, kept = Ordered.of(updates), n - 4 * f
    distances, left, chosen = squared_distances(ordered.rows), list(range(n)), list[int]()
    for _ in range(n - 2 * f):
        chosen.append(left.pop(int(_krum_scores(distances[np.ix_(left, left)], f).argmin())))

    def next_to_median(columns: Matrix) -> Indices:
        middle = (columns[:, (n - 1) // 2 - f] + columns[:, n // 2 - f])[:, None] / 2
        farthest = np.maximum(middle - columns[:, : 2 * f + 1], columns[:, kept - 1 :] - middle)
        return np.asarray(farthest.argmin(axis=1), np.int64)

    shares = np.zeros(n)
    update, shares[ordered.order[chosen]] = window_mean([ordered.rows[i] for i in chosen], kept, next_to_median)
    return Reduced(update, shares)


def geometric_median(updates: Updates, situation: Situation) -> Reduced:
    """RFA (Pillutla et al. 2022): the point of least summed distance to the updates, by smoothed Weiszfeld steps.

    Centre and weights live in the (n, n) distances alone, so all steps together cost one Gram matrix. Departures:
    equal client weights, WEISZFELD steps, relative SMOOTHING (the rule scales), and a start that weighs each update by
    1 / its median distance to the others: from the source's mean, steps shrink the pull of far updates only by
    f / (n - f) each.
    """
    check("geometric-median", len(updates), situation.n_byzantine)
    ordered = Ordered.of(updates)
    distances = squared_distances(ordered.rows)
    to_centre = np.median(distances, axis=1)
    floor = max(SMOOTHING**2 * to_centre.min(), SMOOTHING**4 * distances.max())
    if floor == 0:
        return _weighted(ordered, np.full(len(updates), 1 / len(updates)))
    for _ in range(WEISZFELD):
        weights = 1 / np.sqrt(np.maximum(to_centre, floor))
        weights /= weights.sum()
        to_centre = squared_distances_to(distances, weights)
    return _weighted(ordered, weights)


def centred_clipping(updates: Updates, situation: Situation) -> Reduced:
    """Centred clipping (Karimireddy, He, Jaggi 2021): from ``previous``, move by the mean of the differences to the
    updates, each clipped to a radius; CLIPPINGS times.

    Departures: the radius, a constant in the source's released runs, is the median distance to the present centre in
    each iteration; it is honest for n > 2f. They take 1 to 3 iterations. Differences are clipped, not worker momenta:
    clients send updates of many steps. All iterations run on one matrix of distances.
    """
    n = len(updates)
    check("centred-clipping", n, situation.n_byzantine)
    ordered = Ordered.of(updates)
    points = [*ordered.rows, situation.previous]
    distances, weights = squared_distances(points), np.zeros(n + 1)
    weights[n] = 1
    for _ in range(CLIPPINGS):
        lengths = np.sqrt(np.maximum(squared_distances_to(distances, weights)[:n], 0))
        factors = shrinking(lengths, np.median(lengths))
        weights *= 1 - factors.mean()
        weights[:n] += factors / n
    return Reduced(weighted_sum(points, weights), ordered.by_client(weights[:n] / weights[:n].sum()))


def norm_clipping(updates: Updates, situation: Situation) -> Reduced:
    """Mean of updates clipped to a norm (Sun et al. 2019, without their noise).

    Departure: the bound, there a constant, is the round's median norm, which is honest for n > 2f.
    """
    n = len(updates)
    check("norm-clipping", n, situation.n_byzantine)
    ordered = Ordered.of(updates)
    norms = np.array([np.linalg.norm(row) for row in ordered.rows])
    factors = shrinking(norms, np.median(norms))
    return Reduced(weighted_sum(ordered.rows, factors / n), ordered.by_client(factors / factors.sum()))


def foolsgold(updates: Updates, situation: Situation) -> Reduced:
    """FoolsGold (Fung et al. 2020): clients whose totals point the same way lose weight, with pardoning of the
    honest ones and the logit at confidence 1. Against groups alone: a lone attacker keeps its full weight.

    Departures: all parameters count alike, since a generator has no indicative features; weights are normalised to
    sum 1; where all totals are alike they are equal (the source: all zero); a negative similarity is none.
    """
    assert situation.totals.shape == updates.shape, (situation.totals.shape, updates.shape)
    ordered, n = Ordered.of(updates, situation.totals), len(updates)
    alike = cosines([situation.totals[client] for client in ordered.order])
    np.fill_diagonal(alike, 0)
    most = alike.max(axis=1)
    diversity = 1 - (alike * shrinking(most, most[:, None])).max(axis=1)
    diversity[diversity < ALIKE] = 0
    if not diversity.any():
        return _weighted(ordered, np.full(n, 1 / n))
    weights = np.clip(logit(diversity / diversity.max()) + 0.5, 0, 1)
    return _weighted(ordered, weights / weights.sum())


def fltrust(updates: Updates, situation: Situation) -> Reduced:
    """FLTrust (Cao et al. 2021): updates rescaled to the root update's norm, weighted by ReLU(cosine with it).

    Where no cosine is positive the source's sum is 0 / 0; here the update is zero, so the model waits a round rather
    than learn from the root images alone, and shares are equal. Raises RobustnessError without a root.
    """
    n, root = len(updates), situation.root
    if root is None:
        raise RobustnessError(
            "fltrust: root = None: clients are trusted by a root update of the server; give it clean images "
            "(defence.root), or choose another defence.name"
        )
    ordered, scale = Ordered.of(updates), float(np.linalg.norm(root))
    norms = np.array([np.linalg.norm(row) for row in ordered.rows])
    dots = np.maximum([row @ root for row in ordered.rows], 0)
    trust = np.divide(dots, norms * scale, out=np.zeros(n), where=norms * scale > 0)
    if not trust.any():
        return Reduced(np.zeros_like(root), np.full(n, 1 / n))
    shares = trust / trust.sum()
    factors = np.divide(shares * scale, norms, out=np.zeros(n), where=norms > 0)
    return Reduced(weighted_sum(ordered.rows, factors), ordered.by_client(shares))


REDUCERS: Table[Reducer] = Table(
    "defence.name",
    {
        "mean": uniform_mean,
        "median": median,
        "trimmed-mean": trimmed_mean,
        "krum": krum,
        "multi-krum": multi_krum,
        "bulyan": bulyan,
        "geometric-median": geometric_median,
        "centred-clipping": centred_clipping,
        "norm-clipping": norm_clipping,
        "foolsgold": foolsgold,
        "fltrust": fltrust,
    },
)


def _weighted(ordered: Ordered, shares: Vector) -> Reduced:
    return Reduced(weighted_sum(ordered.rows, shares), ordered.by_client(shares))


def _best(updates: Updates, n_byzantine: int, m: int) -> Reduced:
    """Mean of the ``m`` updates with the lowest Krum scores."""
    ordered, shares = Ordered.of(updates), np.zeros(len(updates))
    scores = _krum_scores(squared_distances(ordered.rows), n_byzantine)
    shares[scores.argsort(kind="stable")[:m]] = 1 / m
    return _weighted(ordered, shares)


def _krum_scores(distances: Matrix, n_byzantine: int) -> Vector:
    neighbours = max(len(distances) - n_byzantine - 2, 1)
    scores: Vector = np.sort(distances, axis=1)[:, 1 : 1 + neighbours].sum(axis=1)
    return scores
