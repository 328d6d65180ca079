"""Split learning as one cell: its strategy from a run configuration, and what is scored of it."""

from __future__ import annotations

import math

from flwr.app import ArrayRecord, MetricRecord

from fedsec.config import RunConfig
from fedsec.log.runlog import RunLog
from fedsec.metrics.panel import Panel
from fedsec.models.split_learning.exchange import answered, exchange_of, spec_of, variants
from fedsec.models.split_learning.halves import SplitSpec
from fedsec.run.models import keep_model
from fedsec.run.plan import Plan
from fedsec.types import Arrays, Dataset, Score
from strategies.base import Brief
from strategies.observers.audits import Audits
from strategies.observers.split_audits import SplitAudit
from strategies.split_half import ServerHalf
from strategies.split_learning import SplitStrategy

SCORED = ("test", "score")
"""Rounds after which there may be scores."""


def network(config: RunConfig, data: Dataset) -> SplitSpec:
    return spec_of(config, channels=data.channels, classes=len(data.class_names))


def new_half(plan: Plan, config: RunConfig, seed: int) -> Arrays:
    """The server's half, new."""
    return ServerHalf(network(config, plan.dataset), exchange_of(config), seed=seed).arrays


def new_strategy(brief: Brief) -> SplitStrategy:
    config = brief.config
    spec = network(config, brief.dataset)
    exchange, audited = exchange_of(config), config.audited
    return SplitStrategy(spec, exchange, brief.nodes, arm=brief.arm, seed=brief.seed, audited=audited, log=brief.log)


class SplitObserver:
    """Logs the accuracies of each scoring round, by message, and at the end every score, traffic and speed.

    All of them rest on held-out images that the clients send through their halves: the server has no other way in.
    Audits what clients sent, where the configuration asks for it. Keeps the server's half; the clients' stay with the
    clients.
    """

    def __init__(self, plan: Plan, config: RunConfig, strategy: SplitStrategy, panel: Panel, log: RunLog) -> None:
        self.plan, self.strategy, self.log = plan, strategy, log
        self.audit: SplitAudit | None = None
        if config.leakage.every:
            audits = Audits(plan, config, strategy.arm, strategy.seed, log)
            self.audit = SplitAudit(config, strategy.spec, strategy.exchange, audits, strategy.seed)

    def after_round(self, number: int, arrays: ArrayRecord) -> MetricRecord | None:
        strategy = self.strategy
        phase = strategy.exchange.phases[number - 1] if number else ""
        if phase in SCORED:
            quick = [score for score in strategy.scores if score.name.startswith("accuracy")]
            self._log(strategy.exchange.message(number), quick, final=False)
        if self.audit is not None and phase == "audit":
            for fit in strategy.captured:
                self.audit.attack(strategy.exchange.message(number), fit)
        return None

    def finish(self) -> None:
        strategy = self.strategy
        found = [*(strategy.scores or self._unheard()), *self._cost()]
        self._log(strategy.exchange.messages, found, final=True)
        keep_model(self.plan, "server-half", strategy.arm, strategy.seed, strategy.half.arrays)

    def _unheard(self) -> list[Score]:
        reason, spec = "no client answered the last scoring round", self.strategy.spec
        names = [f"accuracy-{stream}-{variant}" for variant in variants(spec) for stream in answered(spec)]
        return [Score(name, math.nan, 0, "higher", reason) for name in names]

    def _cost(self) -> list[Score]:
        traffic = self.strategy.traffic
        n, (up, down) = traffic.samples, traffic.per_sample
        unheard = "" if n else "no batch arrived"
        untimed = "" if math.isfinite(traffic.rate) else "with a single message there is nothing to time"
        return [
            Score("bytes-up", up, n, "lower", unheard),
            Score("bytes-down", down, n, "lower", unheard),
            Score("samples-a-second", traffic.rate, traffic.timed, "higher", untimed),
        ]

    def _log(self, message: int, scores: list[Score], *, final: bool) -> None:
        for score in scores:
            self.log.score(self.strategy.arm, self.strategy.seed, message, score, final=final)
