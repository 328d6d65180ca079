"""What a server or an eavesdropper holds of split learning after one exchange, and what else an attacker brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsec.errors import ProbeError
from fedsec.seeds import address_seed

WITHIN = 0.1
"""Weight of a map's differences within a cell, beside those below 0."""

Factory = Callable[[], nn.Module]
"""Builds one network; its initial weights are not used."""


@dataclass(frozen=True, eq=False)
class SplitView:
    """One exchange of n images, seen from the server or the wire.

    ``activations`` (n, k, h, w) as sent; ``gradient`` of the same shape, as returned, or None; ``labels`` (n,) where
    the protocol gives them. ``server``: the server half, activations -> logits, as it was; None on the wire.
    ``architecture``: what the client half is; ``client``: its state dict, in the white-box case only. ``update``: the
    change of the client half's parameters in one step of SGD on these images, where halves are averaged (SplitFed).
    ``shape`` (c, s, s) of an image. ``train``: whether both halves normalised by this batch's statistics.
    """

    activations: Tensor
    architecture: Factory
    shape: tuple[int, int, int]
    train: bool
    gradient: Tensor | None = None
    labels: Tensor | None = None
    server: nn.Module | None = None
    client: Mapping[str, Tensor] | None = None
    update: Mapping[str, Tensor] | None = None

    def client_half(self) -> nn.Module:
        """A copy of the client half, its parameters frozen. ProbeError when its weights are not known."""
        if self.client is None:
            raise ProbeError("the client half's weights are not in the view: take an attack that needs none")
        with torch.device("meta"):
            half = self.architecture()
        half.to_empty(device=self.activations.device).load_state_dict(dict(self.client))
        return half.train(self.train).requires_grad_(False)

    def server_half(self) -> nn.Module:
        """A copy of the server half, its parameters frozen. ProbeError when it is not known."""
        if self.server is None:
            raise ProbeError("the server half is not in the view: an eavesdropper cannot take gradients through it")
        return deepcopy(self.server).train(self.train).requires_grad_(False)


@dataclass(frozen=True)
class Reading:
    """What an attack moves (a canvas), what of it enters the client half, and which images it stands for.

    ``lift``: images -> canvas; ``enter``: canvas -> the client half's input; ``show``: canvas -> images; ``amiss``: how
    far the canvas is from one a client can have.
    """

    lift: Callable[[Tensor], Tensor]
    enter: Callable[[Tensor], Tensor]
    show: Callable[[Tensor], Tensor]
    amiss: Callable[[Tensor], Tensor] = lambda canvas: canvas.new_zeros(())


def folded(images: Tensor, change: Tensor | None = None) -> Tensor:
    """(n, c, s, s) -> (n, 4c + 1, s / 2, s / 2): 2 x 2 space-to-depth (``pixel_unshuffle``), and ``change`` (the map,
    of the images' shape or one channel; None = zero) as its mean over channels and each 2 x 2 cell."""
    deep = F.pixel_unshuffle(images, 2)
    last = torch.zeros_like(deep[:, :1]) if change is None else F.avg_pool2d(change.mean(dim=1, keepdim=True), 2)
    return torch.cat([deep, last], dim=1)


def unfolded(inputs: Tensor) -> Tensor:
    """The images behind PGSL's client input (n, 4c + 1, h, h): space-to-depth undone, the map subtracted.

    Exact where the perturbation was the map that is sent, the same for the channels and the 2 x 2 pixels of a cell, and
    was not clipped; else it leaves the difference of the perturbation and its mean over the cell.
    """
    change = F.interpolate(inputs[:, -1:], scale_factor=2, mode="nearest")
    return F.pixel_shuffle(inputs[:, :-1], 2) - change


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _apart(canvas: Tensor) -> tuple[Tensor, Tensor]:
    """Images and their map, one below the other in the channels."""
    images, change = canvas.chunk(2, dim=1)
    return images, change


def _joined(canvas: Tensor) -> Tensor:
    images, change = _apart(canvas)
    return folded(images + change, change)


def _negative(values: Tensor) -> Tensor:
    return values.clamp(max=0).square().mean()


def _within(change: Tensor) -> Tensor:
    """Mean squared difference from the mean over channels and each 2 x 2 cell."""
    mean = F.avg_pool2d(change.mean(dim=1, keepdim=True), 2)
    return (change - F.interpolate(mean, scale_factor=2, mode="nearest")).square().mean()


READINGS: dict[str, Reading] = {
    "image": Reading(_same, _same, _same),
    # PGSL's down-sampling is public; this attacker takes the map to be zero and knows of no perturbation.
    "folded": Reading(_same, folded, _same),
    # PGSL's perturbation is known too: the map is moved with the rest, cannot be negative, and is subtracted.
    "adaptive": Reading(folded, _same, unfolded, lambda inputs: _negative(inputs[:, -1])),
    # The same with a map of every pixel's own, whose mean is what is sent: smoothness of the image shares it out, and
    # differences within a cell cost, or the map would take all that is not smooth.
    "joint": Reading(
        lambda images: torch.cat([images, torch.zeros_like(images)], dim=1),
        _joined,
        lambda canvas: _apart(canvas)[0],
        lambda canvas: _negative(_apart(canvas)[1]) + WITHIN * _within(_apart(canvas)[1]),
    ),
}


class Session(Protocol):
    """Split training as a malicious server holds it: the client sends, then takes a step with what is returned."""

    def send(self) -> Tensor:
        """Activations of the client's next batch."""

    def give_back(self, gradient: Tensor) -> None:
        """The gradient that the client takes its step with."""

    def watch(self) -> Tensor:
        """Activations of the images under attack, from the client half as it is now."""


@dataclass(frozen=True, eq=False)
class Means:
    """What an attacker has besides the view.

    ``prior`` (1, c, s, s): a public image to start from. ``public`` (m, c, s, s): auxiliary images of the same kind.
    ``query``: images -> activations as they would be sent (an attacker who is a client of the same half). ``session``:
    a malicious server's. ``iterations``: 0 = the attack's own number.
    """

    prior: Tensor
    public: Tensor | None = None
    query: Callable[[Tensor], Tensor] | None = None
    session: Session | None = None
    reading: Reading = field(default=READINGS["image"])
    iterations: int = 0
    seed: int = 0

    def images(self) -> Tensor:
        if self.public is None or not len(self.public):
            raise ProbeError("this attack learns from auxiliary images and was given none")
        return self.public


def fresh(build: Factory, seed: int, *address: str | int) -> nn.Module:
    """The network in train mode, weights from ``(seed, *address)`` alone: uniform by fan-in (torch's own), biases 0.

    No global generator is touched. Errors: ProbeError for a kind of layer with weights of which it knows no rule.
    """
    rng = torch.Generator().manual_seed(address_seed(seed, *address))
    with torch.device("meta"):
        network = build()
    network.to_empty(device="cpu")
    for module in network.modules():
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, 5**0.5, generator=rng)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.InstanceNorm2d):
            module.reset_parameters()
        elif own:
            raise ProbeError(f"no rule to start a {type(module).__name__} from: build the network of plain layers")
    return network.train()
