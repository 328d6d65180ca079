"""The strategies a configuration can name."""

from __future__ import annotations

from collections.abc import Sequence

from fedsec.config import RunConfig
from fedsec.records import Enrolled
from fedsec.reports.runlog import RunLog
from fedsec.types import Arrays, Fit
from strategies.base import GanStrategy, Weighing
from strategies.detection import Standing, judge, rule_of
from strategies.evidence import READINGS


class FedAvg(GanStrategy):
    """Uniform federated averaging of the generator (FedGAN, Rasouli et al. 2020; uniform as the FedDetect release)."""


class FedDetect(GanStrategy):
    """Weights decay for clients whose generator loss an isolation forest flags again and again (Jin & Li 2023)."""

    def __init__(
        self, config: RunConfig, *, arm: str, seed: int, nodes: Sequence[Enrolled], initial: Arrays, log: RunLog
    ) -> None:
        super().__init__(config, arm=arm, seed=seed, nodes=nodes, initial=initial, log=log)
        self.rule = rule_of(config.defence)
        self.read = READINGS[config.defence.reads].of
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


class Oracle(GanStrategy):
    """Federated averaging without the malicious clients: the ceiling any defence can reach. Not a defence."""

    def participants(self, nodes: Sequence[Enrolled]) -> list[Enrolled]:
        return [node for node in nodes if node.partition not in self.config.malicious]


STRATEGIES: dict[str, type[GanStrategy]] = {"fed-avg": FedAvg, "fed-detect": FedDetect, "oracle": Oracle}
