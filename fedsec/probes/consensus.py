"""What several restarts agree on: the mean of their images after each is moved over it (Yin et al. 2021, eq. 12).

Departure: the source registers by RANSAC-flow, a learned dense flow; here it is one whole-pixel shift an image, by
phase correlation (Kuglin & Hines 1975, scikit-image), and none where that shift is implausible. A restart whose images
lie in another order is not put in order: known labels tie an image to its place only where no label repeats.
"""

from __future__ import annotations

import numpy as np
import torch
from skimage.registration import phase_cross_correlation
from torch import Tensor

from fedsec.types import Indices

REACH = 8
"""A shift by more than the side over this is taken for chance."""


def consensus(images: Tensor, shifts: Indices) -> Tensor:
    """(restarts, n, c, s, s), (restarts, n, 2) -> (n, c, s, s) without a gradient: the mean of the moved images."""
    moved = [
        torch.stack(
            [torch.roll(image, (int(down), int(right)), (-2, -1)) for image, (down, right) in zip(*pair, strict=True)]
        )
        for pair in zip(images.detach(), shifts, strict=True)
    ]
    return torch.stack(moved).mean(dim=0)


def shifts_onto_mean(images: Tensor) -> Indices:
    """(restarts, n, c, s, s) -> (restarts, n, 2): rows and columns by which each image lies best on the restarts' mean.

    Channels are averaged first. 0, 0 where the images have nothing in common.
    """
    grey = images.detach().double().mean(dim=2).cpu().numpy()
    mean, side = grey.mean(axis=0), grey.shape[-1]
    found = np.zeros((*grey.shape[:2], 2), np.int64)
    for restart, place in np.ndindex(*grey.shape[:2]):
        one, other = (picture - picture.mean() for picture in (mean[place], grey[restart, place]))
        if not 0 < min(np.abs(one).max(), np.abs(other).max()) < np.inf:
            continue
        shift = np.rint(phase_cross_correlation(one, other)[0]).astype(np.int64)
        if np.abs(shift).max() * REACH <= side:
            found[restart, place] = shift
    return found
