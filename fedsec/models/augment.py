"""Differentiable augmentation of what D sees, real and fake alike (Zhao et al. 2020, DiffAugment)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Augment = Callable[[Tensor, torch.Generator], Tensor]


def none(images: Tensor, rng: torch.Generator) -> Tensor:
    return images


def flip(images: Tensor, rng: torch.Generator) -> Tensor:
    """Mirror each image left-right with probability 1/2."""
    mirrored = torch.rand(len(images), 1, 1, 1, generator=rng) < 0.5
    return torch.where(mirrored.to(images.device), images.flip(3), images)


def colour(images: Tensor, rng: torch.Generator) -> Tensor:
    """Brightness +-0.25 (of the range 2), saturation 0.5-1.5, contrast 0.75-1.25, each image its own."""
    draw = torch.rand(3, len(images), 1, 1, 1, generator=rng).to(images.device)
    images = images + (draw[0] - 0.5) * 0.5
    gray = images.mean(dim=1, keepdim=True)
    images = gray + (images - gray) * (0.5 + draw[1])
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (0.75 + 0.5 * draw[2])


def translate(images: Tensor, rng: torch.Generator) -> Tensor:
    """Shift by up to 1/8 of the side, zero (mid-gray) outside."""
    side = images.shape[3]
    reach = side // 8
    padded = F.pad(images, (reach, reach, reach, reach))
    offset = torch.randint(0, 2 * reach + 1, (2, len(images), 1), generator=rng).to(images.device)
    index = torch.arange(side, device=images.device)
    rows, columns = offset[0] + index, offset[1] + index
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def colour_translate(images: Tensor, rng: torch.Generator) -> Tensor:
    return translate(colour(images, rng), rng)


AUGMENTS: dict[str, Augment] = {
    "none": none,
    "flip": flip,
    "colour": colour,
    "translate": translate,
    "colour+translate": colour_translate,
}
