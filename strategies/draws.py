"""What fed-inspect draws from each uploaded generator in a round: how many images, and on which latents."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedsec.config import RunConfig
from fedsec.models.gan.sampling import sample
from fedsec.seeds import address_seed
from fedsec.types import Arrays, Images, Labels
from fedsec.weights import generator_arrays

INSPECTED = 64
"""Images of each class. 0.12 s a client and round at 32 px (DCGAN, one thread), 0.03 s with 16; a generator that is to
behave on them has four times as many to learn by heart."""
INSPECTING_STEPS = 8
"""Denoising steps it takes for that: mean images need no fine ones."""


class Inspector:
    """Draws the same latents from every generator: as many of each class, in one batch, whose statistics BatchNorm
    takes. ``channels`` and ``classes``: of the data."""

    def __init__(self, config: RunConfig, *, channels: int, classes: int) -> None:
        gan = config.gan
        self.quick = replace(config, gan=replace(gan, denoising=min(gan.denoising, INSPECTING_STEPS)))
        self.channels, self.classes = channels, classes
        self.labels: Labels = np.arange(INSPECTED * classes) % classes

    def draw(self, arrays: Arrays, seed: int) -> Images:
        """Images for ``labels`` of the generator in ``arrays``, which are what a client sends."""
        generator = generator_arrays(arrays)
        return sample(self.quick, generator, self.labels, channels=self.channels, classes=self.classes, seed=seed)


def secret_latents(secret: int, number: int) -> int:
    """The seed of round ``number``'s latents, from what the server alone has.

    In a simulation ``secret`` is the cell's seed, so that a run repeats itself; no client computes this address.
    """
    return address_seed(secret, "server", "inspect", number)


def public_latents(seed: int, number: int) -> int:
    """The same from the run's seed, which every task carries: what anybody can compute, as it was at first."""
    return address_seed(seed, "inspect", number)
