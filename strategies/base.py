"""The sleeve all strategies share: ask, check, weigh, reduce, record."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedsec.config import RunConfig
from fedsec.defences.geometry import weighted_sum, within
from fedsec.defences.reducers import mean
from fedsec.errors import RunError
from fedsec.flower.messages import Enrolled, Task, from_record, read_replies, task_message, to_record
from fedsec.log.runlog import RunLog
from fedsec.privacy.ledger import Try
from fedsec.privacy.noise import cohort
from fedsec.privacy.promises import lines_of
from fedsec.seeds import stream
from fedsec.types import Arrays, Dataset, Fit, Vector
from fedsec.weights import Layout, Updates
from strategies.adversary import Adversary
from strategies.draws import Inspector
from strategies.rehearsal import Rehearsal

MOST_UNHEARD = 3
"""Rounds on end without one usable reply after which a cell is given up."""


@dataclass(frozen=True)
class Brief:
    """What a strategy is given for one cell (arm x seed).

    ``nodes``: this cell's lane. ``initial``: the shared tensors before round 1. ``dataset``: the server's own images.
    ``secret``: seed of the server's own noise; the cell's in a simulation. ``images``: training images of each
    partition as enrolled. ``earlier``: what left in tries of this cell that were cut short.
    """

    config: RunConfig
    arm: str
    seed: int
    nodes: Sequence[Enrolled]
    initial: Arrays
    log: RunLog
    dataset: Dataset
    secret: int
    images: Sequence[int]
    earlier: Sequence[Try] = ()


@dataclass(frozen=True)
class Weighing:
    """What a strategy decides about one round's replies. ``weights``: partition -> share, sum 1 over the replies (less
    where shares have a cap).

    ``evidence``: what it read of each client, as reported; ``suspicion``: what it made of that. ``undone``: how many
    earlier updates of a client were taken out again.
    """

    weights: dict[int, float]
    flagged: tuple[int, ...] = ()
    suspicion: dict[int, float] = field(default_factory=dict)
    evidence: dict[int, float] = field(default_factory=dict)
    undone: dict[int, int] = field(default_factory=dict)

    def share(self, partition: int) -> float:
        """What a client weighs, of what all weigh."""
        return self.weights.get(partition, 0.0) / (sum(self.weights.values()) or 1.0)


class TrainOnly(Strategy):
    """A strategy whose clients are asked to train and never to evaluate: the server scores, the run log tells."""

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return None

    def summary(self) -> None:
        """Nothing to add to the run log, which holds the whole configuration."""


class RoundStrategy(TrainOnly):
    """Federated averaging of one model, one cell at a time; subclasses say how replies are weighted or combined.

    ``averaged`` is the exponential moving average over rounds that a generator is sampled from; what is broadcast is
    the plain average. ``origin`` and ``heard``: the model of the last round and the replies to it. A reply that breaks
    a rule is dropped for its round with site and reason; a round without any usable reply leaves the model as it was.
    ``previous`` is the last round's change of the model.
    """

    withheld = 0
    """Rounds that left the model as it was because too few answered for what is promised."""
    releases_always = False
    """Whether a round that nobody answered changes the model all the same."""
    inspector: Inspector | None = None
    """What draws from uploaded generators, where the rule looks at draws."""

    def __init__(self, brief: Brief) -> None:
        self.config, self.arm, self.seed, self.log = brief.config, brief.arm, brief.seed, brief.log
        self.secret, self.images, self.earlier = brief.secret, brief.images, tuple(brief.earlier)
        self.asks = Counter[int]()
        self.enrolled, self.clients = list(brief.nodes), len(brief.nodes)
        self.nodes = self.asked = self.participants(brief.nodes)
        self.layout = Layout.of(brief.initial)
        self.current = self.layout.vector(brief.initial)
        self.previous = np.zeros_like(self.current)
        self.average = self.current.copy()
        self.adversary = Adversary(
            brief.config, self.layout, seed=brief.seed, rehearse=lambda: Rehearsal(brief, self.layout, type(self))
        )
        self.origin, self.heard = self.current, list[Fit]()
        self.history: list[Weighing] = []
        self.unheard = 0
        self.started = time.monotonic()

    @property
    def bound(self) -> float:
        """Longest update that counts whole, over the median length; 0: any."""
        return self.config.defence.bound

    @property
    def rounds(self) -> int:
        return self.config.train.rounds

    @property
    def tries(self) -> list[Try]:
        """What left in every try of this cell, this one last."""
        lines = lines_of(self.config, self.images)
        return [*self.earlier, Try(lines, tuple(self.images), max(self.asks.values(), default=0))]

    def participants(self, nodes: Sequence[Enrolled]) -> list[Enrolled]:
        """Who may be asked: everybody."""
        return list(nodes)

    def weigh(self, number: int, fits: Sequence[Fit]) -> Weighing:
        """Of generators uniform weights, as the FedDetect release: 1/n whatever a client says of its number of images.
        Of classifiers by that number, unless ``classifier.weighting`` says otherwise (McMahan et al. 2017). It is the
        number the client enrolled with, or its reply was dropped; on real machines that is the site's own word."""
        if self.config.train.task == "classifier" and self.config.classifier.weighting == "images":
            total = sum(fit.examples for fit in fits)
            return Weighing({fit.partition: fit.examples / total for fit in fits})
        return Weighing({fit.partition: 1 / len(fits) for fit in fits})

    def combine(self, number: int, fits: Sequence[Fit], updates: Updates) -> tuple[Vector, Weighing]:
        """One update out of the round's updates (n, d), in the order of ``fits``, and how each client counted."""
        weighing = self.weigh(number, fits)
        shares = np.array([weighing.weights[fit.partition] for fit in fits])
        if self.bound:  # a scaled update does its harm in one round, before any track record
            rows = list(updates)
            return weighted_sum(rows, shares * within(rows, self.bound)), weighing
        return mean(updates, shares), weighing

    @property
    def averaged(self) -> Arrays:
        return self.layout.arrays(self.average)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self.started = time.monotonic()
        last = server_round == self.config.train.rounds
        shared = from_record(arrays)
        self.asked = self._cohort(server_round)
        self.asks.update(node.partition for node in self.asked)
        return [
            task_message(shared, Task(self.arm, self.seed, server_round, node.partition, self.clients, last), node.node)
            for node in self.asked
        ]

    def _cohort(self, number: int) -> list[Enrolled]:
        """Who is asked in round ``number``: all participants, or those among a share of everybody drawn by this cell's
        seed, so that arms with other participants ask the same of those they share."""
        train, rng, every = self.config.train, stream(self.secret, "cohort", "round", number), self.enrolled
        if train.fraction == 1:
            return self.nodes
        if train.sampling == "poisson":
            drawn = np.flatnonzero(rng.random(len(every)) < train.fraction)
        else:
            drawn = np.sort(rng.permutation(len(every))[: cohort(train, len(every))])
        return [every[i] for i in drawn if every[i] in self.nodes]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        fits, dropped = read_replies(replies, self.asked, self.layout, self.images)
        fits, spoilt = self.adversary.act(server_round, fits, self.current, self.previous, self.asked)
        dropped += spoilt
        self.origin, self.heard = self.current, fits
        weighing = self._step(server_round, fits) if fits or self.releases_always else Weighing({})
        self.history.append(weighing)
        self.unheard = 0 if fits or not self.asked else self.unheard + 1
        self.log.round(
            arm=self.arm,
            seed=self.seed,
            round=server_round,
            heard=[fit.partition for fit in fits],
            metrics=reported(fits),
            weights=weighing.weights,
            flags=list(weighing.flagged),
            suspicion=weighing.suspicion,
            evidence=weighing.evidence,
            undone=weighing.undone,
            dropped=dropped,
            seconds=time.monotonic() - self.started,
        )
        if self.unheard == MOST_UNHEARD:
            reasons = "; ".join(sorted({f"{d.site}: {d.reason}" for d in dropped}))
            raise RunError(f"{self.arm} seed {self.seed}: no usable reply in {MOST_UNHEARD} rounds on end ({reasons})")
        return to_record(self.layout.arrays(self.current)), None

    def _step(self, number: int, fits: Sequence[Fit]) -> Weighing:
        none = np.zeros((0, len(self.current)))
        updates = self.layout.updates([fit.arrays for fit in fits], self.current) if fits else none
        self.previous, weighing = self.combine(number, fits, updates)
        self.current = self.current + self.previous
        last, model = self.counted(number)
        decay = min(self.config.ema, last / (last + 9))
        self.average = decay * self.average + (1 - decay) * model
        return weighing

    def counted(self, number: int) -> tuple[int, Vector]:
        """After round ``number``: the last round whose replies count in ``averaged``, this one, and the model then."""
        return number, self.current


def reported(fits: Sequence[Fit]) -> dict[str, dict[int, float]]:
    """Metric -> partition -> value, of all that replies report."""
    names = dict.fromkeys(name for fit in fits for name in fit.metrics)
    return {name: {fit.partition: fit.metrics[name] for fit in fits if name in fit.metrics} for name in names}
