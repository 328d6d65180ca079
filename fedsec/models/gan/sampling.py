"""Images from a generator's arrays, on latents that depend on the seed alone: the same for every arm and round."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from fedsec.config import RunConfig
from fedsec.models.gan.dcgan import GanSpec, Generator
from fedsec.models.gan.diffusion import DiffusionSpec, generate_diffusion
from fedsec.models.gan.steps import spec
from fedsec.models.state import load_network
from fedsec.seeds import address_seed
from fedsec.types import Arrays, Dataset, Images, Labels


def common_latents(count: int, latent: int, *, seed: int) -> torch.Tensor:
    return torch.randn(count, latent, generator=torch.Generator().manual_seed(address_seed(seed, "common latents")))


def balanced_labels(train_labels: Labels, count: int) -> Labels:
    """``count`` labels in the proportions of the real training set, interleaved so that any prefix is balanced."""
    shares = np.bincount(train_labels) / len(train_labels)
    given = np.zeros(len(shares))
    labels = np.empty(count, np.int64)
    for i in range(count):
        labels[i] = int(np.argmax(shares * (i + 1) - given))
        given[labels[i]] += 1
    return labels


def sample(
    config: RunConfig, arrays: Arrays, labels: Labels, *, channels: int, classes: int, seed: int, device: str = "cpu"
) -> Images:
    """Images (n, c, s, s) for ``labels`` from a generator of any family, on the latents of ``seed``."""
    return SAMPLERS[config.gan.family](config, arrays, labels, channels, classes, seed, device)


def _dcgan(
    config: RunConfig, arrays: Arrays, labels: Labels, channels: int, classes: int, seed: int, device: str
) -> Images:
    shape = spec(config, channels=channels, classes=classes)
    return generate(arrays, shape, labels, seed=seed, statistics=config.gan.statistics, device=device)


def _diffusion(
    config: RunConfig, arrays: Arrays, labels: Labels, channels: int, classes: int, seed: int, device: str
) -> Images:
    shape = DiffusionSpec(config.data.size, channels, classes, config.gan.width)
    return generate_diffusion(arrays, shape, labels, seed=seed, steps=config.gan.denoising, device=device)


SAMPLERS: dict[str, Callable[..., Images]] = {"dcgan": _dcgan, "diffusion": _diffusion}


@torch.no_grad()
def generate(
    arrays: Arrays, shape: GanSpec, labels: Labels, *, seed: int, statistics: str, device: str = "cpu"
) -> Images:
    """Images (n, c, s, s) for ``labels`` on the common latents of ``seed``.

    With ``statistics = 'local'`` the BatchNorm running statistics never left the clients: they are measured here on
    the common latents themselves, which no client's data enters.
    """
    generator = Generator(shape)
    load_network(generator, arrays)
    generator.to(device)
    z = common_latents(len(labels), shape.latent, seed=seed).to(device)
    y = torch.from_numpy(labels).to(device)
    if statistics == "local":
        remeasure_statistics(generator, z, y)
    generator.eval()
    parts = [generator(z[i : i + 500], y[i : i + 500]) for i in range(0, len(z), 500)]
    return torch.cat(parts).cpu().numpy()


@torch.no_grad()
def remeasure_statistics(generator: Generator, z: torch.Tensor, labels: torch.Tensor) -> None:
    """Set every BatchNorm's running statistics to those of one large batch of latents."""
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    generator.train()
    generator(z, labels)


def draw(data: Dataset, config: RunConfig, generator: Arrays, count: int) -> tuple[Images, Labels]:
    """``count`` images on the latents that no arm or round changes, labelled as the training set is."""
    labels = balanced_labels(data.labels[data.train], count)
    classes = len(data.class_names)
    images = sample(config, generator, labels, channels=data.channels, classes=classes, seed=config.data.seed)
    return images, labels
