"""What an attack by optimisation ends with, and the plain descent that the attacks on split learning share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from fedsec.types import Images

WARM = 20
"""Iterations over which the learning rate rises from 0."""


@dataclass(frozen=True)
class Reconstruction:
    """``images`` (n, c, s, s) in [-1, 1]: the iterate with the lowest ``loss`` of all restarts. ``terms``: its value of
    each term; ``curve``: the loss of every iteration of that restart; ``restarts``: the lowest loss of each.

    The term 'group' is in none of these: it says how alike the restarts are, not how well one fits."""

    images: Images
    loss: float
    terms: dict[str, float]
    curve: tuple[float, ...]
    restarts: tuple[float, ...] = ()


def rate_at(iteration: int, iterations: int) -> float:
    """Linear warm-up times a cosine to 0."""
    return min(1, (iteration + 1) / WARM) * 0.5 * (1 + math.cos(math.pi * iteration / iterations))


def descend(
    moved: Sequence[Tensor],
    look: Callable[[], tuple[Tensor, dict[str, Tensor]]],
    weights: Mapping[str, float],
    *,
    lr: float,
    iterations: int,
    signed: bool = False,
    say: Callable[[int, float], None] = lambda iteration, loss: None,
) -> Reconstruction:
    """Adam on ``moved``, warmed up over WARM iterations, then along a cosine to 0.

    ``look()``: the images as they are now, and each term's value; the loss is their sum by ``weights``. ``signed``:
    Adam is given the gradient's sign. The best iterate is that of least loss; FloatingPointError without a finite one.
    """
    adam = torch.optim.Adam(moved, lr)
    rate = LambdaLR(adam, lambda iteration: rate_at(iteration, iterations))
    best, curve = (math.inf, torch.empty(0), dict[str, float]()), []
    for iteration in range(iterations):
        images, values = look()
        loss = torch.stack([weight * values[name] for name, weight in weights.items()]).sum()
        gradients = torch.autograd.grad(loss, moved, allow_unused=True)
        for tensor, gradient in zip(moved, gradients, strict=True):
            tensor.grad = gradient if gradient is None or not signed else gradient.sign()
        number = float(loss.detach())
        curve.append(number)
        if number < best[0]:
            best = (number, images.detach().clone(), {name: float(value.detach()) for name, value in values.items()})
        adam.step()
        rate.step()
        say(iteration + 1, number)
    if not math.isfinite(best[0]):
        raise FloatingPointError("no iterate of the inversion had a finite loss")
    return Reconstruction(best[1].clamp(-1, 1).cpu().numpy(), best[0], best[2], tuple(curve))
