"""What travels in split learning: which message asks for what, the names and shapes of its tensors.

Both sides compute it from the same value, so that no message has to say what it is. A run is a row of rounds:

    send    down: gradients at the cut of the last batches, or nothing; the average of the clients' halves, after a sync
            up: activations (K, n, c, h, w), labels (K, n) unless they stay home
    heads   U-shaped, down: features (K, n, 256) of each stream; up: their gradients
    sync    down: gradients at the cut; up: the client's half (and heads), without running statistics or counters
    test    down: gradients at the cut, average; up: activations (v, held, c, h, w) of held-out images, labels (held,)
    score   U-shaped, down: features (v, held, 256) of each stream; up: how many of ``count`` each stream got right
    audit   up: activations (shown, c, h, w) of the first training images, sent as held-out ones are, and the client's
            half with its running statistics, which the attackers of the audit are given; in a simulation alone

With labels at the server a round trip is K mini-batches, U-shaped two are.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from fedsec.config import RunConfig
from fedsec.defences.pgsl import Pgsl
from fedsec.errors import ConfigError, all_at_once
from fedsec.models.split_learning.halves import FEATURES, SplitSpec, new_client_half, new_heads
from fedsec.models.split_learning.steps import LR
from fedsec.models.state import network_arrays
from fedsec.types import Arrays
from fedsec.weights import Layout, travels

Phase = Literal["send", "heads", "sync", "test", "score", "audit"]
AVERAGE = "average."
LEAST = {"batch": 2, "k": 1, "messages": 1, "average": 0, "held": 1, "every": 0, "audit": 0, "shown": 1}
NOBODY = -1
"""Label of a held-out place that a client has no image for."""


@dataclass(frozen=True)
class Exchange:
    """How training is cut into messages.

    ``batch``: images of a mini-batch. ``k``: mini-batches a message. ``messages``: of kind 'send'; training is k x
    messages mini-batches a client. ``labels``: at the server, or U-shaped with labels and heads at the client.
    ``average``: every so many messages the clients' halves are averaged (SplitFed, Thapa et al. 2022); 0, the default:
    each keeps its own, since what is averaged is sent, and weights give more away than activations' gradients do.
    BatchNorm's running statistics stay home either way. ``held``: held-out images a client is scored on at the end
    and, above 0, after ``every`` so many messages. ``audit``: messages between audits, after a scoring round each, the
    last message's among them; 0 = none. ``shown``: images of a site that an audit attacks. ``lr``: Adam's on both
    sides, at first.
    """

    batch: int = 32
    k: int = 2
    messages: int = 100
    labels: Literal["server", "client"] = "server"
    average: int = 0
    held: int = 64
    every: int = 0
    lr: float = LR
    audit: int = 0
    shown: int = 16

    def __post_init__(self) -> None:
        wrong = [
            f"{name} = {getattr(self, name)}: must be at least {low}"
            for name, low in LEAST.items()
            if getattr(self, name) < low
        ]
        all_at_once(ConfigError, "this exchange cannot be", wrong)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What each round asks, from round 1."""
        rounds: list[Phase] = []
        for message in range(1, self.messages + 1):
            rounds.append("send")
            if self.labels == "client":
                rounds.append("heads")
            if self.average and message % self.average == 0:
                rounds.append("sync")
            last = message == self.messages
            audited = self.audit > 0 and (last or message % self.audit == 0)
            if last or audited or (self.every and message % self.every == 0):
                rounds += ["test", "score"] if self.labels == "client" else ["test"]
            if audited:
                rounds.append("audit")
        return tuple(rounds)

    @property
    def rounds(self) -> int:
        return len(self.phases)

    def message(self, number: int) -> int:
        """How many messages were sent up to and with round ``number``."""
        return self.phases[:number].count("send")


def spec_of(config: RunConfig, *, channels: int, classes: int) -> SplitSpec:
    """The network that a run configuration names."""
    chosen = config.pgsl
    switches = {item.name: getattr(chosen, item.name) for item in fields(chosen) if item.name != "on"}
    return SplitSpec(channels, classes, config.data.size, Pgsl(**switches) if chosen.on else None)


def exchange_of(config: RunConfig) -> Exchange:
    train, cut = config.train, config.cut
    return Exchange(
        batch=train.batch,
        k=cut.batches,
        messages=train.rounds,
        labels=cut.labels,
        average=cut.average,
        held=cut.held,
        every=config.measure.every,
        lr=train.lr,
        audit=config.leakage.every,
        shown=config.leakage.images,
    )


def rounds_of(config: RunConfig) -> int:
    """Rounds of messages: ``train.rounds``; in split learning with those that close the U, average, score and audit."""
    return exchange_of(config).rounds if config.train.task == "split-learning" else config.train.rounds


def variants(spec: SplitSpec) -> tuple[str, ...]:
    """How held-out images are sent: with the perturbation 'on' and 'off'; 'off' alone where there is none."""
    return ("on", "off") if spec.surrogate else ("off",)


def answered(spec: SplitSpec) -> tuple[str, ...]:
    """The streams that are scored."""
    return (*spec.streams, "late") if spec.pgsl is not None else spec.streams


def shared(spec: SplitSpec, exchange: Exchange, *, seed: int) -> Arrays:
    """What a sync sends, as every client starts with it."""
    networks = {"half": network_arrays(new_client_half(spec, seed=seed))}
    if exchange.labels == "client":
        networks["heads"] = network_arrays(new_heads(spec, seed=seed))
    return travelling(networks)


def travelling(networks: dict[str, Arrays]) -> Arrays:
    return {
        f"{network}.{name}": value
        for network, arrays in networks.items()
        for name, value in arrays.items()
        if travels(name, statistics="local")
    }


def reply_layout(spec: SplitSpec, exchange: Exchange, phase: Phase, *, seed: int) -> Layout:
    """What a reply of ``phase`` must hold."""
    k, n, held, streams = exchange.k, exchange.batch, exchange.held, spec.streams
    if phase == "audit":
        given = {f"half.{name}": value for name, value in network_arrays(new_client_half(spec, seed=seed)).items()}
        return Layout.of({"activations": np.zeros((exchange.shown, *spec.cut), np.float32), **given})
    v, at_server = len(variants(spec)), exchange.labels == "server"
    if phase == "sync":
        return Layout.of(shared(spec, exchange, seed=seed))
    shapes: dict[str, tuple[tuple[int, ...], str]] = {}
    if phase == "send":
        shapes = {"activations": ((k, n, *spec.cut), "<f4")} | ({"labels": ((k, n), "<i8")} if at_server else {})
    elif phase == "heads":
        shapes = {f"gradients.{name}": ((k, n, FEATURES), "<f4") for name in streams}
    elif phase == "test":
        shapes = {"activations": ((v, held, *spec.cut), "<f4")} | ({"labels": ((held,), "<i8")} if at_server else {})
    elif phase == "score":
        shapes = {"right": ((v, len(answered(spec))), "<i8"), "count": ((1,), "<i8")}
    return Layout(tuple(shapes), tuple(s for s, _ in shapes.values()), tuple(d for _, d in shapes.values()))
