"""Client-level differential privacy of federated averaging: clip, noise, account. Pure functions on float64 updates.

What is protected is that *one client's whole data set* took part, whatever its update; what is released is the noised
average of each round and all that is computed from it. Not covered: losses and counts that clients report beside
their update, weights other than 1/n (a defence that reads replies reads them raw), and the initial model.

With four hospitals this is nearly meaningless. Noise has to hide one update among four: the default generator has
430 147 parameters, and (3.54, 1e-3) over 100 rounds takes noise multiplier 10, noise of 1640 times the bound where the
averaged update has at most 1. It is made for cohorts of thousands. Few sites protect images, not sites: sample-level
noise in training (fedsec.models.private).

Sources: McMahan et al. 2018 (fixed clipping), Andrew et al. 2021 (adaptive), Mironov 2017 and Wang et al. 2019
(accounting, by the library dp-accounting). Noise is numpy's, from a seed, so that a simulation repeats; whoever knows
the seed subtracts it, and floating-point gaps leak (Mironov 2012). A deployment draws it from a cryptographic source.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
from dp_accounting import DpEvent, GaussianDpEvent, NeighboringRelation
from dp_accounting import PoissonSampledDpEvent as PoissonEvent
from dp_accounting import SampledWithoutReplacementDpEvent as FixedSizeEvent
from dp_accounting.rdp import RdpAccountant, compute_epsilon

from fedsec.errors import ConfigError, all_at_once
from fedsec.types import Vector
from fedsec.weights import Updates

BOUNDS = (1e-9, 1e9)
"""Where an adaptive bound stays, whatever the noise: never 0, never infinite."""
LARGEST_DELTA = 1e-3
MOST_ROUNDS = 10**9
TRUST = {
    "server": "the server, which sees every update and draws the noise",
    "clients": "every client to add its share of the noise, and secure aggregation to open nothing but the sum",
    "site": "the site that trains and draws the noise, nobody else",
    "nobody": "nobody: the reply itself is protected",
}
"""Who must keep to the protocol for the guarantee to hold against everybody else."""


def clip(update: Vector, bound: float) -> Vector:
    """``update`` (d,) shortened to L2 norm ``bound`` where it is longer; a new array.

    Guarantee: the result is finite with norm <= bound (1 + 1e-12), for any floats; nothing switches the clip off.

    | update                               | result                                       |
    | norm <= bound                        | equal to the update                          |
    | zero                                 | zero; nothing is divided by its norm         |
    | a NaN or an infinity in any element  | zeros: it has no direction that means much   |
    | finite, but its square overflows     | same direction, norm = bound                 |
    | empty (d = 0)                        | empty                                        |
    """
    assert 0 < bound < math.inf, bound
    peak = float(np.abs(update).max(initial=0.0))
    if not 0 < peak < math.inf:  # zero, or NaN, which no comparison holds for
        return np.zeros(update.shape)
    unit: Vector = update / peak
    length = math.sqrt(float(np.square(unit).sum()))  # pairwise sum: its error grows with log d only
    if peak * length <= bound:
        return update.copy()
    return unit * (bound / length)


def fixed(
    updates: Updates, bound: float, noise_multiplier: float, rng: np.random.Generator, denominator: float
) -> Vector:
    """(sum of clipped rows + N(0, (z bound)^2)) / denominator, z = noise_multiplier (McMahan et al. 2018, alg. 1, f_f).

    ``updates``: (n, d), n = 0 allowed: a round that nobody answered releases its noise like any other.
    ``denominator``: how many are expected, from enrolment (``expected`` of the sampling); dividing by what arrived
    would raise the sensitivity and tell how many arrived. A client that dropped out counts as zeros and is accounted.
    """
    assert denominator > 0, denominator
    total: Vector = rng.normal(0.0, noise_multiplier * bound, updates.shape[1:])
    for row in updates:
        total += clip(row, bound)
    return total / denominator


@dataclass(frozen=True)
class ClipState:
    """What the server remembers of adaptive clipping: goes into ``adaptive`` and comes out.

    ``bound``: in force in the coming round, within BOUNDS. ``quantile``: share of update norms it moves towards lying
    below; ``rate``: how fast; ``count_noise``: sigma_b, the standard deviation of the noise on that count.
    """

    bound: float
    count_noise: float
    quantile: float = 0.5
    rate: float = 0.2

    def __post_init__(self) -> None:
        low, high = BOUNDS
        rules = {
            f"clipping bound {self.bound}: must be {low:g} to {high:g}": low <= self.bound <= high,
            f"count noise {self.count_noise}: must be finite and not negative": 0 <= self.count_noise < math.inf,
            f"clipping quantile {self.quantile}: must be 0 to 1": 0 <= self.quantile <= 1,
            f"clipping rate {self.rate}: must be finite and positive": 0 < self.rate < math.inf,
        }
        all_at_once(ConfigError, "adaptive clipping cannot be used", [rule for rule, kept in rules.items() if not kept])


def count_noise(expected: float, noise_multiplier: float) -> float:
    """Default sigma_b: a twentieth of the clients expected (Andrew et al. 2021, sec. 3.1), but at least z.

    Departure: the paper's cohorts count hundreds; with few clients expected / 20 falls below z / 2, where no noise on
    the updates is enough. At sigma_b = z the updates take 15 % more noise.
    """
    return max(expected / 20, noise_multiplier)


def update_multiplier(noise_multiplier: float, count_noise: float) -> float:
    """z_delta = (z^-2 - (2 sigma_b)^-2)^(-1/2): with the count released too, a round costs what z alone would.

    (Andrew et al. 2021, theorem 1.) Raises ConfigError unless 2 sigma_b > z; z = 0 stays 0.
    """
    if noise_multiplier == 0:
        return 0.0
    if not 2 * count_noise > noise_multiplier:
        raise ConfigError(
            f"count noise {count_noise}: must exceed half the noise multiplier {noise_multiplier}; the count alone "
            "would cost more than the round may"
        )
    return float((noise_multiplier**-2 - (2 * count_noise) ** -2) ** -0.5)


def adaptive(
    updates: Updates, state: ClipState, noise_multiplier: float, rng: np.random.Generator, denominator: float
) -> tuple[Vector, ClipState]:
    """One round of adaptive clipping (Andrew et al. 2021, alg. 1): (the noised average, the state of the next round).

    The rows are clipped to ``state.bound`` and averaged as in ``fixed``, with z_delta. Then bound *= exp(-rate (b -
    quantile)), b = 1/2 + (sum of (1[norm <= bound] - 1/2) + N(0, sigma_b^2)) / denominator. Centred by 1/2, a client
    moves the count by at most 1/2, which is where 2 sigma_b in z_delta comes from. A non-finite row counts as the
    zeros that it becomes. Guarantee: the new bound is within BOUNDS; ``state`` is untouched.
    """
    multiplier = update_multiplier(noise_multiplier, state.count_noise)
    average = fixed(updates, state.bound, multiplier, rng, denominator)
    count = float(rng.normal(0.0, state.count_noise))
    for row in updates:
        clipped = clip(row, state.bound)
        count += 0.5 if np.array_equal(clipped, row) or not clipped.any() else -0.5
    below = 0.5 + count / denominator
    bound = state.bound * math.exp(min(state.rate * (state.quantile - below), 50.0))
    return average, replace(state, bound=min(max(bound, BOUNDS[0]), BOUNDS[1]))


def client_side(update: Vector, bound: float, noise_multiplier: float, rng: np.random.Generator, shares: int) -> Vector:
    """What one client sends when clients draw the noise: clipped + N(0, (z bound)^2 / shares).

    Guarantee: the sum of ``shares`` replies has the noise of ``fixed``, hence its epsilon, for whoever sees nothing but
    the sum: that takes secure aggregation and clients that add their share. A reply by itself has only z / sqrt(shares)
    (``Accountant.alone`` says what that is worth), and so has the sum for clients - 1 that pool what they drew. Of
    fewer replies, m, the noise multiplier is z sqrt(m / shares): set ``shares`` to the fewest you will average.
    """
    assert shares > 0, shares
    return clip(update, bound) + rng.normal(0.0, noise_multiplier * bound / math.sqrt(shares), len(update))


@dataclass(frozen=True)
class Poisson:
    """Each takes part by its own coin with probability ``rate``, which the adversary does not see fall.

    Neighbours: with and without one, whose update is then zeros.
    """

    rate: float
    relation: ClassVar[str] = "adding or removing"
    neighbours: ClassVar[Any] = NeighboringRelation.ADD_OR_REMOVE_ONE

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ConfigError(f"sampling rate {self.rate}: must be above 0 and at most 1")

    def expected(self, clients: int) -> float:
        return self.rate * clients

    def event(self, noise_multiplier: float) -> DpEvent:
        return PoissonEvent(self.rate, GaussianDpEvent(noise_multiplier))


FULL = Poisson(1.0)
"""Everybody takes part in every release."""


@dataclass(frozen=True)
class FixedSize:
    """``taken`` of ``clients`` drawn without replacement, unseen. Neighbours: one replaced by another.

    A replacement moves the sum by up to 2 bound, so it is accounted at z / 2. dp-accounting takes the multiplier given
    for the ratio to the sensitivity (Wang et al. 2019, theorem 27) and does not halve it itself.
    """

    taken: int
    clients: int
    relation: ClassVar[str] = "replacing"
    neighbours: ClassVar[Any] = NeighboringRelation.REPLACE_ONE

    def __post_init__(self) -> None:
        if not 1 <= self.taken <= self.clients:
            raise ConfigError(f"{self.taken} of {self.clients} clients a round: must be at least 1 and at most all")

    def expected(self, clients: int) -> float:
        return float(self.taken)

    def event(self, noise_multiplier: float) -> DpEvent:
        return FixedSizeEvent(self.clients, self.taken, GaussianDpEvent(noise_multiplier / 2))


def default_delta(clients: int) -> float:
    """n^-1.1 (McMahan et al. 2018, table 1), but at most LARGEST_DELTA.

    Departure: publishing one of n clients picked at random is (0, 1/n)-private, so delta must lie well below 1/n, and
    for few clients n^-1.1 does not: for four it is 0.22.
    """
    return float(min(clients**-1.1, LARGEST_DELTA))


@dataclass(frozen=True)
class Accountant:
    """What noise buys: a pure function of the number of releases, so a resumed run cannot forget what it spent.

    ``noise_multiplier``: z, noise over bound. ``sampling``: who takes part in a release. ``trusted``: a key of TRUST.
    ``unit``: what neighbouring data sets differ in; 'image' for DP-SGD, where a release is a step. Every release
    counts, with however few replies. Epsilon comes from Renyi DP with dp-accounting's orders, an upper bound.
    Raises ConfigError with all that is wrong.
    """

    noise_multiplier: float
    delta: float
    sampling: Poisson | FixedSize = FULL
    trusted: str = "server"
    unit: Literal["client", "image"] = "client"

    def __post_init__(self) -> None:
        z = self.noise_multiplier
        rules = {
            f"noise multiplier {z}: must be finite and not negative": 0 <= z < math.inf,
            f"delta {self.delta}: must lie between 0 and 1, well below 1 / {self.unit}s": 0 < self.delta < 1,
            f"trusted {self.trusted!r}: must be one of {', '.join(map(repr, TRUST))}": self.trusted in TRUST,
        }
        all_at_once(ConfigError, "privacy cannot be accounted", [rule for rule, kept in rules.items() if not kept])

    def epsilon(self, rounds: int) -> float:
        """Epsilon at ``delta`` after so many releases: 0 before the first, infinite without noise."""
        assert rounds >= 0, rounds
        if rounds == 0 or self.noise_multiplier == 0:
            return math.inf if rounds else 0.0
        orders, one_round = _curve(self.noise_multiplier, self.sampling)
        return float(compute_epsilon(orders, rounds * one_round, self.delta)[0])

    def rounds_within(self, budget: float) -> int:
        """The most releases whose epsilon is at most ``budget`` (0 when one is too many), MOST_ROUNDS at most."""
        if not 0 < budget < math.inf:
            raise ConfigError(f"epsilon budget {budget}: must be finite and positive")
        if self.epsilon(MOST_ROUNDS) <= budget:
            return MOST_ROUNDS
        return bisect_right(range(1, MOST_ROUNDS), budget, key=self.epsilon)

    def alone(self, shares: int) -> Accountant:
        """Of ``client_side``: what one client's replies are worth to it against who reads them, the server say.

        Any two data sets of that client are neighbours; no sampling hides who sent what.
        """
        multiplier = self.noise_multiplier / math.sqrt(shares)
        return replace(self, noise_multiplier=multiplier, sampling=FixedSize(1, 1), trusted="nobody")

    def guarantee(self, rounds: int) -> str:
        """The guarantee in words; epsilon is rounded up."""
        epsilon = self.epsilon(rounds)
        if self.noise_multiplier == 0 or math.isinf(epsilon):
            return "no guarantee"
        return (
            f"epsilon = {math.ceil(1000 * epsilon) / 1000:.3f}, delta = {self.delta:g} for {self.sampling.relation} "
            f"one {self.unit}, after {rounds} releases; trusted: {TRUST[self.trusted]}"
        )


@lru_cache(maxsize=64)
def _curve(noise_multiplier: float, sampling: Poisson | FixedSize) -> tuple[Vector, Vector]:
    """(orders, Renyi divergence of one release at each). Orders that do not converge are infinite, which is sound."""
    absl, accountant = logging.getLogger("absl"), RdpAccountant(neighboring_relation=sampling.neighbours)
    level = absl.level
    absl.setLevel(logging.ERROR)  # the library warns of each order it leaves out
    try:
        accountant.compose(sampling.event(noise_multiplier))
    finally:
        absl.setLevel(level)
    return accountant.orders, accountant.rdp
