"""The server of split learning as a Flower strategy: activations come up, gradients at the cut go down."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid

from fedsec.defences.reducers import mean
from fedsec.errors import RunError
from fedsec.flower.messages import Enrolled, Task, read_replies, task_message, to_record
from fedsec.log.record import Dropped
from fedsec.log.runlog import RunLog
from fedsec.models.split_learning.exchange import AVERAGE, NOBODY, Exchange, Phase, answered, reply_layout, variants
from fedsec.models.split_learning.halves import SplitSpec
from fedsec.types import Arrays, Fit, Score
from fedsec.weights import Layout
from strategies.base import MOST_UNHEARD, TrainOnly
from strategies.split_half import Outcome, ServerHalf

LARGEST = 1e3
"""Activations and their gradients beyond this are refused: behind BatchNorm honest ones stay below 1e2."""
TRAINING: tuple[Phase, ...] = ("send", "heads", "sync")


@dataclass
class Traffic:
    """Bytes of tensors in training, and the training images they served. ``timed`` of them, all after the first
    message (in which clients load their images), took ``seconds`` of wall clock, scoring between them included."""

    up: int = 0
    down: int = 0
    samples: int = 0
    timed: int = 0
    seconds: float = 0.0

    @property
    def per_sample(self) -> tuple[float, float]:
        """Bytes up and down a training image; NaN before the first."""
        n = self.samples or float("nan")
        return self.up / n, self.down / n

    @property
    def rate(self) -> float:
        """Training images a second; NaN with a single message."""
        return self.timed / self.seconds if self.seconds else float("nan")


@dataclass(frozen=True)
class SplitRound:
    """One round at the server: loss of the stream that trains the clients, by partition, and who was dropped."""

    round: int
    phase: Phase
    losses: dict[int, float] = field(default_factory=dict)
    dropped: tuple[Dropped, ...] = ()


class SplitStrategy(TrainOnly):
    """One server half for several clients, one cell at a time; ``start(..., num_rounds=exchange.rounds)``.

    A reply that breaks a rule is dropped with site and reason: nothing is trained on it and no gradient answers it; its
    client goes on with the next message. ``scores``: of the last scoring round, empty when nobody answered it.
    ``traffic`` counts tensors, not the envelopes around them. U-shaped, losses and scores are what the clients say.
    ``audited``: partitions that an audit asks, empty for all; ``captured``: the replies of the last audit.
    ``log``: where rounds are written.
    """

    def __init__(
        self,
        spec: SplitSpec,
        exchange: Exchange,
        nodes: Sequence[Enrolled],
        *,
        arm: str,
        seed: int,
        audited: Sequence[int] = (),
        log: RunLog | None = None,
    ) -> None:
        self.audited, self.captured = audited, list[Fit]()
        self.spec, self.exchange, self.arm, self.seed, self.log = spec, exchange, arm, seed, log
        self.nodes, self.asked = list(nodes), list(nodes)
        self.half = ServerHalf(spec, exchange, seed=seed)
        self.answers: dict[int, Arrays] = {}
        self.average: Arrays = {}
        self.history: list[SplitRound] = []
        self.scores: list[Score] = []
        self.traffic = Traffic()
        self.unheard = 0
        self.started = time.monotonic()

    @property
    def rounds(self) -> int:
        return self.exchange.rounds

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """``arrays`` is the server's own half: it is not sent."""
        self.started = time.monotonic()
        phase, last = self.exchange.phases[server_round - 1], server_round == self.exchange.rounds
        only_answered = phase in ("heads", "score")
        self.asked = [node for node in self.nodes if node.partition in self.answers or not only_answered]
        if phase == "audit" and self.audited:
            self.asked = [node for node in self.nodes if node.partition in self.audited]
        average = self.average if phase in ("send", "test") else {}
        messages = []
        for node in self.asked:
            down = {**self.answers.get(node.partition, {}), **average}
            self.traffic.down += _bytes(down) if phase != "score" else 0
            task = Task(self.arm, self.seed, server_round, node.partition, len(self.nodes), last)
            messages.append(task_message(down, task, node.node))
        self.answers = {}
        self.average = {} if average else self.average
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        phase, before = self.exchange.phases[server_round - 1], self.traffic.samples
        layout = reply_layout(self.spec, self.exchange, phase, seed=self.seed)
        fits, dropped = read_replies(replies, self.asked, layout)
        reasons = {fit.partition: reason for fit in fits if (reason := self._objection(phase, fit))}
        fits = [fit for fit in fits if fit.partition not in reasons]
        if phase in TRAINING:
            self.traffic.up += sum(_bytes(fit.arrays) for fit in fits)
        self.half.pace(self.exchange.message(server_round))
        outcome = self._outcome(phase, fits, layout)
        self.answers = outcome.answers
        sites = {node.partition: node.site for node in self.nodes}
        dropped += [Dropped(p, sites[p], reason) for p, reason in sorted((reasons | outcome.refused).items())]
        heard = [fit.partition for fit in fits if fit.partition not in outcome.refused]
        if self.exchange.message(server_round) > 1:
            self.traffic.timed += self.traffic.samples - before
            self.traffic.seconds += time.monotonic() - self.started
        self._record(server_round, phase, heard, outcome, dropped)
        last = server_round == self.exchange.rounds
        return (to_record(self.half.arrays) if last else None), None

    def _objection(self, phase: Phase, fit: Fit) -> str:
        """What a layout cannot say: labels that exist, counts that can be, values of a believable size."""
        arrays = fit.arrays
        if "labels" in arrays:
            labels = arrays["labels"].astype(np.int64)
            if labels.min() < (NOBODY if phase == "test" else 0) or labels.max() >= self.spec.classes:
                return f"labels run from {labels.min()} to {labels.max()}, there are {self.spec.classes} classes"
        if phase == "score":
            right, count = arrays["right"].astype(np.int64), int(arrays["count"].astype(np.int64)[0])
            if not (1 <= count <= self.exchange.held and right.min() >= 0 and right.max() <= count):
                return f"{right.min()} to {right.max()} right of {count} images, {self.exchange.held} were asked for"
        floats = [value for value in arrays.values() if value.dtype.kind == "f"] if phase != "sync" else []
        largest = max((float(np.abs(value).max()) for value in floats), default=0.0)
        return f"a value of {largest:.3g} is not believed, at most {LARGEST:g} is" if largest > LARGEST else ""

    def _outcome(self, phase: Phase, fits: Sequence[Fit], layout: Layout) -> Outcome:
        sent = {fit.partition: fit.arrays for fit in fits}
        if phase in ("test", "score"):
            self.scores = []
        if phase == "audit":
            self.captured = [*fits]
        if phase == "send":
            self.traffic.samples += len(fits) * self.exchange.k * self.exchange.batch
            return self.half.take(sent)
        if phase == "heads":
            name = f"loss-{self.spec.returned[-1]}"
            told = {fit.partition: fit.metrics.get(name, float("nan")) for fit in fits}
            found = self.half.backward(sent)
            return Outcome(found.answers, told, found.refused)
        if phase == "test" and self.exchange.labels == "client":
            return self.half.answer_held_out(sent)
        if phase == "sync" and fits:
            stacked = layout.updates([*sent.values()], np.zeros(layout.size))
            found_mean = layout.arrays(mean(stacked, np.full(len(fits), 1 / len(fits))))
            self.average = {AVERAGE + name: value for name, value in found_mean.items()}
        elif phase == "test" and fits:
            self.scores = self.half.scores([*sent.values()])
        elif phase == "score" and fits:
            self.scores = self._counted([*sent.values()])
        return Outcome({})

    def _counted(self, sent: Sequence[Arrays]) -> list[Score]:
        """Accuracies as the clients count them."""
        count = int(sum(int(arrays["count"].astype(np.int64)[0]) for arrays in sent))
        right = np.sum([arrays["right"].astype(np.int64) for arrays in sent], axis=0)
        return [
            Score(f"accuracy-{name}-{variant}", float(right[v, s]) / count, count, "higher")
            for v, variant in enumerate(variants(self.spec))
            for s, name in enumerate(answered(self.spec))
        ]

    def _record(
        self, number: int, phase: Phase, heard: Sequence[int], outcome: Outcome, dropped: Sequence[Dropped]
    ) -> None:
        """One line a round. Raises RunError when nobody was usable in several rounds on end."""
        self.history.append(SplitRound(number, phase, outcome.losses, tuple(dropped)))
        if self.log is not None:
            self.log.round(
                arm=self.arm,
                seed=self.seed,
                round=number,
                heard=sorted(outcome.losses),
                metrics={"loss": outcome.losses},
                weights={partition: 1 / len(heard) for partition in heard},
                dropped=dropped,
                seconds=time.monotonic() - self.started,
            )
        self.unheard = 0 if heard or not self.asked else self.unheard + 1
        if self.unheard == MOST_UNHEARD:
            reasons = "; ".join(sorted({f"{d.site}: {d.reason}" for d in dropped}))
            raise RunError(f"{self.arm} seed {self.seed}: no usable reply in {MOST_UNHEARD} rounds on end ({reasons})")


def _bytes(arrays: Arrays) -> int:
    return sum(value.nbytes for value in arrays.values())
