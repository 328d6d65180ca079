"""The client that ``fedsec.models.split_learning.steps`` trains, as attackers meet it: plain or PGSL, with a
control or none."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fedsec.defences.activations import Control
from fedsec.defences.pgsl import Pgsl
from fedsec.models.order import batches
from fedsec.models.split_learning.halves import Body, ClientHalf, Heads, SplitSpec, entering, probabilities
from fedsec.models.split_learning.steps import (
    Batch,
    Desk,
    Home,
    applied,
    entered,
    new_desk,
    new_home,
    outsider,
    paced,
    sent,
    server_step,
)
from fedsec.seeds import address_seed, stream
from studies.split_learning.victim import Party

BATCH, K = 32, 2
"""Images of a mini-batch, mini-batches of a message."""
CHUNK = 64


@dataclass(frozen=True)
class Arm:
    """One way to defend: ``pgsl`` None for plain split learning, and what is done to its activations."""

    pgsl: Pgsl | None = None
    control: Control = field(default_factory=Control)

    @property
    def noise(self) -> float | None:
        """The level, of plain split learning with noise or nothing: a point of the noise curve. Else None."""
        return None if self.pgsl is not None or self.control.decorrelation else self.control.noise


ARMS: dict[str, Arm] = {
    "plain": Arm(),
    "pgsl": Arm(Pgsl()),
    "noise-0.5": Arm(control=Control(noise=0.5)),
    "noise-1": Arm(control=Control(noise=1.0)),
    "noise-2": Arm(control=Control(noise=2.0)),
    "noise-4": Arm(control=Control(noise=4.0)),
    "noise-8": Arm(control=Control(noise=8.0)),
    "perturb-off": Arm(Pgsl(perturb="off")),
    "random-map": Arm(Pgsl(perturb="random")),
    "no-peek-1": Arm(control=Control(decorrelation=1.0)),
    "no-peek-5": Arm(control=Control(decorrelation=5.0)),
    "recovery-off": Arm(Pgsl(recovery="off")),
    "peak": Arm(Pgsl(scale="peak")),
}


class Returned(nn.Module):
    """Activations -> logits of the stream whose gradient goes back. Shares its parts' tensors."""

    def __init__(self, body: Body, heads: Heads, name: str) -> None:
        super().__init__()
        self.body, self.heads, self.name = body, heads, name

    def forward(self, activations: Tensor) -> Tensor:
        logits: Tensor = self.heads(self.body(activations))[self.name]
        return logits


def message_of(images: Tensor, labels: Tensor, steps: int, seed: int, *address: str) -> list[Batch]:
    """``steps`` mini-batches of a client, by address alone."""
    order = batches(len(labels), min(BATCH, len(labels)), steps, stream(seed, "split-client", *address))
    return [Batch(images[i], labels[i], address_seed(seed, "batch", *address, n)) for n, i in enumerate(order)]


@dataclass
class SplitParty(Party):
    """The real halves, surrogate and server. ``steps``: mini-batches of the whole training."""

    images: Tensor
    labels: Tensor
    spec: SplitSpec
    control: Control
    seed: int = 0
    home: Home = field(init=False)
    desk: Desk = field(init=False)
    rng: torch.Generator = field(init=False)
    calls: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        assert len(self.spec.returned) == 1, "one stream's gradient is returned"
        self.home = new_home(self.spec, seed=self.seed, own=address_seed(self.seed, "own"))
        self.desk = new_desk(self.spec, seed=self.seed)
        self.rng = torch.Generator().manual_seed(address_seed(self.seed, "control"))
        assert self.desk.heads is not None
        self.client: nn.Module = self.home.half
        self.server: nn.Module = Returned(self.desk.body, self.desk.heads, self.spec.returned[0])

    def factory(self) -> nn.Module:
        return ClientHalf(self.spec)

    def sent(self, images: Tensor, client: nn.Module | None = None, surrogate: nn.Module | None = None) -> Tensor:
        """As at test time: the label of the map is the surrogate's guess; ``surrogate``: the client's, or another's."""
        self.calls += 1
        seed = address_seed(self.seed, "sent", self.calls)
        given = entering(self.spec, images, surrogate or self.home.surrogate, None, seed=seed)
        return self.control.sent((client or self.client)(given), self.rng)

    def train(self, steps: int) -> None:
        """Messages of K mini-batches, by the functions that Flower's client and strategy call. The control is the
        client's: noise before sending, NoPeek's gradient by the activations added to the one that came back."""
        order = message_of(self.images, self.labels, steps, self.seed, "own")
        for done in range(0, steps, K):
            message = order[done : done + K]
            paced([*self.home.optimisers.values(), self.desk.optimiser], done, steps)
            given = entered(self.home, message)
            clear = sent(self.home, given)
            wire = [self.control.sent(one, self.rng) for one in clear]
            answers = [server_step(self.desk, one, batch.labels) for one, batch in zip(wire, message, strict=True)]
            own = [self.control.pull(batch.images, one) for batch, one in zip(message, clear, strict=True)]
            back = [answer.gradient + mine for answer, mine in zip(answers, own, strict=True)]
            applied(self.home, message, given, torch.stack(back))

    def shares(self, images: Tensor) -> Tensor:
        """Probabilities (n, classes) that the server answers with: plain, or PGSL's late fusion; all defences on."""
        assert self.desk.heads is not None
        self.client.eval()
        self.desk.body.eval()
        with torch.no_grad():
            logits = [self.desk.heads(self.desk.body(self.sent(part))) for part in torch.split(images, CHUNK)]
            found = torch.cat([[*probabilities(self.spec, one).values()][-1] for one in logits])
        self.client.train()
        self.desk.body.train()
        return found

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        return float((self.shares(images).argmax(dim=1) == labels).float().mean())

    def outsider(self, images: Tensor, labels: Tensor, steps: int) -> nn.Module | None:
        """The surrogate of another client, on its own images. None where there is no map."""
        return outsider(self.spec, message_of(images, labels, steps, self.seed, "attacker"), seed=self.seed)

    def asked(self, surrogate: nn.Module | None, *, train: bool) -> Callable[[Tensor], Tensor]:
        """Queries of who has the client half and the control, and makes the map with ``surrogate``."""
        client = deepcopy(self.client).train(train)
        return lambda images: self.sent(images, client, surrogate).detach()
