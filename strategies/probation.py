"""Probation: an update counts in the model that is released only once it has been judged over some rounds.

Whoever is found out after a while has by then moved the model, and whoever comes in the last rounds is never found out.
So the last rounds' updates are kept by client. They are in the model that is sent out, or nobody could train on; but
who is flagged now loses its share in all of them, not in this one alone, and what is released is the model before
them. Its price is that the released model is so many rounds behind.

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


def rounds_of(total: int) -> int:
    """How many rounds are on probation in a run of ``total``."""
    return min(ROUNDS, total // SHARE)


@dataclass(frozen=True)
class Reply:
    """One client's update (d,) and its share of its round; shares are in [0, 1], their sum over a round at most 1."""

    update: Vector
    share: float


@dataclass(frozen=True)
class Probation:
    """``settled``: the model that all rounds before those of ``pending`` made, for good; ``rounds``: how many may be
    pending. ``pending``, oldest first: the replies of each, by client."""

    settled: Vector
    rounds: int
    pending: tuple[Mapping[int, Reply], ...] = ()

    @property
    def model(self) -> Vector:
        """The settled model with what is pending: what clients go on from."""
        return np.asarray(self.settled + sum(map(moved, self.pending)), np.float64)

    def after(self, replies: Mapping[int, Reply], suspects: Collection[int]) -> Probation:
        """With one round more, in which ``suspects`` were flagged: they lose their shares in all pending rounds, this
        one included, to the others of each. The oldest round is settled when there are too many."""
        pending = [without(row, suspects) for row in (*self.pending, replies)]
        settled = self.settled
        while len(pending) > self.rounds:
            settled = settled + moved(pending.pop(0))
        return replace(self, settled=settled, pending=tuple(pending))


def moved(replies: Mapping[int, Reply]) -> Vector:
    """What one round adds to the model."""
    return np.asarray(sum(reply.share * reply.update for reply in replies.values()), np.float64)


def without(replies: Mapping[int, Reply], suspects: Collection[int]) -> dict[int, Reply]:
    """The replies of the others, with the suspects' shares in proportion; nothing where only suspects have a share."""
    left = {client: reply for client, reply in replies.items() if client not in suspects}
    total, rest = (sum(reply.share for reply in some.values()) for some in (replies, left))
    return {client: replace(reply, share=reply.share * total / rest) for client, reply in left.items()} if rest else {}
