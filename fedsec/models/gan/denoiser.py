"""The denoising network: a small conditional U-Net (Ho et al. 2020, app. B; Ronneberger et al. 2015), made for CPUs.

Departures from Ho et al., all for speed: the full resolution has THIN channels and a single residual block, on the way
out, which passes the noise on (without it the loss falls half as fast); one block a level and direction elsewhere;
skips are added, not joined; no attention, which at 4x4 pixels a 3x3 convolution nearly is. Step and label enter each
block as scale and shift after its second norm (Dhariwal & Nichol 2021, sec. 3, adaptive group normalisation). GroupNorm
keeps no statistics: weights are all that travels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsec.errors import ConfigError
from fedsec.models.gan.dcgan import IMAGE_SIZES
from fedsec.seeds import address_seed

STEPS = 1000
"""Diffusion steps of training (Ho et al. 2020, sec. 4): 0 is nearly clean, STEPS - 1 is noise."""
GROUP = 16
"""Channels a norm takes together; ``width`` is a multiple of it."""
THIN = 16
"""Channels at full resolution."""


@dataclass(frozen=True)
class DiffusionSpec:
    """What fixes the shape of the denoiser.

    ``size``: pixels a side, one of IMAGE_SIZES. ``channels``: 3 (RGB) or 1 (gray). ``classes``: number of labels.
    ``width``: channels at half the resolution, a multiple of GROUP; doubled at each halving, at most to 4 x width.
    Errors: ConfigError for a size or width outside these.
    """

    size: int = 32
    channels: int = 3
    classes: int = 2
    width: int = 32

    def __post_init__(self) -> None:
        if self.size not in IMAGE_SIZES:
            raise ConfigError(f"image size {self.size} is not supported: choose one of {IMAGE_SIZES}")
        if self.width < GROUP or self.width % GROUP:
            raise ConfigError(f"denoiser width {self.width} is not supported: choose a multiple of {GROUP}")

    @property
    def widths(self) -> list[int]:
        """Channels from half the resolution down to 4x4."""
        levels = (self.size // 4).bit_length() - 1
        return [self.width * min(2**i, 4) for i in range(levels)]


class Block(nn.Module):
    """x (n, c, s, s), condition (n, d) -> (n, c, s, s): two convolutions beside the identity, zero at the start."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.first_norm = nn.GroupNorm(channels // GROUP, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(condition, 2 * channels)
        self.second_norm = nn.GroupNorm(channels // GROUP, channels, affine=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        inner = self.first(F.silu(self.first_norm(x)))
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)
        inner = self.second_norm(inner) * (1 + scale) + shift
        out: Tensor = x + self.second(F.silu(inner))
        return out


class Denoiser(nn.Module):
    """noisy (n, c, s, s), step (n,) int64 in [0, STEPS), labels (n,) int64 -> predicted (n, c, s, s).

    What is predicted is the trainer's choice; see ``fedsec.models.gan.diffusion``.
    """

    def __init__(self, spec: DiffusionSpec) -> None:
        super().__init__()
        self.spec = spec
        widths = spec.widths
        condition = 4 * spec.width
        self.step = nn.Sequential(nn.Linear(condition, condition), nn.SiLU(), nn.Linear(condition, condition))
        self.label = nn.Embedding(spec.classes, condition)
        self.stem = nn.Conv2d(spec.channels, THIN, 3, 1, 1)
        self.enter = nn.Conv2d(THIN, widths[0], 4, 2, 1)
        self.down = nn.ModuleList(Block(width, condition) for width in widths)
        self.narrow = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(Block(width, condition) for width in widths[::-1])
        self.widen = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairwise(widths[::-1]))
        self.leave = nn.ConvTranspose2d(widths[0], THIN, 4, 2, 1)
        self.last = Block(THIN, condition)
        self.norm = nn.GroupNorm(THIN // GROUP, THIN)
        self.head = nn.Conv2d(THIN, spec.channels, 3, 1, 1)

    def forward(self, noisy: Tensor, step: Tensor, labels: Tensor) -> Tensor:
        condition = F.silu(self.step(sinusoids(step, 4 * self.spec.width)) + self.label(labels))
        thin = self.stem(noisy)
        x = self.enter(thin)
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            if level:
                x = self.narrow[level - 1](x)
            x = block(x, condition)
            skips.append(x)
        for level, block in enumerate(self.up):
            if level:
                x = F.interpolate(self.widen[level - 1](x), scale_factor=2.0) + skips[-1 - level]
            x = block(x, condition)
        x = self.last(thin + self.leave(x), condition)
        out: Tensor = self.head(F.silu(self.norm(x)))
        return out


def sinusoids(step: Tensor, length: int) -> Tensor:
    """(n,) -> (n, length) float32: sines and cosines at geometric wavelengths (Vaswani et al. 2017, sec. 3.5)."""
    half = length // 2
    frequencies = torch.exp(torch.arange(half, device=step.device) * (-math.log(10_000) / half))
    angles = step[:, None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def new_denoiser(shape: DiffusionSpec, *, seed: int) -> Denoiser:
    """The denoiser every client and the server start from; channels last, which the CPU runs faster.

    Weights N(0, 1 / fan-in), biases 0, label embeddings N(0, 1); each block's second convolution and the head start
    at 0 (Ho et al. 2020, app. B). Drawn from a generator of our own; equal seeds give equal weights.
    """
    with torch.device("meta"):
        network = Denoiser(shape)
    rng = torch.Generator().manual_seed(address_seed(seed, "denoiser"))
    network.to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, module.weight[0].numel() ** -0.5, generator=rng)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, generator=rng)
        elif isinstance(module, nn.GroupNorm) and module.affine:
            nn.init.ones_(module.weight)
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter):
            nn.init.zeros_(bias)
    for last in [network.head, *(block.second for block in network.modules() if isinstance(block, Block))]:
        nn.init.zeros_(last.weight)
    return network.to(memory_format=torch.channels_last)
