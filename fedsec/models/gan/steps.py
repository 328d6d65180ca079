"""One client's local GAN steps, from arrays to arrays. Global generators of random numbers are never touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedsec.config import RunConfig
from fedsec.images import to_images
from fedsec.models.chance import Chance
from fedsec.models.gan.augment import AUGMENTS
from fedsec.models.gan.dcgan import Discriminator, GanSpec, Generator, initialised
from fedsec.models.gan.losses import LOSSES
from fedsec.models.order import batches
from fedsec.seeds import address_seed, stream
from fedsec.types import Rows


@dataclass
class Pair:
    """A generator and a discriminator with their optimisers, alive for one round."""

    generator: Generator
    discriminator: Discriminator
    generator_optimiser: torch.optim.Adam
    discriminator_optimiser: torch.optim.Adam


@dataclass(frozen=True)
class StepLosses:
    """Losses of each step of one round, in order. (steps,)"""

    generator: tuple[float, ...]
    discriminator: tuple[float, ...]


def spec(config: RunConfig, *, channels: int, classes: int) -> GanSpec:
    return GanSpec(config.data.size, channels, classes, config.gan.latent, config.gan.width)


def new_generator(shape: GanSpec, *, seed: int) -> Generator:
    """The generator every client and the server start from."""
    with torch.device("meta"):
        network = Generator(shape)
    return initialised(network, seed=address_seed(seed, "generator"))


def new_discriminator(shape: GanSpec, norm: str, *, seed: int) -> Discriminator:
    with torch.device("meta"):
        network = Discriminator(shape, norm)
    return initialised(network, seed=address_seed(seed, "discriminator"))


def new_pair(config: RunConfig, shape: GanSpec, *, seed: int, device: str) -> Pair:
    """Equal weights for equal seeds, as one server hands them out; channels last, which the CPU runs faster."""
    generator = new_generator(shape, seed=seed)
    critic = new_discriminator(shape, LOSSES[config.gan.loss].norm, seed=seed)
    for network in (generator, critic):
        network.to(device=torch.device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    return paired(config, generator, critic)


def paired(config: RunConfig, generator: Generator, critic: Discriminator, *, capturable: bool = False) -> Pair:
    """Both networks, where they are, with fresh optimisers. ``capturable``: Adam counts its steps on the device."""
    generators, critics = (
        torch.optim.Adam(network.parameters(), config.train.lr, (config.train.beta1, 0.999), capturable=capturable)
        for network in (generator, critic)
    )
    return Pair(generator, critic, generators, critics)


def train_round(pair: Pair, rows: Rows, config: RunConfig, *, seed: int, device: str) -> StepLosses:
    """``config.train.steps`` alternating D and G steps on ``rows``."""
    chance = Chance(address_seed(seed, "latents"), device)
    return steps(
        rows, config, lambda real, classes: step(pair, config, real, classes, chance), seed=seed, device=device
    )


def steps(
    rows: Rows, config: RunConfig, take: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], *, seed: int, device: str
) -> StepLosses:
    """One round: ``take`` is given each batch's images and labels, and returns the losses of G and of D."""
    images, labels = placed(rows, device)
    losses = []
    for index in batches(len(rows), config.train.batch, config.train.steps, stream(seed, "batches")):
        chosen = torch.from_numpy(index).to(device)
        losses.append(take(images[chosen], labels[chosen]))
    generator, discriminator = (torch.stack(part).tolist() for part in zip(*losses, strict=True))  # fetched at once
    return StepLosses(tuple(generator), tuple(discriminator))


def placed(rows: Rows, device: str) -> tuple[Tensor, Tensor]:
    """Images (n, c, s, s), channels last, and labels (n,) on ``device``."""
    images = torch.from_numpy(to_images(rows.pixels)).to(device=device, memory_format=torch.channels_last)
    return images, torch.from_numpy(np.array(rows.labels)).to(device)


def step(pair: Pair, config: RunConfig, real: Tensor, classes: Tensor, chance: Chance) -> tuple[Tensor, Tensor]:
    """One D and one G step, D first, as the release; the losses of G and of D, which stay on the device.

    The generator's step reuses the fake batch of the discriminator's step, which saves one forward pass.
    """
    loss, augment = LOSSES[config.gan.loss], AUGMENTS[config.gan.augment]
    pair.generator.train()
    pair.discriminator.train()
    critic = pair.discriminator
    fake = pair.generator(chance.normal(len(real), config.gan.latent), classes)

    score_real, score_fake = critic(augment(real, chance), classes), critic(augment(fake.detach(), chance), classes)
    loss_d = loss.discriminator(score_real, score_fake)
    if loss.penalty is not None:
        loss_d = loss_d + config.train.penalty * loss.penalty(lambda x: critic(x, classes), real, fake.detach(), chance)
    pair.discriminator_optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss_d)
    pair.discriminator_optimiser.step()

    critic.requires_grad_(False)
    loss_g = loss.generator(critic(augment(fake, chance), classes))
    critic.requires_grad_(True)
    pair.generator_optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss_g)
    pair.generator_optimiser.step()
    return loss_g.detach(), loss_d.detach()
