"""What malicious clients send in place of the update their training gave. Pure functions on float64 deltas.

Guarantees, for every entry: (m, d) finite numbers for finite input, also for one attacker, no or one honest client,
equal or zero updates; the order of the honest does not matter (ties of ``mimic`` aside); the input is never written
to. With ``knows`` = 'all updates' but no others to see, the own updates stand in for the honest ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtri

from fedsec.types import Vector
from fedsec.weights import Updates

DISGUISE = 0.1
"""A free-rider's noise, as a part of the deviation of the change it copies."""
MAJORITY = 3.0
"""ALIE's z where the attackers need nobody's support and the paper's formula has no value."""


@dataclass(frozen=True)
class Known:
    """What the attackers see when they craft.

    ``own``: (m, d) the deltas that their training gave, after any data poisoning. ``others``: (b, d) the honest
    clients' deltas, (0, d) for attackers who see only their own. ``clients``: n in the round, attackers included.
    ``previous``: (d,) the last change of the global model. ``strength``: the attack's factor, 0 = its default.
    """

    own: Updates
    others: Updates
    clients: int
    previous: Vector
    strength: float
    rng: np.random.Generator

    @property
    def honest(self) -> Updates:
        """What they take for honest behaviour: the honest clients' updates, or their own where they see no others."""
        return self.others if len(self.others) else self.own


def scale(known: Known) -> Updates:
    """Own update times n / m: under plain averaging the model becomes theirs (Bagdasaryan et al. 2020).

    Several attackers share the factor, which in the source one client has: n / m each.
    """
    return np.asarray((known.strength or known.clients / len(known.own)) * known.own)


def sign_flip(known: Known) -> Updates:
    """The own update reversed (Li et al. 2019; its length is kept unless ``strength`` says otherwise)."""
    return np.asarray(-(known.strength or 1.0) * known.own)


def gaussian(known: Known) -> Updates:
    """N(0, s^2) with s^2 = |own|^2 / d, so that the root mean square length is the own update's.

    Departure: Blanchard et al. 2017 send noise of a large fixed variance, which any look at lengths would find.
    """
    lengths = np.linalg.norm(known.own, axis=1, keepdims=True) / np.sqrt(known.own.shape[1])
    return np.asarray((known.strength or 1.0) * lengths * known.rng.standard_normal(known.own.shape))


def alie(known: Known) -> Updates:
    """Mean - z deviations, all alike: as far as z lets them hide in the majority (Baruch et al. 2019).

    z = Phi^-1((n - m - s) / (n - m)), s = floor(n / 2 + 1) - m, and 0 where that is negative: few clients leave no
    room (one attacker of four: they send the mean). Mean and deviation are of all updates seen; the source's attackers
    use only their own.
    """
    seen = np.concatenate([known.own, known.others])
    z = known.strength or alie_z(known.clients, len(known.own))
    return _all_alike(known, seen.mean(axis=0) - z * seen.std(axis=0))


def alie_z(clients: int, attackers: int) -> float:
    """The largest z at which the s honest clients furthest out still support the attackers; 0 to MAJORITY."""
    honest = clients - attackers
    supporters = clients // 2 + 1 - attackers
    if honest <= 0 or supporters <= 0:  # the attackers are the majority
        return MAJORITY
    return min(MAJORITY, float(ndtri(max(0.5, (honest - supporters) / honest))))


def ipm(known: Known) -> Updates:
    """-eps times the honest mean (Cong Xie et al. 2020); eps = 2 (n - m) / m turns the plain mean around."""
    honest = max(1, known.clients - len(known.own))
    return _all_alike(known, -(known.strength or 2 * honest / len(known.own)) * known.honest.mean(axis=0))


def min_max(known: Known) -> Updates:
    """Mean - g deviations, g the largest for which no honest update is further away than two honest ones are from each
    other (Shejwalkar & Houmansadr 2021, inverse standard deviation).

    Departure: g is the root of a quadratic, exact, where the source searches for it by halving steps.
    """
    squared = _pairwise(known.honest)
    return _shifted(known, lambda constant, linear, square: min(_roots(constant - squared.max(), linear, square)))


def min_sum(known: Known) -> Updates:
    """The same with the sum of squared distances, at most the largest such sum of an honest update.

    The released code of the source takes the smallest such sum.
    """
    limit = _pairwise(known.honest).sum(axis=1).max()
    return _shifted(
        known,
        lambda constant, linear, square: _roots(
            np.array([constant.sum() - limit]), np.array([linear.sum()]), square * len(constant)
        )[0],
    )


def mimic(known: Known) -> Updates:
    """All copy the honest client i of the largest |z . h_i|, z the direction of largest variance (Karimireddy et al.
    2022). There is no factor.

    Departures: the source finds z and i over its first rounds and then keeps to i, here both are the round's own; its
    released code takes z . h_i with its sign.
    """
    centred = known.honest - known.honest.mean(axis=0)
    _, vectors = np.linalg.eigh(centred @ centred.T)
    along = np.abs(known.honest @ (vectors[:, -1] @ centred))
    return _all_alike(known, known.honest[int(np.argmax(along))])


def free_rider(known: Known) -> Updates:
    """The last change of the global model and a little noise, without any training (advanced delta weights of Lin et
    al. 2019).

    The noise's deviation is ``strength`` times that of the change, the same in every round; the source fixes it in
    weights. Free-riders of Fraboni et al. 2021 send shrinking noise and no change at all. Zeros in the first round.
    """
    noise = (known.strength or DISGUISE) * known.previous.std() * known.rng.standard_normal(known.own.shape)
    return np.asarray(known.previous + noise)


@dataclass(frozen=True)
class UpdateAttack:
    """``craft``: what the m malicious clients send. ``knows``: what it needs to see, which
    ``threat`` prints with the results; ``source``: the paper, in one line.
    """

    craft: Callable[[Known], Updates]
    knows: Literal["own update", "all updates", "global models"]
    source: str


UPDATES: dict[str, UpdateAttack] = {
    "scale": UpdateAttack(scale, "own update", "Bagdasaryan et al. 2020, model replacement"),
    "sign-flip": UpdateAttack(sign_flip, "own update", "Li et al. 2019, RSA"),
    "gaussian": UpdateAttack(gaussian, "own update", "after Blanchard et al. 2017, of honest length"),
    "alie": UpdateAttack(alie, "all updates", "Baruch et al. 2019, a little is enough"),
    "ipm": UpdateAttack(ipm, "all updates", "Cong Xie et al. 2020, inner product manipulation"),
    "min-max": UpdateAttack(min_max, "all updates", "Shejwalkar & Houmansadr 2021, Min-Max"),
    "min-sum": UpdateAttack(min_sum, "all updates", "Shejwalkar & Houmansadr 2021, Min-Sum"),
    "mimic": UpdateAttack(mimic, "all updates", "Karimireddy et al. 2022, mimic"),
    "free-rider": UpdateAttack(free_rider, "global models", "Lin et al. 2019, advanced delta weights"),
}


def _all_alike(known: Known, update: Vector) -> Updates:
    return np.tile(update, (len(known.own), 1))


def _pairwise(updates: Updates) -> Updates:
    """(b, b) squared distances, on centred rows so that no digits cancel."""
    centred = updates - updates.mean(axis=0)
    gram = centred @ centred.T
    return np.asarray(np.maximum(0.0, np.diag(gram)[:, None] + np.diag(gram)[None] - 2 * gram))


def _shifted(known: Known, largest: Callable[[Vector, Vector, float], float]) -> Updates:
    """Mean + g p with p = -deviation: |mean + g p - h_i|^2 = constant_i + linear_i g + square g^2."""
    mean, direction = known.honest.mean(axis=0), -known.honest.std(axis=0)
    away = mean - known.honest
    square = float(direction @ direction)
    if square == 0:
        return _all_alike(known, mean)
    g = known.strength or largest(np.square(away).sum(axis=1), 2 * away @ direction, square)
    return _all_alike(known, mean + g * direction)


def _roots(constant: Vector, linear: Vector, square: float) -> Vector:
    """The larger root of each square g^2 + linear g + constant = 0, 0 where there is none."""
    inner = np.maximum(0.0, linear**2 - 4 * square * constant)
    return np.asarray(np.maximum(0.0, (np.sqrt(inner) - linear) / (2 * square)))
