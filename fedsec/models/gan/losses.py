"""Adversarial losses. Each row of LOSSES says how D and G are scored, D's penalty, and the norm D can carry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fedsec.models.chance import Chance

Critic = Callable[[Tensor], Tensor]
Penalty = Callable[[Critic, Tensor, Tensor, Chance], Tensor]


@dataclass(frozen=True)
class GanLoss:
    """``discriminator(real logits, fake logits)`` and ``generator(fake logits)`` are scalars to minimise."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]
    penalty: Penalty | None
    norm: str


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, chance: Chance) -> Tensor:
    """E[(||grad D(x_hat)||_2 - 1)^2] on uniform mixtures (Gulrajani et al. 2017, eq. 3).

    The SASHIMI release of FedDetect draws the mixture from a normal distribution; we draw it uniformly as the source.
    """
    mix = chance.uniform(len(real), 1, 1, 1)
    inner = (mix * real + (1 - mix) * fake).requires_grad_(True)
    (grad,) = torch.autograd.grad(critic(inner).sum(), inner, create_graph=True)
    penalty: Tensor = (grad.flatten(1).norm(dim=1) - 1).square().mean()
    return penalty


LOSSES: dict[str, GanLoss] = {
    # Goodfellow et al. 2014, sec. 3: D minimises cross-entropy, G maximises log D(G(z)).
    "non-saturating": GanLoss(
        lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
        lambda fake: F.softplus(-fake).mean(),
        None,
        "batch",
    ),
    # Miyato et al. 2018, eqs. 16-17.
    "hinge": GanLoss(
        lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
        lambda fake: -fake.mean(),
        None,
        "batch",
    ),
    # Gulrajani et al. 2017; no batch norm in the critic, since the penalty is per sample.
    "wgan-gp": GanLoss(
        lambda real, fake: fake.mean() - real.mean(),
        lambda fake: -fake.mean(),
        gradient_penalty,
        "instance",
    ),
}
