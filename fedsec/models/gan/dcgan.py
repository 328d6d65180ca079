"""Conditional DCGAN for small medical images (Radford et al. 2016; labels after Mirza & Osindero 2014).

The discriminator sees the label as constant input maps and ends in a minibatch-deviation channel
(Karras et al. 2018, sec. 3), which is what keeps the generator from ignoring its latent when a client holds only a
few hundred images. docs/models.md tells what else was tried and how it measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

from fedsec.errors import ConfigError

IMAGE_SIZES = (32, 64, 128)
NORMS = ("batch", "instance", "none")
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class GanSpec:
    """What fixes the shape of both networks.

    ``size``: pixels a side, one of IMAGE_SIZES. ``channels``: 3 (RGB) or 1 (gray). ``classes``: number of labels.
    ``latent``: length of z. ``width``: channels of the widest-resolution layer; doubled at each halving.
    """

    size: int = 32
    channels: int = 3
    classes: int = 2
    latent: int = 64
    width: int = 32

    def __post_init__(self) -> None:
        if self.size not in IMAGE_SIZES:
            raise ConfigError(f"image size {self.size} is not supported: choose one of {IMAGE_SIZES}")

    @property
    def widths(self) -> list[int]:
        """Channels from the highest resolution down to 4x4, capped at 8 x width."""
        steps = (self.size // 4).bit_length() - 1
        return [self.width * min(2**i, 8) for i in range(steps)]


class Generator(nn.Module):
    """z (n, latent), labels (n,) int64 -> Images (n, channels, size, size) in [-1, 1]."""

    def __init__(self, spec: GanSpec) -> None:
        super().__init__()
        self.spec = spec
        widths = spec.widths[::-1]
        self.embed = nn.Embedding(spec.classes, spec.latent)
        self.stem = nn.Linear(2 * spec.latent, widths[0] * 16)
        blocks: list[nn.Module] = [nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)]
        for wide, narrow in pairwise(widths):
            blocks += [
                nn.ConvTranspose2d(wide, narrow, 4, 2, 1, bias=False),
                nn.BatchNorm2d(narrow),
                nn.ReLU(inplace=True),
            ]
        blocks += [nn.ConvTranspose2d(widths[-1], spec.channels, 4, 2, 1), nn.Tanh()]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        stem = self.stem(torch.cat([z, self.embed(labels)], dim=1))
        images: Tensor = self.blocks(stem.view(len(z), -1, 4, 4))
        return images


class MinibatchDeviation(nn.Module):
    """Append one channel: the deviation over the batch, averaged over features (Karras et al. 2018, sec. 3)."""

    def forward(self, x: Tensor) -> Tensor:
        deviation = torch.sqrt((x - x.mean(dim=0)).square().mean(dim=0) + 1e-8).mean()  # x.var is slow here
        return torch.cat([x, deviation.expand(len(x), 1, *x.shape[2:])], dim=1)


class Discriminator(nn.Module):
    """Images (n, channels, size, size), labels (n,) int64 -> logits (n,); positive means real.

    ``deviation`` False leaves MinibatchDeviation out: with a ``norm`` other than batch no image then sees another.
    """

    def __init__(self, spec: GanSpec, norm: str = "batch", deviation: bool = True) -> None:
        super().__init__()
        if norm not in NORMS:
            raise ConfigError(f"discriminator norm {norm!r} is unknown: choose one of {NORMS}")
        self.spec = spec
        widths = spec.widths
        blocks: list[nn.Module] = [
            nn.Conv2d(spec.channels + spec.classes, widths[0], 4, 2, 1),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for narrow, wide in pairwise(widths):
            blocks.append(nn.Conv2d(narrow, wide, 4, 2, 1, bias=norm == "none"))
            if norm == "batch":
                blocks.append(nn.BatchNorm2d(wide))
            elif norm == "instance":
                blocks.append(nn.InstanceNorm2d(wide, affine=True))
            blocks.append(nn.LeakyReLU(0.2, inplace=True))
        if deviation:
            blocks.append(MinibatchDeviation())
        blocks.append(nn.Conv2d(widths[-1] + deviation, 1, 4))
        self.blocks = nn.Sequential(*blocks)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        one_hot = torch.nn.functional.one_hot(labels, self.spec.classes).to(images.dtype)
        maps = one_hot[:, :, None, None].expand(-1, -1, *images.shape[2:])
        logits: Tensor = self.blocks(torch.cat([images, maps], dim=1))
        return logits.view(len(images))


def initialised(network: Network, *, seed: int) -> Network:
    """``network`` (built on the meta device) on the CPU with DCGAN's initial weights: N(0, 0.02), norm scales
    N(1, 0.02), biases 0 (Radford et al. 2016, sec. 4); label embeddings N(0, 1).

    Drawn from a generator of our own: arms are built side by side in threads, and torch's global one is shared.
    """
    rng = torch.Generator().manual_seed(seed)
    network.to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.02, generator=rng)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, generator=rng)
        elif isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02, generator=rng)
            module.reset_running_stats()
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter):
            nn.init.zeros_(bias)
    return network
