"""Client-level differential privacy of federated averaging: clip, noise, account. Pure functions on float64 updates.

What is protected is that *one client's whole data set* took part, whatever its update, against whoever sees the models,
the log and the report; the server is trusted, and who was asked is not hidden. What is released is the noised average
of each round and all that is computed from it. Not covered: losses and counts that clients report beside
their update, weights other than 1/n (a defence that reads replies reads them raw), and the initial model.

With four hospitals this is nearly meaningless. Noise has to hide one update among four: the default generator has
430 147 parameters, and (3.54, 1e-3) over 100 rounds takes noise multiplier 10, noise of 1640 times the bound where the
averaged update has at most 1. It is made for cohorts of thousands. Few sites protect images, not sites: sample-level
noise in training (fedsec.models.gan.private).

Sources: McMahan et al. 2018 (fixed clipping), Andrew et al. 2021 (adaptive). What it is worth: ``accounting``. Noise is
numpy's, from a seed, so that a simulation repeats; over real sites the seed is drawn from the system and kept nowhere.
Whoever knows it subtracts the noise, and floating-point gaps leak (Mironov 2012): no cryptographic source yet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from fedsec.config import Train
from fedsec.errors import ConfigError, all_at_once
from fedsec.types import Vector
from fedsec.weights import Updates

BOUNDS = (1e-9, 1e9)
"""Where an adaptive bound stays, whatever the noise: never 0, never infinite."""


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
    """(sum of clipped rows + N(0, (z bound)^2)) / denominator, z = noise_multiplier (McMahan et al. 2018, f_f).

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
    """Default sigma_b: a twentieth of the clients expected (Andrew et al. 2021), but at least z.

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
    """One round of adaptive clipping (Andrew et al. 2021): (the noised average, the state of the next round).

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
    the sum: that takes secure aggregation, which fedsec has not, and clients that add their share. A reply by itself
    has only z / sqrt(shares), which is what is accounted for whoever reads it, and so has the sum for clients - 1 that
    pool what they drew. Of m replies the noise multiplier is z sqrt(m / shares): ``shares`` is the fewest that are ever
    summed (``privacy.fewest``); a round in which fewer answer is not released.
    """
    assert shares > 0, shares
    return clip(update, bound) + rng.normal(0.0, noise_multiplier * bound / math.sqrt(shares), len(update))


def expected(train: Train, clients: int) -> float:
    """How many of ``clients`` a round is expected to ask, from the configuration alone."""
    return train.fraction * clients if train.sampling == "poisson" else float(cohort(train, clients))


def cohort(train: Train, clients: int) -> int:
    """How many a round asks under 'fixed' sampling: at least one."""
    return max(1, round(train.fraction * clients))
