"""Sample-level differential privacy of a local GAN: DP-SGD in the discriminator's step, by Opacus.

DP-GAN (Xie et al. 2018) with DP-SGD (Abadi et al. 2016): only the discriminator sees real images, so its gradients are
clipped image by image and noised; the generator, and with it all that leaves the site, is computed from the result.
``Accountant(multiplier, delta, Poisson(batch / rows), "site", "image").epsilon(steps of all rounds)`` of
fedsec.privacy.accounting says what that gives, against everybody outside the site: neighbours are the site's images
with and without one. Sampling counts there because who is drawn comes from the site's secret and is told to nobody.

The guarantee needs: each image once in ``rows`` (mirrored ones are drawn here, a copy would count twice); nothing
reported that reads images elsewhere, so only generator losses come back; the number of rows public. It is for an image,
not for a patient or lesion that has several.

| input                                    | what happens                                                            |
| Poisson sample is empty                  | the step goes on with fakes and noise; its size is nobody's to know     |
| gradient of an image is not finite       | it counts as zero; a NaN must not switch the clip off                   |
| one image's gradient is huge             | it moves the weights by lr bound / batch (plain SGD), up to rounding    |
| multiplier 0                             | clipped, not noised: no guarantee                                       |
| BatchNorm or minibatch deviation         | ConfigError: images would see each other, no gradient is one image's    |
| a loss with a gradient penalty           | ConfigError: Opacus has no gradient of a gradient by image              |

Departures: Xie et al. train a Wasserstein critic and clip its weights; here any loss of LOSSES without a penalty. Fakes
carry uniform labels, not those of the real batch, which are private. Their gradients are clipped too, without need, so
that real and fake keep their balance. Noise is torch's, from a seed, so that a simulation repeats; a deployment needs
a cryptographic source, and noise safe from floating-point attacks (secure_mode in Opacus).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from fedsec.config import RunConfig
from fedsec.errors import ConfigError, all_at_once
from fedsec.images import to_images
from fedsec.models.chance import Chance
from fedsec.models.gan.augment import AUGMENTS, flip
from fedsec.models.gan.dcgan import Discriminator, GanSpec, MinibatchDeviation, initialised
from fedsec.models.gan.losses import LOSSES, GanLoss
from fedsec.models.gan.steps import Pair, new_generator, paired
from fedsec.seeds import address_seed, stream
from fedsec.types import Rows


@dataclass(frozen=True)
class Noise:
    """``bound``: L2 norm an image's gradient is clipped to. ``multiplier``: standard deviation of the noise on the sum
    of a step, over bound. ``batch``: images expected a step, whatever is drawn."""

    bound: float
    multiplier: float
    batch: int

    def __post_init__(self) -> None:
        rules = {
            f"gradient bound {self.bound}: must be finite and positive": 0 < self.bound < float("inf"),
            f"noise multiplier {self.multiplier}: must be finite and not negative": 0 <= self.multiplier < float("inf"),
            f"batch {self.batch}: must be at least 1": self.batch >= 1,
        }
        all_at_once(
            ConfigError, "the discriminator cannot be private", [rule for rule, kept in rules.items() if not kept]
        )


def private_discriminator(shape: GanSpec, *, seed: int) -> Discriminator:
    """A discriminator in which no image sees another: instance norm, no minibatch deviation."""
    with torch.device("meta"):
        network = Discriminator(shape, "instance", deviation=False)
    for module in network.modules():
        if isinstance(module, nn.LeakyReLU):
            module.inplace = False  # what Opacus hooks into must not be overwritten
    return initialised(network, seed=address_seed(seed, "discriminator"))


def private_pair(config: RunConfig, shape: GanSpec, *, seed: int, device: str) -> Pair:
    """``new_pair`` with a private discriminator."""
    return paired(
        config, new_generator(shape, seed=seed).to(device), private_discriminator(shape, seed=seed).to(device)
    )


def poisson(rows: int, batch: int, steps: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Row indices of each step: every row by its own coin with probability batch / rows."""
    if batch > rows:
        raise ConfigError(f"batch {batch} of {rows} images: a private site needs at least as many images as a batch")
    return [np.flatnonzero(rng.random(rows) < batch / rows) for _ in range(steps)]


class PrivateStep:
    """The discriminator's step of DP-SGD, for as long as ``critic`` is trained by it; ``close`` takes the hooks off.

    ``critic``: from ``private_discriminator``. ``optimiser``: of its parameters; its moments see noised gradients only.
    ``seed``: of the noise.
    """

    def __init__(
        self, critic: Discriminator, optimiser: torch.optim.Optimizer, loss: GanLoss, noise: Noise, *, seed: int
    ) -> None:
        mixing = {type(m).__name__ for m in critic.modules() if isinstance(m, nn.BatchNorm2d | MinibatchDeviation)}
        mistakes = [f"{name} lets images see each other: take private_discriminator" for name in sorted(mixing)]
        if loss.penalty is not None:
            mistakes.append("a gradient penalty has no gradient by image: take gan.loss 'non-saturating' or 'hinge'")
        all_at_once(ConfigError, "the discriminator cannot be private", mistakes)
        self.critic, self.loss = critic, loss
        self.hooks: Any = GradSampleModule(critic, loss_reduction="sum")
        self.optimiser: Any = DPOptimizer(
            optimiser,
            noise_multiplier=noise.multiplier,
            max_grad_norm=noise.bound,
            expected_batch_size=noise.batch,
            generator=torch.Generator(next(critic.parameters()).device).manual_seed(seed),
        )

    def __call__(self, real: Tensor, labels: Tensor, fake: Tensor, fake_labels: Tensor) -> None:
        """One step: (sum of clipped gradients of real and fake + N(0, (multiplier bound)^2)) / batch to the optimiser.

        ``real``: a Poisson sample, possibly empty. ``fake``, ``fake_labels``: made without a look at real images.
        """
        self.optimiser.zero_grad(set_to_none=True)
        images = torch.cat([real, fake.detach()]).requires_grad_(True)  # else backward hooks of the first layer warn
        scores = self.critic(images, torch.cat([labels, fake_labels]))
        torch.autograd.backward(summed(self.loss, scores[: len(real)], scores[len(real) :]))
        self._zero_what_is_not_finite()
        self.optimiser.step()

    @contextmanager
    def frozen(self) -> Iterator[Discriminator]:
        """The discriminator as the generator's forward and backward pass need it: no gradient of its own, no hooks."""
        self.hooks.disable_hooks()
        self.critic.requires_grad_(False)
        try:
            yield self.critic
        finally:
            self.critic.requires_grad_(True)
            self.hooks.enable_hooks()

    def close(self) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        self.hooks.remove_hooks()

    def _zero_what_is_not_finite(self) -> None:
        gradients: list[Tensor] = self.optimiser.grad_samples
        squares = torch.stack([gradient.flatten(1).square().sum(dim=1) for gradient in gradients]).sum(dim=0)
        broken = ~squares.isfinite()
        if bool(broken.any()):
            for gradient in gradients:
                gradient[broken] = 0


def summed(loss: GanLoss, real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss summed, not averaged, over images: one's gradient does not depend on how many came."""
    total = len(fake) * loss.discriminator(fake.detach() if len(real) == 0 else real.detach(), fake)
    return total if len(real) == 0 else total + len(real) * loss.discriminator(real, fake.detach())


def train_private_round(
    pair: Pair, rows: Rows, config: RunConfig, noise: Noise, *, seed: int, device: str
) -> tuple[float, ...]:
    """``train_round`` with private steps of the discriminator; ``pair`` from ``private_pair``.

    Returns the generator's loss of each step, which is as private as the discriminator it is read from. Raises
    ConfigError on a site with fewer images than a batch.
    """
    loss, augment = LOSSES[config.gan.loss], AUGMENTS[config.gan.augment]
    images = torch.from_numpy(to_images(rows.pixels)).to(device)
    labels = torch.from_numpy(np.array(rows.labels)).to(device)
    latents, views = (Chance(address_seed(seed, name), device) for name in ("latents", "views"))
    samples = poisson(len(rows), noise.batch, config.train.steps, stream(seed, "batches"))
    pair.generator.train()
    pair.discriminator.train()
    step = PrivateStep(pair.discriminator, pair.discriminator_optimiser, loss, noise, seed=address_seed(seed, "noise"))
    losses: list[float] = []
    for index in samples:
        chosen = torch.from_numpy(index).to(device)
        real = flip(images[chosen], views) if config.gan.mirror else images[chosen]
        classes = latents.below(pair.generator.spec.classes, noise.batch)
        fake = pair.generator(latents.normal(noise.batch, config.gan.latent), classes)
        step(augment(real, views), labels[chosen], augment(fake.detach(), views), classes)
        with step.frozen() as critic:
            loss_g = loss.generator(critic(augment(fake, views), classes))
            pair.generator_optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss_g)
        pair.generator_optimiser.step()
        losses.append(float(loss_g.detach()))
    step.close()
    return tuple(losses)
