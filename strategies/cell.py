"""One cell (arm x seed): train over the grid, score, save. What finished is never run again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedsec.config import RunConfig
from fedsec.flower.messages import Enrolled, to_record
from fedsec.log.runlog import RunLog
from fedsec.metrics.panel import Panel
from fedsec.privacy.ledger import Try
from fedsec.privacy.promises import lines_of
from fedsec.run.plan import Plan
from fedsec.types import Arrays
from strategies.base import Brief, RoundStrategy
from strategies.index import STRATEGIES
from strategies.observers.classifiers import ClassifierObserver, new_classifier
from strategies.observers.generators import GeneratorObserver, new_generator
from strategies.observers.split_learning import SplitObserver, new_half, new_strategy

ROUND_TIMEOUT = 3600.0
"""Seconds the server waits for the slowest client of a round."""


class Observer(Protocol):
    """Looks at the server's model; what it finds goes to the run log."""

    def after_round(self, number: int, arrays: ArrayRecord) -> MetricRecord | None: ...

    def finish(self) -> None: ...


S = TypeVar("S", bound=Strategy)


@dataclass(frozen=True)
class Task(Generic[S]):
    """``initial``: what the server starts from, by the seed alone. ``strategy``: has ``rounds``, how many it takes."""

    initial: Callable[[Plan, RunConfig, int], Arrays]
    strategy: Callable[[Brief], S]
    observer: Callable[[Plan, RunConfig, S, Panel, RunLog], Observer]


def _averaging(brief: Brief) -> RoundStrategy:
    return STRATEGIES[brief.config.defence.name](brief)


TASKS: dict[str, Task[Any]] = {
    "gan": Task(new_generator, _averaging, GeneratorObserver),
    "classifier": Task(new_classifier, _averaging, ClassifierObserver),
    "split-learning": Task(new_half, new_strategy, SplitObserver),
}


def run_cell(
    grid: Grid,
    plan: Plan,
    lane: Sequence[Enrolled],
    panel: Panel,
    *,
    arm: str,
    seed: int,
    log: RunLog,
    rounds: int,
    earlier: Sequence[Try] = (),
) -> None:
    """Everything of one cell, in its order: start event, rounds, final scores, model, end event.

    ``rounds``: as many as ``privacy.budget`` leaves it. ``earlier``: what left in tries of it that were cut short."""
    config, started = plan.config.arm(arm), time.monotonic()
    config = replace(config, train=replace(config.train, rounds=rounds))
    task = TASKS[config.train.task]
    initial = task.initial(plan, config, seed)
    spends = Try(lines_of(config, plan.images), tuple(plan.images))
    rule = plan.rule((arm, seed))
    log.cell_start(arm, seed, plan.digests[arm, seed], spends=spends, earlier=earlier, rule=rule)
    secret = plan.secret(seed)
    strategy = task.strategy(Brief(config, arm, seed, lane, initial, log, plan.dataset, secret, plan.images, earlier))
    observer = task.observer(plan, config, strategy, panel, log)
    strategy.start(
        grid,
        to_record(initial),
        num_rounds=strategy.rounds,
        timeout=ROUND_TIMEOUT,
        evaluate_fn=observer.after_round,
    )
    observer.finish()
    log.cell_end(arm, seed, plan.digests[arm, seed], time.monotonic() - started)
