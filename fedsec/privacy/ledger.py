"""What left in every try of every cell, and what all of it together is worth.

A killed cell starts again from round 1 with fresh noise, and all arms and seeds of a run train on the same images: each
release adds to what is known of them. A guarantee holds for a set of tries only when each of them gives it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from fedsec.privacy.accounting import FULL, Accountant, FixedSize, Poisson, default_delta, epsilon_of
from fedsec.types import Vector

Kind = Literal["client", "replies", "image"]
KINDS: dict[Kind, str] = {
    "client": "that one client's updates were in the sums, against everybody but the server",
    "replies": "what one client has, against whoever reads its replies, the server too",
    "image": "that a site has one image, against everybody outside that site",
}
"""What is hidden, from whom. Nobody of them is taken not to know which clients a round asked."""


@dataclass(frozen=True)
class Line:
    """What one round gives away of a client that it asks, under one guarantee.

    ``multiplier``: noise over bound of a release; with ``shares`` each reply has that over sqrt(shares) (replies).
    ``releases``: a round (image: steps). ``batch``: images a step draws, each by its own coin (image). ``delta``: 0 for
    the default of that many clients or images.
    """

    kind: Kind
    multiplier: float
    releases: int = 1
    shares: int = 1
    batch: int = 0
    delta: float = 0.0

    def accountant(self, images: Sequence[int], client: int) -> Accountant:
        """Of one client, in a federation whose clients have so many ``images`` each."""
        if self.kind == "image":
            held = images[client]
            delta, sampling = self.delta or default_delta(held), Poisson(self.batch / held)
            return Accountant(self.multiplier, delta, sampling, "site", "image")
        delta = self.delta or default_delta(len(images))
        if self.kind == "client":
            return Accountant(self.multiplier, delta, FULL, "server")
        return Accountant(self.multiplier / math.sqrt(self.shares), delta, FixedSize(1, 1), "nobody")


@dataclass(frozen=True)
class Try:
    """One try of one cell. ``lines``: its guarantees, none where nothing is noised or nothing is known. ``images``: of
    each client. ``rounds``: the most that asked one and the same client, whether or not it answered."""

    lines: tuple[Line, ...] = ()
    images: tuple[int, ...] = ()
    rounds: int = 0

    def line(self, kind: Kind) -> Line | None:
        return next((line for line in self.lines if line.kind == kind), None)

    def to_event(self) -> dict[str, Any]:
        return {"lines": [asdict(line) for line in self.lines], "images": list(self.images), "rounds": self.rounds}

    @classmethod
    def of_event(cls, event: Mapping[str, Any]) -> Try:
        lines = tuple(Line(**line) for line in event["lines"])
        return cls(lines, tuple(map(int, event["images"])), int(event["rounds"]))


@dataclass(frozen=True)
class Spent:
    """What tries are worth together, for the client that has least left. ``worst``: its accountant in the last try;
    None where a try does not give this guarantee."""

    epsilon: float
    releases: int
    worst: Accountant | None

    @property
    def words(self) -> str:
        if self.worst is not None:
            return self.worst.told(self.epsilon, self.releases)
        return "no guarantee" if self.releases else "nothing has left"


def spent(kind: Kind, tries: Sequence[Try]) -> Spent:
    """Of all ``tries`` that released anything. Infinite when one of them does not give this guarantee.

    Delta is the smallest of theirs. Where two tries had other images a client, it is not known who was who: the worst
    client of each is then taken for the same.
    """
    tries = [one for one in tries if one.rounds]
    lines = [line for one in tries if (line := one.line(kind)) is not None]
    if not tries or len(lines) < len(tries):
        return Spent(math.inf if tries else 0.0, sum(one.rounds for one in tries), None)
    releases = sum(one.rounds * line.releases for one, line in zip(tries, lines, strict=True))
    each = [_each(line, one) for line, one in zip(lines, tries, strict=True)]
    curves, deltas = [curve for curve, _, _ in each], [delta for _, delta, _ in each]
    if len({one.images for one in tries}) == 1:
        curve, delta = np.sum(curves, axis=0), np.min(deltas, axis=0)
    else:
        curve = np.sum([one.max(axis=0) for one in curves], axis=0)[None]
        delta = np.full(1, min(one.min() for one in deltas))
    epsilons = [epsilon_of(row, its) for row, its in zip(curve, delta, strict=True)]
    at = int(np.argmax(epsilons))
    accountants = each[-1][2]
    worst = accountants[at if len(epsilons) == len(accountants) else 0]
    return Spent(epsilons[at], releases, replace(worst, delta=float(delta[at])))


def _each(line: Line, one: Try) -> tuple[Vector, Vector, list[Accountant]]:
    """(divergences, deltas, accountants) of one try, a row for each client that can differ: one a number of images."""
    clients = [one.images.index(held) for held in sorted(set(one.images))] if line.kind == "image" else [0]
    accountants = [line.accountant(one.images, client) for client in clients]
    curves = [accountant.divergence(one.rounds * line.releases) for accountant in accountants]
    return np.stack(curves), np.array([accountant.delta for accountant in accountants]), accountants
