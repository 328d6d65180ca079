"""Features and images that the tests of this folder share."""

from __future__ import annotations

import numpy as np

from fedsec.seeds import stream
from fedsec.types import Features, Images, Labels, Pixels, Rows


def gaussian(n: int, d: int, *address: str | int, shift: float = 0.0, mixed: bool = False) -> Features:
    """(n, d) normal features; ``mixed`` gives them a full covariance."""
    rng = stream(0, "tests", n, d, *address)
    sample = rng.normal(size=(n, d))
    if mixed:
        sample = sample @ rng.normal(size=(d, d)) / np.sqrt(d)
    return sample + shift


def lesions(n: int, *address: str | int, channels: int = 3, size: int = 32) -> Rows:
    """Dark discs on skin with a gradient: class 1 has the larger discs. Deterministic."""
    rng = stream(0, "lesions", n, channels, *address)
    labels: Labels = np.arange(n, dtype=np.int64) % 2
    axis = np.linspace(-1, 1, size)
    centre = rng.uniform(-0.25, 0.25, (2, n, 1, 1))
    radius = (0.35 + 0.25 * labels + rng.normal(0, 0.12, n))[:, None, None]
    distance = np.hypot(axis[None, :, None] - centre[0], axis[None, None, :] - centre[1])
    inside = 1 / (1 + np.exp((distance - radius) * 12))
    slope = rng.uniform(-15, 15, (2, n, 1, 1))
    tone = 175 + slope[0] * axis[None, :, None] + slope[1] * axis[None, None, :] + rng.normal(0, 12, (n, 1, 1))
    plane = tone - 90 * inside
    tint = np.array([1.1, 0.9, 0.8]) if channels == 3 else np.ones(1)
    noisy = plane[..., None] * tint + rng.normal(0, 4, (n, size, size, channels))
    pixels: Pixels = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    return Rows(pixels, labels)


def stamped(images: Images, pattern: Images, top: int, left: int, blend: float) -> Images:
    """x' = (1 - blend) x + blend t on the patch, on a copy."""
    side = pattern.shape[2]
    copy = images.copy()
    patch = copy[:, :, top : top + side, left : left + side]
    copy[:, :, top : top + side, left : left + side] = (1 - blend) * patch + blend * pattern
    return copy
