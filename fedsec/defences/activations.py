"""What a client can do to its activations on its own: noise, or a penalty on their dependence on the images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedsec.errors import ConfigError

TINY = 1e-12


@dataclass(frozen=True)
class Control:
    """``noise``: standard deviation over the activations' own; ``decorrelation``: weight of NoPeek's penalty."""

    noise: float = 0.0
    decorrelation: float = 0.0

    def __post_init__(self) -> None:
        if self.noise < 0 or self.decorrelation < 0:
            raise ConfigError(f"noise {self.noise:g}, decorrelation {self.decorrelation:g}: neither can be below 0")

    def sent(self, activations: Tensor, rng: torch.Generator) -> Tensor:
        """What leaves the client, in training and after."""
        return noisy(activations, self.noise, rng) if self.noise else activations

    def penalty(self, images: Tensor, activations: Tensor) -> Tensor:
        """What is added to the client's loss; a scalar."""
        if not self.decorrelation:
            return activations.new_zeros(())
        return self.decorrelation * distance_correlation(images, activations)

    def pull(self, images: Tensor, activations: Tensor) -> Tensor:
        """The penalty's gradient by the activations, to be added to the one that came back from the server."""
        leaf = activations.detach().requires_grad_(True)
        if not self.decorrelation:
            return torch.zeros_like(leaf)
        (found,) = torch.autograd.grad(self.penalty(images, leaf), leaf)
        return found


CONTROLS: dict[str, Control] = {
    "none": Control(),
    "noise": Control(noise=0.5),
    "no-peek": Control(decorrelation=1.0),
}
"""Starting points; a comparison at equal accuracy chooses the strength."""


def noisy(activations: Tensor, deviation: float, rng: torch.Generator) -> Tensor:
    """Gaussian noise of ``deviation`` times the standard deviation over the whole batch of activations (n, k, h, w).

    The scale is not differentiated. An eavesdropper who averages many sendings of one image sees less noise.
    """
    scale = deviation * activations.detach().std(correction=0)
    noise = torch.randn(activations.shape, generator=rng, dtype=activations.dtype).to(activations.device)
    return activations + scale * noise


def distance_correlation(x: Tensor, z: Tensor) -> Tensor:
    """Distance correlation of n pairs (x_i, z_i), any shapes after the first dimension; a scalar in [0, 1].

    Szekely et al. 2007: dCor = sqrt(dCov^2(x, z) / sqrt(dCov^2(x, x) dCov^2(z, z))), dCov^2 the mean product of doubly
    centred Euclidean distances (V-statistic). NoPeek (Vepakomma et al. 2020) adds it to the client's loss.
    Guarantee: 1 for an affine image of one dimension; unchanged by shift, rotation and scale of either; has a gradient
    also where distances are 0. Biased upwards: independent samples in many dimensions and few pairs are far above 0.
    A constant x or z gives 0.
    """
    a, b = _centred(x), _centred(z)
    shared, own = (a * b).mean(), (a.square().mean() * b.square().mean()).clamp(min=TINY).sqrt()
    return (shared / own).clamp(min=TINY).sqrt() if float(shared.detach()) > TINY else shared.new_zeros(())


def _centred(points: Tensor) -> Tensor:
    """(n, n) Euclidean distances, less row and column means, plus the mean of all."""
    flat = points.flatten(1)
    squares = (flat[:, None] - flat[None]).square().sum(dim=2)
    distances = torch.where(squares > 0, squares.clamp(min=TINY).sqrt(), 0.0)
    return distances - distances.mean(dim=0) - distances.mean(dim=1, keepdim=True) + distances.mean()
