"""The server's half of a split network in training: arrays of several clients in, arrays for each of them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from fedsec.errors import ReplyError
from fedsec.metrics.utility import classified
from fedsec.models.split_learning.exchange import NOBODY, Exchange, answered, variants
from fedsec.models.split_learning.halves import SplitSpec, probabilities
from fedsec.models.split_learning.steps import features, new_desk, paced, server_backward, server_step
from fedsec.models.state import network_arrays
from fedsec.types import Arrays, Score

Step = Callable[[int, int], np.ndarray]
"""(partition, k) -> the gradient at the cut of that client's k-th mini-batch, after one step of the server."""


@dataclass(frozen=True)
class Outcome:
    """Of one round, by partition: what goes back, mean loss of the stream that trains the clients, who was refused."""

    answers: dict[int, Arrays]
    losses: dict[int, float] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)


class ServerHalf:
    """Body and, with the labels at the server, heads; one optimiser for all clients.

    One step a mini-batch: the first of every client in the order given, then the second. A client whose mini-batch
    would make a gradient that is not finite is refused: no step is taken on it, nor on what else its message holds.
    """

    def __init__(self, spec: SplitSpec, exchange: Exchange, *, seed: int) -> None:
        self.spec, self.exchange = spec, exchange
        self.desk = new_desk(spec, seed=seed, heads=exchange.labels == "server", lr=exchange.lr)
        self.received: dict[int, np.ndarray] = {}

    @property
    def arrays(self) -> Arrays:
        parts = {"body": self.desk.body, "heads": self.desk.heads}
        return {
            f"{part}.{name}": value
            for part, network in parts.items()
            if network is not None
            for name, value in network_arrays(network).items()
        }

    def pace(self, message: int) -> None:
        """The learning rate of this message, the clients' too."""
        steps = self.exchange.messages * self.exchange.k
        paced([self.desk.optimiser], (message - 1) * self.exchange.k, steps, self.exchange.lr)

    def take(self, sent: Mapping[int, Arrays]) -> Outcome:
        """Activations with their labels: trained on. Without: answered by features, and remembered for ``backward``."""
        self.received = {partition: arrays["activations"] for partition, arrays in sent.items()}
        if self.desk.heads is None:
            return Outcome({partition: self._features(z) for partition, z in self.received.items()})
        labels = {partition: torch.from_numpy(np.array(arrays["labels"])) for partition, arrays in sent.items()}
        losses: dict[int, list[float]] = {partition: [] for partition in sent}

        def step(partition: int, k: int) -> np.ndarray:
            answer = server_step(self.desk, self._batch(partition, k), labels[partition][k])
            losses[partition].append(answer.losses[self.spec.returned[-1]])
            return np.asarray(answer.gradient.numpy())

        answers, refused = self._stepped([*sent], step)
        return Outcome(answers, {partition: float(np.mean(losses[partition])) for partition in answers}, refused)

    def backward(self, sent: Mapping[int, Arrays]) -> Outcome:
        """U-shaped: gradients of the features of the activations last taken."""

        def step(partition: int, k: int) -> np.ndarray:
            its = sent[partition]
            given = {s: torch.from_numpy(np.array(its[f"gradients.{s}"][k])) for s in self.spec.streams}
            return np.asarray(server_backward(self.desk, self._batch(partition, k), given).numpy())

        answers, refused = self._stepped([*sent], step)
        return Outcome(answers, refused=refused)

    def answer_held_out(self, sent: Mapping[int, Arrays]) -> Outcome:
        """U-shaped: features of held-out images (v, held, 256), in eval mode."""
        return Outcome({partition: self._features(a["activations"], training=False) for partition, a in sent.items()})

    @torch.no_grad()
    def scores(self, sent: Sequence[Arrays]) -> list[Score]:
        """Of the held-out images of all clients together, for each stream with and without perturbation."""
        assert self.desk.heads is not None, "the labels are at the clients: answer_held_out"
        labels = np.concatenate([arrays["labels"] for arrays in sent]).astype(np.int64)
        real, found = labels != NOBODY, list[Score]()
        self.desk.body.eval()
        for v, variant in enumerate(variants(self.spec)):
            z = torch.from_numpy(np.concatenate([arrays["activations"][v] for arrays in sent]))
            shares = probabilities(self.spec, self.desk.heads(self.desk.body(z)))
            for name in answered(self.spec):
                found += classified(labels[real], shares[name].numpy()[real], f"-{name}-{variant}")
        self.desk.body.train()
        return found

    def _stepped(self, partitions: Sequence[int], step: Step) -> tuple[dict[int, Arrays], dict[int, str]]:
        found: dict[int, list[np.ndarray]] = {partition: [] for partition in partitions}
        refused = {}
        for k in range(self.exchange.k):
            for partition in list(found):
                try:
                    found[partition].append(step(partition, k))
                except ReplyError as error:
                    del found[partition]
                    refused[partition] = str(error)
        return {partition: {"gradients": np.stack(its)} for partition, its in found.items()}, refused

    def _batch(self, partition: int, k: int) -> torch.Tensor:
        return torch.from_numpy(np.array(self.received[partition][k]))

    def _features(self, activations: np.ndarray, *, training: bool = True) -> Arrays:
        """By stream, of each batch of (k, n, c, h, w); nothing here changes."""
        self.desk.body.train(training)
        found = [features(self.desk, z) for z in torch.from_numpy(np.array(activations))]
        self.desk.body.train()
        return {f"features.{s}": torch.stack([one[s] for one in found]).numpy() for s in self.spec.streams}
