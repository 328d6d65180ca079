"""The malicious clients' joint plot: what they send and report in place of their own, in a simulation only.

It stands where the round's messages meet, since most of these attacks are crafted from several updates at once, which
in reality colluders hand to each other. What each may see is its table row's ``knows``; the strategy cannot tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from fedsec.attacks.knowing import KNOWING
from fedsec.attacks.reports import REPORTS, middle
from fedsec.attacks.updates import UPDATES, Known
from fedsec.config import RunConfig
from fedsec.errors import ReplyError
from fedsec.flower.messages import Enrolled
from fedsec.log.record import Dropped
from fedsec.seeds import stream
from fedsec.types import Fit, Vector
from fedsec.weights import Layout, Updates
from strategies.rehearsal import Rehearsal


class Adversary:
    """Rewrites the malicious clients' replies of one cell, in the rounds in which they attack; does nothing when nobody
    attacks so. ``rehearse``: makes what attackers need that know the rule."""

    def __init__(
        self, config: RunConfig, layout: Layout, *, seed: int, rehearse: Callable[[], Rehearsal] | None = None
    ) -> None:
        self.attack, self.malicious, self.layout, self.seed = config.attack, config.malicious, layout, seed
        self.rounds, self.rehearse = config.train.rounds, rehearse
        self.last: dict[str, float] = {}

    @cached_property
    def rehearsal(self) -> Rehearsal:
        assert self.rehearse is not None, "who knows the rule needs a copy of it"
        return self.rehearse()

    def act(
        self, number: int, fits: Sequence[Fit], current: Vector, previous: Vector, nodes: Sequence[Enrolled]
    ) -> tuple[list[Fit], list[Dropped]]:
        """The round's replies as the server gets them. ``current``: the model the round began with.

        What the attackers craft passes the same checks as any reply: a value out of bounds costs them the round.
        """
        acts = self.attack.acts(number, self.rounds)
        told = self._reported(fits, acts)
        craft = self._knowingly if self.attack.update in KNOWING else self._crafted
        crafted = craft(number, told, current, previous, acts)
        sites = {node.partition: node.site for node in nodes}
        kept, dropped = [], []
        for fit in crafted:
            try:
                self.layout.check(fit.arrays)
                kept.append(fit)
            except ReplyError as error:
                dropped.append(Dropped(fit.partition, sites[fit.partition], str(error)))
        return kept, dropped

    def _reported(self, fits: Sequence[Fit], acts: bool) -> list[Fit]:
        if self.attack.report == "honest":
            return list(fits)
        report = REPORTS[self.attack.report]
        others = [fit.metrics for fit in fits if fit.partition not in self.malicious]
        told = [
            replace(fit, metrics=report.lie(fit.metrics, others, self.last))
            if acts and fit.partition in self.malicious
            else fit
            for fit in fits
        ]
        keys = {key for fit in told for key in fit.metrics}
        self.last = {key: middle([fit.metrics[key] for fit in told if key in fit.metrics]) for key in keys}
        return told

    def _crafted(self, number: int, fits: list[Fit], current: Vector, previous: Vector, acts: bool) -> list[Fit]:
        guilty = [fit for fit in fits if fit.partition in self.malicious]
        if self.attack.update == "none" or not guilty or not acts:
            return fits
        attack = UPDATES[self.attack.update]
        others = [fit.arrays for fit in fits if fit.partition not in self.malicious]
        seen = self.layout.updates(others, current) if others and attack.knows == "all updates" else _none(current)
        own = self.layout.updates([fit.arrays for fit in guilty], current)
        rng = stream(self.seed, "adversary", "round", number)
        return self._sent(
            fits, guilty, attack.craft(Known(own, seen, len(fits), previous, self.attack.strength, rng)), current
        )

    def _knowingly(self, number: int, fits: list[Fit], current: Vector, previous: Vector, acts: bool) -> list[Fit]:
        """The same of attackers that know the rule; what they keep at home goes on in rounds when they are honest."""
        guilty = [fit for fit in fits if fit.partition in self.malicious]
        if not guilty:
            return fits
        insight, attack = self.rehearsal.insight(number, guilty, current), KNOWING[self.attack.update]
        sent = fits
        if acts or attack.patient:
            sent = self._sent(fits, guilty, attack.craft(insight) if acts else insight.clean, current)
        self.rehearsal.learn(number, [fit for fit in sent if fit.partition in self.malicious])
        return sent

    def _sent(self, fits: list[Fit], guilty: Sequence[Fit], sent: Updates, current: Vector) -> list[Fit]:
        arrays = {fit.partition: self.layout.arrays(current + row) for fit, row in zip(guilty, sent, strict=True)}
        return [replace(fit, arrays=arrays.get(fit.partition, fit.arrays)) for fit in fits]


def _none(current: Vector) -> Updates:
    return np.zeros((0, len(current)))
