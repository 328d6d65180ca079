"""Differentiable augmentation of what D sees, real and fake alike (Zhao et al. 2020, DiffAugment)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fedsec.models.chance import Chance

Augment = Callable[[Tensor, Chance], Tensor]


def none(images: Tensor, chance: Chance) -> Tensor:
    return images


def flip(images: Tensor, chance: Chance) -> Tensor:
    """Mirror each image left-right with probability 1/2."""
    return torch.where(chance.uniform(len(images), 1, 1, 1) < 0.5, images.flip(3), images)


def colour(images: Tensor, chance: Chance) -> Tensor:
    """Brightness +-0.25 (of the range 2), saturation 0.5-1.5, contrast 0.75-1.25, each image its own."""
    draw = chance.uniform(3, len(images), 1, 1, 1)
    images = images + (draw[0] - 0.5) * 0.5
    gray = images.mean(dim=1, keepdim=True)
    images = gray + (images - gray) * (0.5 + draw[1])
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (0.75 + 0.5 * draw[2])


def translate(images: Tensor, chance: Chance) -> Tensor:
    """Shift by up to 1/8 of the side, zero (mid-gray) outside."""
    side = images.shape[3]
    reach = side // 8
    padded = F.pad(images, (reach, reach, reach, reach))
    offset = chance.below(2 * reach + 1, 2, len(images), 1)
    index = torch.arange(side, device=images.device)
    rows, columns = offset[0] + index, offset[1] + index
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def colour_translate(images: Tensor, chance: Chance) -> Tensor:
    return translate(colour(images, chance), chance)


AUGMENTS: dict[str, Augment] = {
    "none": none,
    "flip": flip,
    "colour": colour,
    "translate": translate,
    "colour+translate": colour_translate,
}
