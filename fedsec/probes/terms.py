"""What an inversion minimises: terms of one number each, TERMS is the index. Lower = more like what was observed.

Every term is a differentiable function of a Scene, which computes what several of them need once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedsec.probes.batchnorm import recovered
from fedsec.probes.products import products
from fedsec.probes.replica import BatchMoments, Replica, Weights, local_update
from fedsec.probes.rowspace import Maps
from fedsec.probes.view import ServerView

TINY = 1e-12


@dataclass(frozen=True)
class Observed:
    """What the attack holds its images against. ``update``: after - before. ``moments``: recovered batch statistics at
    each BatchNorm, empty without. ``layer``, ``maps`` (n, c, h, w): what entered a convolution, each image's of norm 1;
    ``ordered``: whether they come batch by batch, as they were trained on.
    """

    update: Weights
    moments: Sequence[BatchMoments] = ()
    layer: str = ""
    maps: Tensor | None = None
    ordered: bool = True

    @cached_property
    def squares(self) -> Weights:
        """Squared norm of each tensor of the update."""
        return {name: value.square().sum() for name, value in self.update.items()}


def observe(view: ServerView, replica: Replica, maps: Maps | None = None) -> Observed:
    """What ``view`` gives to match: the update, the batch statistics where they were sent, and ``maps`` if any."""
    device = replica.device
    moments: list[BatchMoments] = []
    if view.statistics and replica.watched:
        recipe = view.recipe
        counts = replica.counts(min(recipe.batch, view.examples))
        found = recovered(
            view.before, view.after, steps=recipe.steps, momentum=recipe.bn_momentum, counts=counts
        ).values()
        moments = [(_tensor(m.mean, device), _tensor(m.var, device)) for m in found]
    update = {name: _tensor(value, device) for name, value in view.update.items()}
    if maps is None:
        return Observed(update, moments)
    return Observed(update, moments, maps.layer, _tensor(maps.maps, device), ordered=view.recipe.steps == 1)


def _tensor(values: npt.NDArray[np.float64], device: str) -> Tensor:
    return torch.from_numpy(values).float().to(device)


@dataclass(frozen=True)
class Scene:
    """One guess: ``images`` (n, c, s, s) and ``targets`` (n,) labels or (n, classes) probabilities; ``group``
    (n, c, s, s): what several restarts agree on."""

    replica: Replica
    observed: Observed
    images: Tensor
    targets: Tensor
    group: Tensor | None = None

    @property
    def steps(self) -> list[tuple[Tensor, Tensor]]:
        """Images and targets of each local step. Every pass takes them in the guess's order; the client shuffles each
        anew by a secret of its own, so beyond one pass this is a model of its round and not the round."""
        recipe = self.replica.recipe
        batches = zip(torch.split(self.images, recipe.batch), torch.split(self.targets, recipe.batch), strict=True)
        return list(islice(cycle(batches), recipe.steps))

    @cached_property
    def trained(self) -> tuple[Weights, list[list[BatchMoments]]]:
        return local_update(self.replica, self.steps)

    @cached_property
    def matched(self) -> tuple[list[tuple[Tensor, Tensor, Tensor]], list[list[BatchMoments]]]:
        """<a, b>, <a, a> and <b, b> of each tensor, a the guess's update and b the observed one; and the moments of
        each local step. One step needs no update for it (``fedsec.probes.products``)."""
        aims = self.observed.update
        if self.replica.recipe.steps == 1:
            found, seen = products(self.replica, aims, self.images, self.targets)
            return [(*found[name], self.observed.squares[name]) for name in found], [seen]
        update, steps = self.trained
        triples = [((a * aims[n]).sum(), a.square().sum(), self.observed.squares[n]) for n, a in update.items()]
        return triples, steps

    @cached_property
    def entering(self) -> tuple[Tensor, list[list[BatchMoments]]]:
        """What enters the observed layer, and each batch's moments on the way; all with the weights sent out.

        Where nobody knows which images shared a batch all pass together, normalised by the moments that were recovered,
        which are the mean of the batches'."""
        if not self.observed.ordered and self.observed.moments:
            entered, seen = self.replica.entering(self.observed.layer, self.images, self.observed.moments)
            return entered, [seen]
        batches = torch.split(self.images, self.replica.recipe.batch)
        passes = [self.replica.entering(self.observed.layer, images) for images in batches]
        return torch.cat([entered for entered, _ in passes]), [seen for _, seen in passes]

    @cached_property
    def moments(self) -> list[BatchMoments]:
        """Weighted over the local steps as running statistics weigh them; of the layers that were computed anyway.

        Where nothing asked for ``trained``, each batch goes through the weights sent out: exact for the first step.
        """
        if "trained" in self.__dict__:
            steps = self.trained[1]
        elif "matched" in self.__dict__:
            steps = self.matched[1]
        elif self.observed.layer:
            steps = self.entering[1]
        else:
            steps = [self.replica.logits(self.replica.weights, images)[1] for images, _ in self.steps]
        kept = 1 - self.replica.recipe.bn_momentum
        shares = [kept ** (len(steps) - 1 - k) for k in range(len(steps))]
        shares = [share / sum(shares) for share in shares]
        return [
            (
                torch.stack([share * means for share, (means, _) in zip(shares, layer, strict=True)]).sum(0),
                torch.stack([share * spreads for share, (_, spreads) in zip(shares, layer, strict=True)]).sum(0),
            )
            for layer in zip(*steps, strict=True)
        ]


def update_l2(scene: Scene) -> Tensor:
    """Squared distance of the updates over the observed one's squared norm (DLG, Zhu et al. 2019, scaled)."""
    ab, aa, bb = _sums(scene)
    return (aa - 2 * ab + bb) / bb.clamp(min=TINY**2)


def update_cosine(scene: Scene) -> Tensor:
    """1 - cosine of the whole updates (Geiping et al. 2020, eq. 4)."""
    return 1 - _cosine(*_sums(scene))


def update_layers(scene: Scene) -> Tensor:
    """1 - cosine, tensor by tensor, averaged: small tensors count as much as large ones."""
    return 1 - torch.stack([_cosine(*triple) for triple in scene.matched[0]]).mean()


def statistics(scene: Scene) -> Tensor:
    """Relative distance of batch means and of batch variances from the recovered ones, averaged over layers."""
    distances = [
        _apart(mean, aim_mean) + _apart(spread, aim_spread)
        for (mean, spread), (aim_mean, aim_spread) in zip(scene.moments, scene.observed.moments, strict=False)
    ]
    return torch.stack(distances).mean()


def maps(scene: Scene) -> Tensor:
    """Energy of the maps outside the recovered ones, over all of it, mean over images: any scale fits."""
    assert scene.observed.maps is not None
    mine, aim = scene.entering[0].flatten(1), scene.observed.maps.flatten(1)
    along = (mine * aim).sum(dim=1, keepdim=True) * aim
    return ((mine - along).square().sum(dim=1) / (mine.square().sum(dim=1) + TINY)).mean()


def variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels (Rudin et al. 1992, anisotropic), mean over images."""
    across, down = (images[..., 1:] - images[..., :-1]).abs(), (images[..., 1:, :] - images[..., :-1, :]).abs()
    return across.mean() + down.mean()


def excess(images: Tensor) -> Tensor:
    """Mean squared excess over [-1, 1], mean over images."""
    return (images - images.clamp(-1, 1)).square().mean()


def total_variation(scene: Scene) -> Tensor:
    """``variation`` of the images."""
    return variation(scene.images)


def energy(scene: Scene) -> Tensor:
    """Mean squared pixel, mean over images (the L2 prior of Yin et al. 2021)."""
    return scene.images.square().mean()


def box(scene: Scene) -> Tensor:
    """``excess`` of the images."""
    return excess(scene.images)


def group(scene: Scene) -> Tensor:
    """Mean squared distance from what the restarts agree on, mean over images (Yin et al. 2021, eq. 11)."""
    assert scene.group is not None
    return (scene.images - scene.group).square().mean()


TERMS: dict[str, Callable[[Scene], Tensor]] = {
    "update-l2": update_l2,
    "update-cosine": update_cosine,
    "update-layers": update_layers,
    "statistics": statistics,
    "maps": maps,
    "total-variation": total_variation,
    "energy": energy,
    "box": box,
    "group": group,
}
OF_THE_UPDATE = ("update-l2", "update-cosine", "update-layers")
PRIORS = ("total-variation", "energy", "box", "group")


def _sums(scene: Scene) -> tuple[Tensor, Tensor, Tensor]:
    """<a, b>, <a, a> and <b, b> of the whole updates."""
    ab, aa, bb = (torch.stack(parts).sum() for parts in zip(*scene.matched[0], strict=True))
    return ab, aa, bb


def _cosine(ab: Tensor, aa: Tensor, bb: Tensor) -> Tensor:
    """Norms are at least TINY; they have a gradient at zero."""
    lengths: Tensor = aa.clamp(min=TINY**2).sqrt() * bb.clamp(min=TINY**2).sqrt()
    return ab / lengths


def _length(parts: Iterable[Tensor]) -> Tensor:
    """L2 norm of all together, at least TINY; unlike a root of squares it has a gradient at zero."""
    norms = torch.stack([torch.linalg.vector_norm(part) for part in parts])
    length: Tensor = torch.linalg.vector_norm(norms)
    return length.clamp(min=TINY)


def _apart(value: Tensor, aim: Tensor) -> Tensor:
    distance: Tensor = torch.linalg.vector_norm(value - aim)
    return distance / _length([aim])
