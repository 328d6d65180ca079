"""Images by what their patches explain of an update: an attack that noise, rounding and more passes do not stop.

The update of a kernel is ``W = sum_p delta_p x patch_p + noise``. Nobody tells the server the errors ``delta``; taken
as Gaussian they integrate out, and each row of W is N(0, sigma^2 I + tau^2 X X'), X the patches (less their mean, where
BatchNorm makes the errors of a channel sum to zero) of the images in question. That marginal likelihood (probabilistic
PCA with the directions given by the image: Tipping & Bishop 1999) is a smooth function of the images, first order to
differentiate, and holds for every layer at once, whether it has fewer positions than channels or not. It needs no
label, no gap in a spectrum and no guess of the errors, and weighs each layer by its signal to noise by itself.

- *Noise*: sigma is read off the update, from the energy in directions that no image could have filled
  (``noise_levels``); a server that knows the recipe need not know the draw. What rounding, pruning and a model that
  moves between the steps do counts as noise too, layer by layer.
- *Several passes or batches* are taken as one step over all images.
- *Several rounds* on the same images multiply their likelihoods (``Observation`` each); noise is independent in each.
- Running statistics, where they were sent, are one more Gaussian observation, of the moments at each BatchNorm.

The images are those of the largest posterior under a prior learned from public images (``fedsec.probes.gaussian``).
The noise is annealed: it starts ANNEALED times the layer's own deviation and comes down, coarse directions first.

Ours. Related: R-GAP (Zhu & Blaschko 2021), SPEAR (Dimitrov et al. 2024), DAGER (Petrov et al. 2024), which take the
span as exact; noise edges and shrinkage of singular values: Gavish & Donoho (2017).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from fedsec.errors import ProbeError
from fedsec.probes.batchnorm import recovered
from fedsec.probes.gaussian import GaussianPrior
from fedsec.probes.replica import BatchMoments, Geometry, Replica
from fedsec.probes.terms import excess
from fedsec.probes.view import ServerView
from fedsec.seeds import address_seed

ITERATIONS, FEWEST = 80, 40
"""Its own, and the fewest with which it may be said to have been tried: with one it returns the prior."""
RATE = 0.1
SPREAD = 0.3
"""Of a batch's starts along the prior's directions; one image starts at its mean."""
ANNEALED, LEAST = 0.3, 0.01
"""Noise at the start and at least, in deviations of the layer's update. Below LEAST the likelihood is so narrow that an
optimiser follows its walls. These, RATE and BLURRED were found on site 0 of seed 0 of docs/results/leakage.md."""
COOLING = 0.7
"""Share of the iterations in which the noise comes down."""
BLURRED, HELD_TO = 1.0, 0.1
"""Least deviation that is allowed moments, in root mean squares of a layer's. Held closer they keep the optimiser from
following the weights (SSIM 0.44 in place of 0.65 at sigma0 1). Where the weights are ``drowned`` there is nothing else
to follow, and statistics move so much more than weights that noise hardly touches them: it comes down to the second."""
DROWNED = 0.05
"""Share of a kernel's energy below which its signal is no guide. The best kernel of each site of seed 0 has 0.06 to
0.12 at sigma0 10, where holding moments to HELD_TO changed next to nothing, and 0.02 at 25; at 50 it brought the median
rank of six from 277 to 140."""
OUTSIDE = 1e3
"""Nats for a mean squared excess over [-1, 1] of 1, an image."""
HARDLY = 0.01
"""Least share of an update's energy that is taken for signal. With 0.05 layers without any counted beside the others:
found on seed 0, sigma0 10."""


@dataclass(frozen=True)
class Layer:
    """``update`` (out, d) float32 of one kernel; ``noise``: deviation of an entry; ``signal``: mean squared entry less
    the noise's."""

    geometry: Geometry
    update: Tensor
    noise: float
    signal: float

    @cached_property
    def deviation(self) -> float:
        """Root mean square of an entry."""
        return float(self.update.square().mean().sqrt())


@dataclass(frozen=True)
class Observation:
    """One round as the server saw it. ``together``: whether every step had all images in its batch, so that their own
    moments normalise; otherwise those recovered do, if there are any. ``moments``: at each BatchNorm, empty without;
    ``noise``: deviation of each. ``drowned``: whether the kernels say next to nothing beside their noise."""

    replica: Replica
    layers: dict[str, Layer]
    moments: list[BatchMoments]
    noise: float
    drowned: bool
    together: bool
    centred: bool

    @classmethod
    def of(cls, view: ServerView, *, device: str = "cpu") -> Observation:
        """Of a reply. ``view.examples`` images are taken to have been met, each at least once."""
        replica, recipe = Replica(view.recipe, view.before, device=device), view.recipe
        centred, together = recipe.norm == "batch", view.examples <= recipe.batch
        layers = _layers(view, replica)
        if not layers:
            raise ProbeError("not attempted: the network has no convolution that overlaps its patches, or none moved")
        drowned = all(layer.signal < DROWNED * layer.deviation**2 for layer in layers.values())
        if not (view.statistics and replica.watched):
            return cls(replica, layers, [], 0.0, drowned, together, centred)
        counts = replica.counts(min(recipe.batch, view.examples))
        found = recovered(
            view.before, view.after, steps=recipe.steps, momentum=recipe.bn_momentum, counts=counts
        ).values()
        gain = 1 / (1 - (1 - recipe.bn_momentum) ** recipe.steps)
        noise = gain * float(np.median([layer.noise for layer in layers.values()]))
        moments = [(_tensor(m.mean, device), _tensor(np.maximum(m.var, 0), device)) for m in found]
        return cls(replica, layers, moments, noise, drowned, together, centred)

    def surprise(self, images: Tensor, least: float) -> Tensor:
        """Negative log likelihood of the round given ``images``, in nats, but for a constant. ``least``: noise that is
        assumed at least, in deviations of each layer's update and of its moments."""
        entered, seen = self._forward(images)
        parts = [self._unexplained(layer, entered[name], least) for name, layer in self.layers.items()]
        if self.together:
            for moments, aims in zip(seen, self.moments, strict=False):
                for value, aim in zip(moments, aims, strict=True):
                    parts.append((value - aim).double().square().sum() / (2 * self._blur(aim, least) ** 2))
        return torch.stack(parts).sum()

    def _blur(self, moments: Tensor, least: float) -> float:
        """Deviation that moments are allowed when ``least`` is assumed of the kernels."""
        cooled = np.log(ANNEALED / max(least, LEAST)) / np.log(ANNEALED / LEAST)
        share = BLURRED * (HELD_TO / BLURRED) ** cooled if self.drowned else BLURRED
        return max(self.noise, share * float(moments.square().mean().sqrt()), 1e-12)

    def _forward(self, images: Tensor) -> tuple[dict[str, Tensor], list[BatchMoments]]:
        """What enters each layer, and the moments on the way."""
        entered: dict[str, Tensor] = {}
        handles = []
        for name in self.layers:

            def keep(module: torch.nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                entered[name] = inputs[0]

            handles.append(self.replica.modules[name].register_forward_pre_hook(keep))
        for module, moments in zip(self.replica.watched, [] if self.together else self.moments, strict=False):
            module.given = moments
        try:
            _, seen = self.replica.logits(self.replica.weights, images)
        finally:
            for handle in handles:
                handle.remove()
            for module in self.replica.watched:
                module.given = None
        return entered, seen

    def _unexplained(self, layer: Layer, entered: Tensor, least: float) -> Tensor:
        """- log N(rows; 0, sigma^2 I + tau^2 X X') summed over rows, less what does not depend on X; by whichever of
        X'X and X X' is smaller. tau is such that the signal has the energy that the update shows."""
        geometry, update = layer.geometry, layer.update
        columns = F.unfold(entered, kernel_size=geometry.kernel, padding=geometry.padding, stride=geometry.stride)
        patches = columns.transpose(0, 1).flatten(1)
        if self.centred:
            patches = patches - patches.mean(dim=1, keepdim=True)
        patches = patches / patches.square().mean().sqrt().clamp(min=1e-12)
        rows, (width, count) = len(update), patches.shape
        noise = max(layer.noise, least * layer.deviation, 1e-20)
        ratio = max(layer.signal, HARDLY * layer.deviation**2) / (count * noise**2)
        exact = patches.double()  # of patches that are all but alike float32 makes sums that are not positive definite
        one = torch.eye(min(count, width), device=update.device, dtype=torch.float64)
        if count <= width:
            root = torch.linalg.cholesky(one + ratio * (exact.T @ exact))
            along = torch.linalg.solve_triangular(root, (update @ patches).T.double() / noise, upper=False)
            explained = ratio * along.square().sum()
        else:
            root = torch.linalg.cholesky(one + ratio * (exact @ exact.T))
            explained = -torch.linalg.solve_triangular(root, update.T.double() / noise, upper=False).square().sum()
        surprise: Tensor = rows * root.diagonal().log().sum() - explained / 2
        return surprise


def noise_levels(view: ServerView, replica: Replica) -> dict[str, float]:
    """Deviation of the noise on an entry, layer by layer: the root of the mean energy in the singular directions in
    which no signal stands above it (``_below_edge``). Layers that the images could fill have the median of the others',
    as a share of their own update or as it is, whichever is less; 0 where there are none."""
    exact, shares, deviations = {}, [], {}
    for name, geometry in replica.convolutions().items():
        kernel = _kernel(view, name)
        deviations[name] = float(np.sqrt(np.mean(np.square(kernel))))
        rank = view.examples * geometry.positions
        if rank < min(kernel.shape) and deviations[name] > 0:
            exact[name] = _below_edge(kernel, rank)
            shares.append(exact[name] / deviations[name])
    usual, share = (float(np.median(list(found))) if found else 0.0 for found in (exact.values(), shares))
    return {name: exact.get(name, min(usual, share * deviation)) for name, deviation in deviations.items()}


def _below_edge(kernel: np.ndarray, rank: int) -> float:
    """Deviation of the noise in a matrix whose signal has at most ``rank`` directions.

    The energy of what lies below the noise's own edge sigma (sqrt m + sqrt n), over the entries that are left when the
    directions above are taken out, until both agree: rank by threshold (Kritchman & Nadler 2009). To take ``rank``
    directions out of noise that drowns them takes out the noise's largest: 0.88 of its deviation was left so.
    """
    narrow = kernel if kernel.shape[0] <= kernel.shape[1] else kernel.T
    few, many = narrow.shape
    energies = np.maximum(np.linalg.eigvalsh(narrow @ narrow.T), 0.0)  # rising, squares of the singular values
    above = rank
    while True:
        variance = energies[: few - above].sum() / ((few - above) * (many - above))
        seen = min(above, int((energies > variance * (np.sqrt(few) + np.sqrt(many)) ** 2).sum()))
        if seen == above:
            return float(np.sqrt(variance))
        above = seen


def span(
    rounds: Sequence[Observation],
    prior: GaussianPrior,
    *,
    count: int,
    seed: int,
    iterations: int = ITERATIONS,
    start: Tensor | None = None,
    say: Callable[[int, Tensor], None] = lambda iteration, images: None,
) -> tuple[Tensor, float]:
    """(count, c, s, s) images within [-1, 1], and by how many nats they are likelier than the prior's mean, the prior
    counted in and over all ``rounds``, at the least noise that the annealing ends with.

    ``start``: images to begin with; the prior's own otherwise. Every iteration looks at one of the ``rounds``,
    by turns. Errors: FloatingPointError when the images leave what can be computed.
    """
    spread = SPREAD if count > 1 else 0.0
    at = prior.start(count, seed=address_seed(seed, "span"), spread=spread)
    at = at if start is None else prior.coordinates(start)
    at = [part.detach().clone().requires_grad_(True) for part in at]
    adam = torch.optim.Adam(at, RATE)
    rate = CosineAnnealingLR(adam, max(iterations, 1))
    for iteration in range(iterations):
        cooled = min(1.0, iteration / (COOLING * iterations))
        least = ANNEALED * (LEAST / ANNEALED) ** cooled if start is None else LEAST
        images = prior.images(at)
        seen = rounds[iteration % len(rounds)]
        try:
            surprise = seen.surprise(images, least)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise FloatingPointError(f"span: iteration {iteration + 1} is not finite") from error
        loss = len(rounds) * surprise + prior.surprise(at) + OUTSIDE * count * excess(images)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        rate.step()
        say(iteration + 1, images)
    with torch.no_grad():
        blank = prior.mean.expand(count, *prior.mean.shape)
        found = prior.images(at)
        gained = sum(float(seen.surprise(blank, LEAST) - seen.surprise(found, LEAST)) for seen in rounds)
        return found.clamp(-1, 1), gained - float(prior.surprise(at))


def _layers(view: ServerView, replica: Replica) -> dict[str, Layer]:
    """Every convolution that sees more than the image itself and overlaps its patches."""
    noises, found = noise_levels(view, replica), {}
    for name, geometry in replica.convolutions().items():
        update = _tensor(_kernel(view, name), replica.device)
        energy = float(update.square().mean())
        if min(geometry.kernel) > 1 and geometry.shape[0] != view.recipe.channels and 0 < energy < np.inf:
            found[name] = Layer(geometry, update, noises[name], max(energy - noises[name] ** 2, 0.0))
    return found


def _kernel(view: ServerView, name: str) -> np.ndarray:
    change = view.update[f"{name}.weight"]
    return change.reshape(len(change), -1)


def _tensor(values: np.ndarray, device: str) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32)).to(device)
