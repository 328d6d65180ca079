"""The attack as its authors released it (Hatamizadeh et al. 2023), defects included, so that its pictures can be
explained. Written from the description in papers/gradient_inversion.md 1.3 and 1.4, not from the code.

What reaches the images is the statistics term, two priors and, by accident, the inner training's own loss: the term
that should match updates has no gradient. The inner network trains on and is never put back; the statistics are those
of one local step, taken from the model before and matched on the model after, with the unbiased variance; all images
make one batch; and the images live in [0, 1] while the client trained in another range. The last iterate counts.

Departures: the noise on the images is left out, which the release draws anew each step and never keeps.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

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
    recipe, count = view.recipe, view.examples
    rng = torch.Generator().manual_seed(address_seed(seed, "released"))
    shape = (count, recipe.channels, recipe.size, recipe.size)
    images = torch.from_numpy(np.broadcast_to((prior + 1) / 2, shape).copy()).to(device).requires_grad_(True)
    told = torch.rand((count, recipe.classes), generator=rng).to(device).requires_grad_(True)
    aims = [
        (torch.from_numpy(m.mean).float().to(device), torch.from_numpy(m.var).float().to(device))
        for m in recovered(view.before, view.after, steps=1, momentum=recipe.bn_momentum).values()
    ]
    after = Replica(recipe, {**view.before, **view.after}, device=device)
    inner = Replica(recipe, view.before, device=device)
    weights: Weights = inner.weights
    adam = torch.optim.Adam([images, told], LR, betas=(0.9, 0.9))
    rate = LambdaLR(adam, lambda iteration: _rate(iteration, iterations))
    for _ in range(iterations):
        moments = after.logits(after.weights, images)[1]
        pairs = [(a, b) for seen, aim in zip(moments, aims, strict=True) for a, b in zip(seen, aim, strict=True)]
        matched = torch.stack([torch.linalg.vector_norm(a - b) for a, b in pairs]).sum()
        outer = STATISTICS * matched + VARIATION * _variation(images) + ENERGY * _energy(images)
        tracked = {name: value.detach().requires_grad_() for name, value in weights.items()}
        loss = F.binary_cross_entropy_with_logits(inner.logits(tracked, images)[0], torch.sigmoid(told))
        slopes = torch.autograd.grad(outer + loss, [images, told, *tracked.values()])
        weights = {
            name: value.detach() - recipe.lr * slope
            for (name, value), slope in zip(tracked.items(), slopes[2:], strict=True)
        }
        images.grad, told.grad = slopes[0], slopes[1]
        adam.step()
        rate.step()
    return _stretched(images.detach()).cpu().numpy()


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
