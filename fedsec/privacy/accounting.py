"""What noise buys: epsilon by the library dp-accounting (Mironov 2017; Wang et al. 2019 for subsampling)."""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal

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
    """n^-1.1 (after McMahan et al. 2018), but at most LARGEST_DELTA.

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
