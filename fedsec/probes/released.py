"""The attack as its authors released it (Hatamizadeh et al. 2023), defects included, so that its pictures can be
explained. Written from a description of the code, not from the code.

What reaches the images is the statistics term, two priors and, by accident, the inner training's own loss: the term
that should match updates has no gradient. The inner network trains on and is never put back; the statistics are those
of one local step, taken from the model before and matched on the model after, with the unbiased variance; all images
make one batch; and the images live in [0, 1] while the client trained in another range. The last iterate counts.

Departures: the noise on the images is left out, which the release draws anew each step and never keeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, vmap
from torch.optim.lr_scheduler import LambdaLR

from fedsec.models.graphs import recorded
from fedsec.probes.batchnorm import recovered
from fedsec.probes.replica import Replica, Weights
from fedsec.probes.view import ServerView
from fedsec.seeds import address_seed
from fedsec.types import Images

ITERATIONS, LR, WARM = 40_000, 0.1, 100
STATISTICS, VARIATION, ENERGY = 0.1, 1e-4, 1e-5


def released(
    view: ServerView, *, prior: Images, seed: int, iterations: int = ITERATIONS, device: str = "cpu"
) -> Images:
    """Reconstruct ``view.examples`` images from ``prior`` (1, c, s, s); each result is stretched to [-1, 1].

    ``iterations``: fewer than the release's keep its schedule, warm-up and cosine, over what there is.
    """
    return released_together([view], prior=prior, seed=seed, iterations=iterations, device=device)[0]


def released_together(
    views: Sequence[ServerView],
    *,
    prior: Images,
    seed: int,
    iterations: int = ITERATIONS,
    device: str = "cpu",
    say: Callable[[int], None] = lambda iteration: None,
) -> list[Images]:
    """``released`` of several views of one recipe, size and model sent out, in one vectorised pass an iteration.

    A pass has some thousand small operations, whose launches are what one view costs a GPU. On a CPU it gains nothing.
    """
    recipe, count = views[0].recipe, views[0].examples
    rng = torch.Generator().manual_seed(address_seed(seed, "released"))
    shape = (count, recipe.channels, recipe.size, recipe.size)
    first = torch.from_numpy(np.broadcast_to((prior + 1) / 2, shape).copy())
    images, told = (
        start.expand(len(views), *start.shape).clone().to(device).requires_grad_(True)
        for start in (first, torch.rand((count, recipe.classes), generator=rng))
    )
    replica = Replica(recipe, views[0].before, device=device)
    weights = _stacked([replica.weights] * len(views), device)
    ended = _stacked([_ended(view, list(weights)) for view in views], device)
    aims = _stacked([_aims(view) for view in views], device)

    def value(images: Tensor, told: Tensor, weights: Weights, ended: Weights, aims: Weights) -> Tensor:
        seen = [moment for pair in replica.logits(ended, images)[1] for moment in pair]
        matched = torch.stack([torch.linalg.vector_norm(a - b) for a, b in zip(seen, aims.values(), strict=True)]).sum()
        outer = STATISTICS * matched + VARIATION * _variation(images) + ENERGY * _energy(images)
        return outer + F.binary_cross_entropy_with_logits(replica.logits(weights, images)[0], torch.sigmoid(told))

    slopes_of = vmap(grad(value, argnums=(0, 1, 2)))
    look = recorded(lambda: slopes_of(images.detach(), told.detach(), weights, ended, aims), device=device)
    adam = torch.optim.Adam([images, told], LR, betas=(0.9, 0.9))
    rate = LambdaLR(adam, lambda iteration: _rate(iteration, iterations))
    for iteration in range(iterations):
        images.grad, told.grad, slopes = look()
        names = list(weights)
        torch._foreach_sub_([weights[n] for n in names], [slopes[n] for n in names], alpha=recipe.lr)
        adam.step()
        rate.step()
        say(iteration + 1)
    return [_stretched(found).cpu().numpy() for found in images.detach()]


def _ended(view: ServerView, names: Sequence[str]) -> Weights:
    """The weights ``names`` after the round; those that were not sent, as they were before."""
    whole = {**view.before, **view.after}
    return {name: torch.from_numpy(np.array(whole[name], np.float32)) for name in names}


def _aims(view: ServerView) -> Weights:
    """Means and variances of one local step, as the release takes them, in the network's order."""
    found = recovered(view.before, view.after, steps=1, momentum=view.recipe.bn_momentum)
    return {
        f"{name}.{part}": torch.from_numpy(getattr(moments, part)).float()
        for name, moments in found.items()
        for part in ("mean", "var")
    }


def _stacked(each: Sequence[Weights], device: str) -> Weights:
    """Tensor by tensor, (views, ...)."""
    return {name: torch.stack([one[name].to(device) for one in each]) for name in each[0]}


def _rate(iteration: int, iterations: int) -> float:
    """Linear warm-up, then a cosine to 0."""
    warm = min(WARM, iterations // 10)
    if iteration < warm:
        return (iteration + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (iteration - warm) / max(1, iterations - warm)))


def _variation(x: Tensor) -> Tensor:
    """Frobenius norms of the four difference images: across, down and both diagonals."""
    differences = (
        x[..., 1:] - x[..., :-1],
        x[..., 1:, :] - x[..., :-1, :],
        x[..., 1:, :-1] - x[..., :-1, 1:],
        x[..., 1:, 1:] - x[..., :-1, :-1],
    )
    return torch.stack([torch.linalg.vector_norm(difference) for difference in differences]).sum()


def _energy(x: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return lengths.mean()


def _stretched(images: Tensor) -> Tensor:
    """Each image's own range to [-1, 1]."""
    low, high = images.amin(dim=(1, 2, 3), keepdim=True), images.amax(dim=(1, 2, 3), keepdim=True)
    return 2 * (images - low) / (high - low).clamp(min=1e-12) - 1
