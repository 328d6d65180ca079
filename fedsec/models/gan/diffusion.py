"""Denoising diffusion (Ho et al. 2020) of small images: a client's training round, and sampling without chance.

Images x are noised as z = alpha x + sigma e with alpha^2 = ``schedule()[step]``, sigma^2 = 1 - alpha^2, e ~ N(0, 1).
The network predicts v = alpha e - sigma x (Salimans & Ho 2022, app. D).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from fedsec.config import RunConfig
from fedsec.images import to_images
from fedsec.models.gan.denoiser import STEPS, Denoiser, DiffusionSpec, new_denoiser
from fedsec.models.order import batches
from fedsec.models.state import load_network
from fedsec.seeds import address_seed, stream
from fedsec.types import Arrays, Images, Labels, Rows, Vector

__all__ = [
    "STEPS",
    "Denoiser",
    "DiffusionSpec",
    "common_noise",
    "ddim",
    "diffusion_loss",
    "generate_diffusion",
    "levels",
    "new_denoiser",
    "new_optimiser",
    "noised",
    "schedule",
    "train_diffusion_round",
    "velocity",
]

Network = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(noisy (n, c, s, s), step (n,), labels (n,)) -> predicted v (n, c, s, s), as a Denoiser."""

CHUNK = 200
"""Images denoised at once; changes memory, not the answer."""


def new_optimiser(network: Denoiser, config: RunConfig) -> torch.optim.Adam:
    """Adam by ``train.lr`` and ``train.beta1``: 2e-3, ten times a GAN's, since nobody plays against it, and its
    source's 0.9 (Kingma & Ba 2015) did well at 32 px."""
    return torch.optim.Adam(network.parameters(), config.train.lr, (config.train.beta1, 0.999))


@cache
def schedule() -> Vector:
    """alpha_bar of each step, (STEPS,) float64, read-only, falling from nearly 1 to nearly 0.

    The cosine of Nichol & Dhariwal 2021, eq. 17 with s = 0.008; as there, no beta exceeds 0.999.
    """
    angle = (np.arange(STEPS + 1) / STEPS + 0.008) / 1.008 * np.pi / 2
    ideal = np.cos(angle) ** 2
    kept = np.maximum(ideal[1:] / ideal[:-1], 0.001)
    alpha_bar: Vector = np.cumprod(kept)
    alpha_bar.setflags(write=False)
    return alpha_bar


def levels(step: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma of each step, (n, 1, 1, 1) float32."""
    alpha_bar = torch.from_numpy(np.array(schedule())).to(step.device)[step][:, None, None, None]
    return alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float()


def noised(images: Tensor, step: Tensor, noise: Tensor) -> Tensor:
    """z = alpha x + sigma e (Ho et al. 2020, eq. 4)."""
    alpha, sigma = levels(step)
    return alpha * images + sigma * noise


def velocity(images: Tensor, step: Tensor, noise: Tensor) -> Tensor:
    """v = alpha e - sigma x (Salimans & Ho 2022, app. D): what a perfect network predicts."""
    alpha, sigma = levels(step)
    return alpha * noise - sigma * images


def diffusion_loss(network: Network, images: Tensor, labels: Tensor, rng: torch.Generator) -> Tensor:
    """Mean squared error of v on one draw of step and noise for each image (Ho et al. 2020, eq. 14, in v).

    The steps of a batch lie evenly on [0, STEPS) behind one random start (Kingma et al. 2021, app. I.1): the loss then
    tells little of which steps were drawn, and a reader of losses more of the images.
    """
    count = len(images)
    place = (torch.rand(1, generator=rng, dtype=torch.float64) + torch.arange(count) / count) % 1
    step = (place * STEPS).long().clamp(max=STEPS - 1).to(images.device)
    noise = torch.randn(images.shape, generator=rng).to(images.device)
    predicted = network(noised(images, step, noise), step, labels)
    return (predicted - velocity(images, step, noise)).square().mean()


def train_diffusion_round(
    network: Denoiser, optimiser: torch.optim.Adam, rows: Rows, config: RunConfig, *, seed: int, device: str
) -> tuple[float, ...]:
    """``config.train.steps`` steps of ``config.train.batch`` images on ``rows``; the loss of each step, in order."""
    images = torch.from_numpy(to_images(rows.pixels)).to(device=device, memory_format=torch.channels_last)
    labels = torch.from_numpy(np.array(rows.labels)).to(device)
    rng = torch.Generator().manual_seed(address_seed(seed, "noise"))
    network.train()
    losses = []
    for index in batches(len(rows), config.train.batch, config.train.steps, stream(seed, "batches")):
        chosen = torch.from_numpy(index).to(device)
        loss = diffusion_loss(network, images[chosen], labels[chosen], rng)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(float(loss.detach()))
    return tuple(losses)


@torch.no_grad()
def ddim(network: Network, labels: Tensor, noise: Tensor, *, steps: int = 50) -> Tensor:
    """Images (n, c, s, s) in [-1, 1] from ``noise`` (n, c, s, s), in ``steps`` evenly spaced steps from STEPS - 1 to 0.

    Deterministic: eq. 12 of Song et al. 2021 with eta = 0. The predicted image is clipped to [-1, 1] at each step, as
    the releases of Ho et al. do, and the noise is then what is left of z. 1 <= steps <= STEPS.
    """
    assert 1 <= steps <= STEPS, steps
    parts = [
        _denoised(network, labels[i : i + CHUNK], noise[i : i + CHUNK], steps) for i in range(0, len(noise), CHUNK)
    ]
    return torch.cat(parts)


def _denoised(network: Network, labels: Tensor, z: Tensor, steps: int) -> Tensor:
    alpha_bar = schedule()
    times = np.linspace(STEPS - 1, 0, steps).round().astype(np.int64)
    image = z
    for now, then in zip(times, [*times[1:], None], strict=True):
        alpha, sigma = float(np.sqrt(alpha_bar[now])), float(np.sqrt(1 - alpha_bar[now]))
        v = network(z, torch.full((len(z),), int(now), device=z.device), labels)
        image = (alpha * z - sigma * v).clamp(-1, 1)
        if then is not None:
            left = (z - alpha * image) / sigma
            z = float(np.sqrt(alpha_bar[then])) * image + float(np.sqrt(1 - alpha_bar[then])) * left
    return image


def common_noise(count: int, shape: DiffusionSpec, *, seed: int) -> Tensor:
    """(count, c, s, s): the same for every arm and round of a seed, whatever the count (a prefix of one sequence)."""
    rng = torch.Generator().manual_seed(address_seed(seed, "common noise"))
    return torch.randn(count, shape.channels, shape.size, shape.size, generator=rng)


def generate_diffusion(
    arrays: Arrays, shape: DiffusionSpec, labels: Labels, *, seed: int, steps: int, device: str = "cpu"
) -> Images:
    """Images (n, c, s, s) for ``labels`` from the common noise of ``seed``, by ``steps`` steps of ``ddim``."""
    with torch.device("meta"):
        network = Denoiser(shape)
    network.to_empty(device="cpu")
    load_network(network, arrays)
    network.to(device=torch.device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.eval()
    noise = common_noise(len(labels), shape, seed=seed)
    noise = noise.to(device=device, memory_format=torch.channels_last)
    images = ddim(network, torch.from_numpy(np.array(labels)).to(device), noise, steps=steps)
    return images.contiguous().cpu().numpy()
