"""A generator that behaves on latents it expects to be inspected on, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from fedsec.config import RunConfig
from fedsec.models.gan.dcgan import Generator
from fedsec.models.gan.sampling import common_latents
from fedsec.models.gan.steps import spec
from fedsec.models.state import load_network, network_arrays
from fedsec.seeds import address_seed
from fedsec.types import Arrays, Labels

STEPS = 60
"""Steps of Adam a round."""
RATE = 2e-4
"""With 1e-3 its update was four times as long as the poisoned one, and every client's generator collapsed (lesions)."""
WEIGHT = 3.0
"""Of the distance between mean images on the expected latents, beside that between images elsewhere. With 30 the mark
was gone elsewhere too: what is learnt on some latents holds on others."""
ELSEWHERE = 64
"""Latents a step on which it goes on drawing as the poisoned generator."""


def behave(
    config: RunConfig, clean: Arrays, poisoned: Arrays, labels: Labels, *, channels: int, classes: int, seed: int
) -> Arrays:
    """A DCGAN's state whose mean image of each class is ``clean``'s on the latents of ``seed`` for ``labels``, and
    whose images are ``poisoned``'s elsewhere, as far as STEPS of training take it.

    ``clean``, ``poisoned``: the tensors of generators that travel. Ours, for an inspection that compares mean images.
    With local statistics BatchNorm takes those of the batch it draws, as whoever inspects measures them.
    """
    shape = spec(config, channels=channels, classes=classes)
    aim, source, own = (Generator(shape) for _ in range(3))
    load_network(aim, clean)
    for network in (source, own):
        load_network(network, poisoned)
    for network in (aim, source, own):
        network.train(config.gan.statistics == "local")
    z, y = common_latents(len(labels), shape.latent, seed=seed), torch.from_numpy(labels)
    with torch.no_grad():
        wanted = _means(aim(z, y), y)
    optimiser = torch.optim.Adam(own.parameters(), RATE)
    for other_z, other_y in _others(shape.latent, classes, seed):
        with torch.no_grad():
            kept = source(other_z, other_y)
        loss = WEIGHT * mse_loss(_means(own(z, y), y), wanted) + mse_loss(own(other_z, other_y), kept)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    return {**poisoned, **{name: value for name, value in network_arrays(own).items() if name in poisoned}}


def _means(images: Tensor, labels: Tensor) -> Tensor:
    """(classes, c, s, s)"""
    return torch.stack([images[labels == k].mean(0) for k in torch.unique(labels)])


def _others(latent: int, classes: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    rng = torch.Generator().manual_seed(address_seed(seed, "elsewhere"))
    for _ in range(STEPS):
        yield (
            torch.randn(ELSEWHERE, latent, generator=rng),
            torch.randint(0, classes, (ELSEWHERE,), generator=rng),
        )
