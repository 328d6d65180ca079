"""The client that ``studies.split_learning.attacks`` attacks: a small network cut in two, trained, and what it
sends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsec.defences.activations import Control
from fedsec.defences.pgsl import fold
from fedsec.models.classifier import in_batches
from fedsec.probes.split_learning.view import SplitView, fresh
from fedsec.seeds import address_seed, stream

BATCH = 16
RATE = 1e-3
MAP = 0.25
"""Mean of the random map, in units of pixels in [-1, 1]."""

Front = Callable[[Tensor, torch.Generator], Tensor]
"""Images -> what enters the client half."""


def image(images: Tensor, rng: torch.Generator) -> Tensor:
    return images


def random_map(images: Tensor, rng: torch.Generator) -> Tensor:
    """PGSL's shape with a map that knows nothing: uniform in [0, 2 MAP] a pixel, added, kept in range, and sent along
    as its mean over channels and 2 x 2 pixels."""
    noise = 2 * MAP * torch.rand(images.shape, generator=rng)
    return fold((images + noise).clamp(-1, 1), noise)


FRONTS: dict[str, Front] = {"image": image, "random-map": random_map}


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, 1, 1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2))


def whole(channels: int, classes: int) -> nn.Sequential:
    """Blocks of 16 and 32 channels, a convolution of 64, 4 x 4 pooling, 256 units; images from 8 px on."""
    tail = [nn.Conv2d(32, 64, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()]
    head = [nn.Linear(1024, 256), nn.ReLU(), nn.Linear(256, classes)]
    return nn.Sequential(_block(channels, 16), _block(16, 32), nn.Sequential(*tail, *head))


def client_of(channels: int, depth: int) -> nn.Sequential:
    return whole(channels, 2)[:depth]


class Party(ABC):
    """A client with its training ``images`` (n, c, s, s) and ``labels`` (n,), and a server of which one stream answers.

    ``client``: its half; ``server``: activations -> the logits whose gradient is returned.
    """

    images: Tensor
    labels: Tensor
    control: Control
    seed: int
    client: nn.Module
    server: nn.Module

    @abstractmethod
    def factory(self) -> nn.Module:
        """A client half of this architecture, its weights not used."""

    @abstractmethod
    def sent(self, images: Tensor, client: nn.Module | None = None) -> Tensor:
        """What leaves the client for ``images``, by its own half or ``client``."""

    def exchange(self, images: Tensor, labels: Tensor, *, train: bool) -> SplitView:
        """One batch there and back through copies of the halves: these stay as they are."""
        client, server = (deepcopy(half).train(train) for half in (self.client, self.server))
        client.zero_grad()
        sent = self.sent(images, client)
        sent.retain_grad()
        F.cross_entropy(server(sent), labels).backward()  # type: ignore[no-untyped-call]
        update = {name: -value.grad for name, value in client.named_parameters() if value.grad is not None}
        shape = (images.shape[1], images.shape[2], images.shape[3])
        state = self.client.state_dict()
        return SplitView(sent.detach(), self.factory, shape, train, sent.grad, labels, self.server, state, update)

    def query(self, *, train: bool) -> Callable[[Tensor], Tensor]:
        """The client half as a black box: images -> what would be sent of them."""
        client = deepcopy(self.client).train(train)
        return lambda images: self.sent(images, client).detach()


@dataclass
class Victim(Party):
    """A client and its honest server. ``images`` (n, c, s, s), ``labels`` (n,): its training rows. ``depth``: blocks
    at the client. The network is trained as one: plain split learning does the same sums."""

    images: Tensor
    labels: Tensor
    classes: int
    depth: int
    control: Control
    front: str = "image"
    seed: int = 0
    rng: torch.Generator = field(init=False)
    client: nn.Module = field(init=False)
    server: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        self.rng = torch.Generator().manual_seed(address_seed(self.seed, "victim"))
        self.channels = self.images.shape[1] * (1 if self.front == "image" else 4) + (self.front != "image")
        net = fresh(partial(whole, self.channels, self.classes), self.seed, "whole")
        assert isinstance(net, nn.Sequential)
        self.client, self.server = net[: self.depth], net[self.depth :]

    def factory(self) -> nn.Module:
        return client_of(self.channels, self.depth)

    def sent(self, images: Tensor, client: nn.Module | None = None) -> Tensor:
        return self.control.sent((client or self.client)(FRONTS[self.front](images, self.rng)), self.rng)

    def train(self, steps: int) -> None:
        adam = torch.optim.Adam([*self.client.parameters(), *self.server.parameters()], RATE)
        draws = stream(self.seed, "victim", "batches")
        for _ in range(steps):
            rows = torch.from_numpy(draws.integers(0, len(self.images), BATCH))
            sent = self.sent(self.images[rows])
            loss = F.cross_entropy(self.server(sent), self.labels[rows])
            adam.zero_grad()
            (loss + self.control.penalty(self.images[rows], sent)).backward()  # type: ignore[no-untyped-call]
            adam.step()

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """With the control in place, as in training."""
        self.client.eval()
        with torch.no_grad():
            right = in_batches(self.server, self.sent(images)).argmax(dim=1) == labels
        return float(right.float().mean())


class Hijacked:
    """A session of a new client half with whoever holds the server; ``watched`` are images of its own."""

    def __init__(self, victim: Party, watched: Tensor, *, train: bool) -> None:
        self.victim, self.watched, self.mode = victim, watched, train
        self.client = fresh(victim.factory, victim.seed, "hijacked")
        self.adam = torch.optim.Adam(self.client.parameters(), RATE)
        self.draws = stream(victim.seed, "hijacked", "batches")

    def send(self) -> Tensor:
        rows = torch.from_numpy(self.draws.integers(0, len(self.victim.images), BATCH))
        self.images = self.victim.images[rows]
        self.last = self.victim.sent(self.images, self.client)
        return self.last

    def give_back(self, gradient: Tensor) -> None:
        self.adam.zero_grad()
        own = self.victim.control.penalty(self.images, self.last)
        ((self.last * gradient).sum() + own).backward()  # type: ignore[no-untyped-call]
        self.adam.step()

    def watch(self) -> Tensor:
        self.client.train(self.mode)
        sent = self.victim.sent(self.watched, self.client).detach()
        self.client.train()
        return sent
