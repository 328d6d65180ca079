"""Probation: an update counts in the model that is released only once it has been judged over some rounds.

Whoever is found out after a while has by then moved the model, and whoever comes in the last rounds is never found out.
So the last rounds' updates are kept by client. They are in the model that is sent out, or nobody could train on; but
whoever is flagged counts in none of them, not in this round alone, and what is released is the model before them. Its
price is that the released model is so many rounds behind.

Ours; undoing what a client sent after it was found out: FedRecover (Cao et al. 2023), which estimates anew what the
others would have sent. Here it is not: they trained on a model that had the attacker's last updates in it, and what
they did against those stays.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from fedsec.types import Vector

ROUNDS = 5
"""Rounds that an update is judged over. Attackers that began late in trials were flagged after three."""
SHARE = 4
"""At most one round of so many of a run is on probation: short runs would release a model of nobody's."""
MOST = 2.0
"""Largest share of a round, over that of equal clients: who is left when others lose theirs does not become the model.
Not tried: any number lets one of four take over from three."""


def rounds_of(total: int) -> int:
    """How many rounds are on probation in a run of ``total``."""
    return min(ROUNDS, total // SHARE)


@dataclass(frozen=True)
class Reply:
    """One client's update (d,), its share of its round, and whether it counts still: nobody who was flagged since.

    Shares are in [0, 1], their sum over a round at most 1."""

    update: Vector
    share: float
    counts: bool = True


Row = Mapping[int, Reply]
"""The replies of one round, by client."""


@dataclass(frozen=True)
class Probation:
    """``settled``: the model that all rounds before those of ``pending`` made, for good; ``rounds``: how many may be
    pending. ``pending``, oldest first: the replies of each."""

    settled: Vector
    rounds: int
    pending: tuple[Row, ...] = ()

    @property
    def model(self) -> Vector:
        """The settled model with what is pending: what clients go on from."""
        return np.asarray(self.settled + sum(map(moved, self.pending)), np.float64)

    def after(self, replies: Row, flagged: Collection[int]) -> Probation:
        """With one round more, after which clients are ``flagged``: what they lose in all pending rounds, this one
        included, goes to the others of each. The oldest is settled when there are too many."""
        pending = [without(row, flagged) for row in (*self.pending, replies)]
        settled = self.settled
        while len(pending) > self.rounds:
            settled = settled + moved(pending.pop(0))
        return replace(self, settled=settled, pending=tuple(pending))

    def undone(self, flagged: Collection[int]) -> dict[int, int]:
        """Client -> how many of its pending updates would be taken out that counted until now."""
        lost = [c for row in self.pending for c, reply in row.items() if reply.counts and c in flagged]
        return {client: lost.count(client) for client in sorted({*lost})}


def without(row: Row, flagged: Collection[int]) -> dict[int, Reply]:
    """An update that was taken out once stays out."""
    return {c: replace(reply, counts=reply.counts and c not in flagged) for c, reply in row.items()}


def counting(row: Row) -> dict[int, float]:
    """What each reply counts: its share, scaled to the same sum without those who do not count, at most MOST equal
    shares; 0 where nobody who has a share counts."""
    total = sum(reply.share for reply in row.values())
    rest = sum(reply.share for reply in row.values() if reply.counts)
    scale = total / rest if rest > 0 else 0.0
    return {c: min(reply.share * reply.counts * scale, MOST / len(row)) for c, reply in row.items()}


def moved(row: Row) -> Vector:
    """What one round adds to the model."""
    return np.asarray(sum(share * row[client].update for client, share in counting(row).items()), np.float64)
