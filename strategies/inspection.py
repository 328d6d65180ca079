"""fed-inspect: judge clients by what their uploaded generators draw, not by what they say of themselves.

The server holds every uploaded generator, so it draws images with each on the same latents and labels. What a client
wants in the images that others do not want shows as a deviation of its mean image from the median client's, at the same
place and with the same sign round after round; what batches and latents do to it changes sign and averages out. The
evidence of a client is the highest local energy of that persistent deviation.

Pure functions; sampling is the strategy's. Ours; related: discriminator-response probing of free-riders (Zhao et al.
2022), comparison of generated images between clients for re-weighting (FedCAR, 2024).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedsec.types import Images, Labels, Vector

Means = npt.NDArray[np.float64]
"""(clients, classes, channels, size, size): each client's mean image of each class."""
WINDOW = 10
"""Rounds of its own over which a client's deviation must persist."""
PLACE = 4
"""Side of the square, in pixels at 32 px, over which energy is averaged: about a small trigger."""


def class_means(drawn: list[Images], labels: Labels) -> Means:
    """Mean image of each class for each client's images (n, c, s, s), all drawn for the same ``labels``."""
    classes = np.unique(labels)
    return np.stack([[images[labels == k].mean(axis=0, dtype=np.float64) for k in classes] for images in drawn])


def deviations(means: Means) -> Means:
    """Each client's class means less the pixel-wise median over clients: colluders below half cannot move it far."""
    return np.asarray(means - np.median(means, axis=0, keepdims=True), np.float64)


def peak(history: list[Means]) -> Vector:
    """(clients,) the root of the highest local energy of the mean deviation over ``history``; units of the image range.

    0 for a client whose deviation averages out everywhere. ``history``: deviations of the last rounds, equal clients.
    """
    from scipy.ndimage import uniform_filter

    energy = np.square(np.mean(history, axis=0)).mean(axis=(1, 2))
    side = max(2, PLACE * energy.shape[-1] // 32)
    local = np.stack([uniform_filter(plane, side) for plane in energy])
    return np.asarray(np.sqrt(np.maximum(local, 0).max(axis=(1, 2))), np.float64)
