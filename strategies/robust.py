"""Byzantine-robust reducers as a strategy; their maths is fedsec.defences.reducers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedsec.config import Defence
from fedsec.defences.mixing import BUCKET, MIXINGS, mixed
from fedsec.defences.reducers import REDUCERS, Situation, needs
from fedsec.seeds import stream
from fedsec.types import Fit, Vector
from fedsec.weights import Updates
from strategies.base import Brief, RoundStrategy, Weighing
from strategies.root import Root


def byzantine(defence: Defence, clients: int) -> int:
    """The f a reducer must withstand: as told, or a quarter of the clients, at least 1."""
    return defence.byzantine or max(1, clients // 4)


class Robust(RoundStrategy):
    """A Byzantine-robust reducer of ``REDUCERS``, with one of ``MIXINGS`` in front; no client is ever flagged.

    A round that too few answered for the reducer to withstand its f leaves the model as it was.
    """

    def __init__(self, brief: Brief) -> None:
        super().__init__(brief)
        self.name = brief.config.defence.name
        self.totals: dict[int, Vector] = {}
        self.root = Root(brief) if self.name == "fltrust" else None

    def combine(self, number: int, fits: Sequence[Fit], updates: Updates) -> tuple[Vector, Weighing]:
        defence = self.config.defence
        if self.name == "foolsgold":
            for fit, update in zip(fits, updates, strict=True):
                self.totals[fit.partition] = self.totals.get(fit.partition, 0.0) + update
        if shortfall(defence, len(self.asked), len(fits)):
            return np.zeros_like(self.current), Weighing({})
        situation = Situation(
            n_byzantine=byzantine(defence, len(self.asked)),
            previous=self.previous,
            totals=np.stack([self.totals[fit.partition] for fit in fits]) if self.totals else np.zeros((len(fits), 0)),
            root=self.root.update(number, self.layout, self.current) if self.root else None,
        )
        matrix = MIXINGS[defence.mixing](updates, situation.n_byzantine, stream(self.seed, "mixing", "round", number))
        reduced = mixed(REDUCERS[self.name], updates, situation, matrix)
        shares = zip([fit.partition for fit in fits], map(float, reduced.shares), strict=True)
        return reduced.update, Weighing(dict(shares))


def shortfall(defence: Defence, clients: int, heard: int) -> str:
    """Why a reducer cannot withstand its f of ``clients`` when ``heard`` of them answered; '' when it can."""
    f, (times, more) = byzantine(defence, clients), needs(defence.name)
    if defence.mixing == "nearest-neighbour":
        times, more = max((times, more), (2, 1))
    seen = -(-heard // BUCKET) if defence.mixing == "bucketing" else heard
    if seen >= times * f + more:
        return ""
    behind = " (buckets of clients)" if defence.mixing == "bucketing" else ""
    return (
        f"{defence.name} withstands f = {f} only among n >= {times} f + {more} clients, there are {seen}{behind}; "
        "add clients, lower defence.byzantine or take another reducer"
    )
