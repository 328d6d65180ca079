"""FedDetect as a strategy; its maths is fedsec.defences.feddetect."""

from __future__ import annotations

from collections.abc import Sequence

from fedsec.defences.evidence import READINGS
from fedsec.defences.feddetect import Standing, judge, rule_of
from fedsec.types import Fit
from strategies.base import Brief, RoundStrategy, Weighing


class FedDetect(RoundStrategy):
    """Weights decay for clients whose generator loss an isolation forest flags again and again (Jin & Li 2023)."""

    def __init__(self, brief: Brief) -> None:
        super().__init__(brief)
        self.rule = rule_of(brief.config.defence)
        self.read = READINGS[self.rule.reading].of
        self.standing = Standing.start(len(self.nodes))

    def weigh(self, number: int, fits: Sequence[Fit]) -> Weighing:
        told = {fit.partition: self.read(fit.metrics) for fit in fits}
        partitions = [node.partition for node in self.nodes]
        verdict, self.standing = judge([told.get(p) for p in partitions], self.standing, self.rule)
        shares = dict(zip(partitions, verdict.weights, strict=True))
        total = sum(shares[fit.partition] for fit in fits)
        heard = {fit.partition: shares[fit.partition] / total if total > 0 else 1 / len(fits) for fit in fits}
        return Weighing(
            heard,
            tuple(p for p, flagged in zip(partitions, verdict.flagged, strict=True) if flagged),
            dict(zip(partitions, verdict.suspicion, strict=True)),
            told,
        )
