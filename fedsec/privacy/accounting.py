"""What noise buys: epsilon by the library dp-accounting (Mironov 2017; Wang et al. 2019 for subsampling).

Amplification by sampling (``Poisson``, ``FixedSize``) holds against an adversary who does not learn who took part in
which release. A server, and whoever reads a run's log or report, does learn which clients a round asked; only the
images that a site draws for a step of DP-SGD stay that site's secret.
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

LARGEST_DELTA = 1e-3
MOST_ROUNDS = 10**9
TRUST = {
    "server": "the server, which sees every update and draws the noise",
    "clients": "every client to add its share of the noise, and secure aggregation to open nothing but the sum",
    "site": "the site that trains and draws the noise, nobody else",
    "nobody": "nobody: the reply itself is protected",
}
"""Who must keep to the protocol for the guarantee to hold against everybody else."""


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
    """n^-1.1 (after McMahan et al. 2018) rounded down to two digits, so that what is printed is what was used, but at
    most LARGEST_DELTA.

    Departure: publishing one of n clients picked at random is (0, 1/n)-private, so delta must lie well below 1/n, and
    for few clients n^-1.1 does not: for four it is 0.22. It is 0.34/n at 340, 0.5/n at 1,000, 0.4/n at 10,000: for
    less, set ``privacy.delta``.
    """
    delta = clients**-1.1
    digit = math.floor(math.log10(delta)) - 1
    return min(float(f"{math.floor(delta / 10.0**digit + 1e-9)}e{digit}"), LARGEST_DELTA)


@dataclass(frozen=True)
class Accountant:
    """What noise buys: a pure function of the number of releases. It remembers none: who counts them, those of tries
    that were cut short too, is ``fedsec.privacy.ledger``.

    ``noise_multiplier``: z, noise over bound. ``sampling``: who takes part in a release, unseen. ``trusted``: a key of
    TRUST. ``unit``: what neighbouring data sets differ in; 'image' for DP-SGD, where a release is a step. Every release
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
        return epsilon_of(self.divergence(rounds), self.delta) if rounds else 0.0

    def divergence(self, rounds: int) -> Vector:
        """Renyi divergence of so many releases (1 or more) at dp-accounting's orders; releases of several accountants
        of one relation add up. Infinite without noise, and where an order does not converge, which is sound."""
        assert rounds > 0, rounds
        if self.noise_multiplier == 0:
            return np.full(len(ORDERS), math.inf)
        return rounds * _curve(self.noise_multiplier, self.sampling)

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
        return self.told(self.epsilon(rounds), rounds)

    def told(self, epsilon: float, releases: int) -> str:
        """``epsilon``, which may be that of other releases besides, in words."""
        if math.isinf(epsilon) or self.noise_multiplier == 0:
            return "no guarantee"
        return (
            f"epsilon = {math.ceil(1000 * epsilon) / 1000:.3f}, delta = {self.delta} for {self.sampling.relation} "
            f"one {self.unit}, after {releases} releases; trusted: {TRUST[self.trusted]}"
        )


ORDERS = np.asarray(RdpAccountant().orders, np.float64)
"""At which divergences are taken: dp-accounting's own."""


def epsilon_of(divergence: Vector, delta: float) -> float:
    """Epsilon at ``delta`` of a Renyi divergence at ORDERS."""
    return float(compute_epsilon(ORDERS, divergence, delta)[0]) if np.isfinite(divergence).any() else math.inf


@lru_cache(maxsize=4096)
def _curve(noise_multiplier: float, sampling: Poisson | FixedSize) -> Vector:
    """Renyi divergence of one release at ORDERS. Orders that do not converge are infinite, which is sound."""
    absl, accountant = logging.getLogger("absl"), RdpAccountant(neighboring_relation=sampling.neighbours)
    level = absl.level
    absl.setLevel(logging.ERROR)  # the library warns of each order it leaves out
    try:
        accountant.compose(sampling.event(noise_multiplier))
    finally:
        absl.setLevel(level)
    assert np.array_equal(accountant.orders, ORDERS)
    return np.asarray(accountant.rdp, np.float64)
