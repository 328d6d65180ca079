"""A classifier cut in three: the client's half, the server's body, and the heads, which stay on either side.

The client's half is two convolutions (16, 32 channels, BatchNorm, ReLU, pooling), the body one of 64 channels, 4 x 4
average pooling and a layer of 256, the heads are linear: the split of a third party's code for PGSL, since the paper's
own could not be read. Without PGSL there is one stream, 'plain'; with it (Khowaja et al. 2022), 'attacked', 'recovered'
and 'fused'.
Departures: space-to-depth stands in place of the first pooling, so that with and without PGSL the cut has one shape;
adaptive average pooling, so that any size that 4 divides will do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fedsec.defences.pgsl import FOLD, Fusion, Pgsl, attack, fold, late_fusion, recovered
from fedsec.models.networks import drawn
from fedsec.seeds import address_seed

FIRST, CUT, BODY, FEATURES = 16, 32, 64, 256
"""Channels of the client's two convolutions and the body's one; features a stream hands to its head."""
POOLED = 4

Streams = dict[str, Tensor]
"""A tensor of each stream, by its name."""


@dataclass(frozen=True)
class SplitSpec:
    """What both sides build from. ``pgsl``: None for plain split learning."""

    channels: int = 1
    classes: int = 2
    size: int = 32
    pgsl: Pgsl | None = None

    @property
    def streams(self) -> tuple[str, ...]:
        if self.pgsl is None:
            return ("plain",)
        return ("attacked", "recovered", "fused") if self.pgsl.fusion else ("attacked", "recovered")

    @property
    def returned(self) -> tuple[str, ...]:
        """The streams whose gradient goes back to the client: the fused one alone; without fusion the attacked one."""
        if self.pgsl is None or self.pgsl.returned == "all":
            return self.streams
        return ("fused",) if self.pgsl.fusion else ("attacked",)

    @property
    def entering(self) -> tuple[int, int, int]:
        """Channels, height and width of what enters the client's half."""
        if self.pgsl is None:
            return self.channels, self.size, self.size
        extra = int(self.pgsl.map_channel)
        if not self.pgsl.fold:
            return self.channels + extra, self.size, self.size
        return FOLD * FOLD * self.channels + extra, self.size // FOLD, self.size // FOLD

    @property
    def cut(self) -> tuple[int, int, int]:
        """Shape of one sample's activations."""
        return CUT, self.size // 4, self.size // 4

    @property
    def surrogate(self) -> bool:
        """Whether the client trains a classifier of its own for the map."""
        return self.pgsl is not None and self.pgsl.perturb != "off"


def _block(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]


class ClientHalf(nn.Module):
    """What enters (n, *spec.entering) -> activations (n, *spec.cut)."""

    def __init__(self, spec: SplitSpec) -> None:
        super().__init__()
        folded = spec.pgsl is not None and spec.pgsl.fold
        pooling = [] if folded else [nn.MaxPool2d(2)]
        layers = [*_block(spec.entering[0], FIRST), *pooling, *_block(FIRST, CUT), nn.MaxPool2d(2)]
        self.layers = nn.Sequential(*layers)

    def forward(self, entering: Tensor) -> Tensor:
        out: Tensor = self.layers(entering)
        return out


class Body(nn.Module):
    """Activations (n, *spec.cut) -> features (n, 256) of each stream; what of it is detached, see ``recovered``."""

    def __init__(self, spec: SplitSpec) -> None:
        super().__init__()
        self.spec = spec
        read = [name for name in spec.streams if name != "fused"]
        self.trunks = nn.ModuleDict({name: nn.Sequential(*_block(CUT, BODY)) for name in read})
        self.fusion = Fusion(BODY) if "fused" in spec.streams else None
        wide = BODY * POOLED * POOLED
        self.last = nn.ModuleDict(
            {
                name: nn.Sequential(nn.AdaptiveAvgPool2d(POOLED), nn.Flatten(), nn.Linear(wide, FEATURES), nn.ReLU())
                for name in spec.streams
            }
        )

    def forward(self, activations: Tensor) -> Streams:
        pgsl = self.spec.pgsl
        if pgsl is None:
            maps = {"plain": self.trunks["plain"](activations)}
        else:
            attacked = self.trunks["attacked"](activations)
            cleaned = self.trunks["recovered"](recovered(activations, pgsl))
            maps = {"attacked": attacked, "recovered": cleaned}
            if self.fusion is not None:
                pair = (attacked, cleaned) if pgsl.skip == "attacked" else (cleaned, attacked)
                maps["fused"] = self.fusion(*pair)
        return {name: self.last[name](maps[name]) for name in self.spec.streams}


class Heads(nn.Module):
    """Features of each stream -> its logits (n, classes)."""

    def __init__(self, spec: SplitSpec) -> None:
        super().__init__()
        self.linear = nn.ModuleDict({name: nn.Linear(FEATURES, spec.classes) for name in spec.streams})

    def forward(self, features: Streams) -> Streams:
        return {name: self.linear[name](found) for name, found in features.items()}


def _built(network: type[nn.Module], spec: SplitSpec, seed: int, name: str) -> nn.Module:
    with torch.device("meta"):
        net = network(spec)
    return drawn(net.to_empty(device="cpu"), seed=address_seed(seed, "split", name))


def new_client_half(spec: SplitSpec, *, seed: int) -> ClientHalf:
    """The half that every client starts from, in train mode."""
    net = _built(ClientHalf, spec, seed, "client-half")
    assert isinstance(net, ClientHalf)
    return net


def new_body(spec: SplitSpec, *, seed: int) -> Body:
    net = _built(Body, spec, seed, "body")
    assert isinstance(net, Body)
    return net


def new_heads(spec: SplitSpec, *, seed: int) -> Heads:
    net = _built(Heads, spec, seed, "heads")
    assert isinstance(net, Heads)
    return net


class Whole(nn.Module):
    """The same network in one piece: what enters -> logits of each stream. Shares its parts' tensors."""

    def __init__(self, half: ClientHalf, body: Body, heads: Heads) -> None:
        super().__init__()
        self.front, self.body, self.heads = half, body, heads

    def forward(self, entering: Tensor) -> Streams:
        out: Streams = self.heads(self.body(self.front(entering)))
        return out


class Classifier(nn.Module):
    """The plain network in one piece: images (n, c, s, s) -> logits (n, classes)."""

    def __init__(self, network: Whole) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)["plain"]
        return logits


def new_classifier(spec: SplitSpec, *, seed: int) -> Classifier:
    """The network of ``spec`` without PGSL, in one piece; the same weights as the parts of the same seed."""
    plain = replace(spec, pgsl=None)
    return Classifier(Whole(new_client_half(plain, seed=seed), new_body(plain, seed=seed), new_heads(plain, seed=seed)))


def new_surrogate(spec: SplitSpec, *, seed: int) -> Classifier:
    """The client's own classifier of whole images, f of Eq. 1: the plain network, which never leaves the client.

    A departure that split learning forces: no side has the whole network, and to ask the server for the gradients of f
    would mean to send it the activations of the images as they are. It is read in eval mode (``entering``), so that one
    image's scores never depend on the others of its batch.
    """
    return new_classifier(spec, seed=address_seed(seed, "surrogate"))


def entering(
    spec: SplitSpec,
    images: Tensor,
    surrogate: nn.Module | None,
    labels: Tensor | None,
    *,
    seed: int,
    perturb: bool = True,
) -> Tensor:
    """What the client's half is given for images (n, c, s, s) in [-1, 1]: with PGSL perturbed, folded and with its map.

    ``labels``: None at test time. ``seed``: of the random map. ``perturb``: False leaves the images as they are, the
    map zero, as the third party's code does at test time.
    """
    pgsl = spec.pgsl
    if pgsl is None:
        return images
    attacked, found = images, torch.zeros_like(images)
    if surrogate is not None and perturb:
        rng = torch.Generator().manual_seed(address_seed(seed, "map"))
        surrogate.eval()
        attacked, found = attack(images, surrogate, labels, pgsl, rng)
        surrogate.train()
    if pgsl.fold:
        return fold(attacked, found, map_channel=pgsl.map_channel)
    return torch.cat([attacked, found.mean(dim=1, keepdim=True)], dim=1) if pgsl.map_channel else attacked


def probabilities(spec: SplitSpec, logits: Streams) -> Streams:
    """Softmax scores (n, classes) of each stream, and with PGSL of 'late', their fusion (Eq. 9)."""
    found = {name: value.double().softmax(dim=1) for name, value in logits.items()}
    if spec.pgsl is not None:
        found["late"] = late_fusion(found, spec.pgsl.weights)
    return found
