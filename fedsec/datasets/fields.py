"""Random fields and small drawing tools that the phantoms share. All on a square canvas, float64, y downwards."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Plane: TypeAlias = npt.NDArray[np.float64]
"""(side, side)."""
Layers: TypeAlias = npt.NDArray[np.float64]
"""(c, side, side) while drawing, (side, side, c) as a picture."""

CANVAS = 128
"""Side of the drawing canvas; pictures are area-averaged down from it."""


@lru_cache(maxsize=64)
def coordinates() -> tuple[Plane, Plane]:
    """(x, y) of every canvas pixel, both in [-1, 1]. Shared: never written to."""
    axis = (np.arange(CANVAS) + 0.5) / CANVAS * 2 - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return x, y


@lru_cache(maxsize=64)
def _amplitude(slope: float, low: float, high: float) -> Plane:
    frequency = np.hypot(np.fft.fftfreq(CANVAS)[:, None], np.fft.rfftfreq(CANVAS)[None]) * CANVAS
    inside = (frequency >= low) & (frequency <= high)
    amplitude: Plane = np.where(inside, np.maximum(frequency, 1.0) ** -slope, 0.0)
    return amplitude


def fractal(rng: np.random.Generator, slope: float, low: float = 1, high: float = CANVAS) -> Plane:
    """Gaussian noise of zero mean and unit spread with amplitude ~ frequency^-slope between two frequencies.

    Frequencies count waves across the canvas. The field is periodic.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((CANVAS, CANVAS))) * _amplitude(slope, low, high)
    field = np.fft.irfft2(spectrum, s=(CANVAS, CANVAS))
    plane: Plane = (field - field.mean()) / field.std()
    return plane


def soft_step(distance: Plane, softness: float) -> Plane:
    """1 where ``distance`` is well below 0, 0 well above, logistic between."""
    step: Plane = 1 / (1 + np.exp(np.clip(distance / softness, -40, 40)))
    return step


def blob(x0: float, y0: float, radius: float) -> Plane:
    """A Gaussian spot of height 1."""
    x, y = coordinates()
    spot: Plane = np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * radius**2))
    return spot


def strokes(rng: np.random.Generator, count: int, thickness: float) -> Plane:
    """``count`` long curved hairs, in [0, 1]; ``thickness`` is the blur in canvas pixels."""
    plane = np.zeros((CANVAS, CANVAS))
    t = np.linspace(0, 1, 4 * CANVAS)[:, None]
    for _ in range(count):
        start, bend, end = rng.uniform(-0.2, 1.2, (3, 2)) * CANVAS
        bend = (start + end) / 2 + (bend - CANVAS / 2) * 0.35
        points = ((1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end).astype(int)
        seen = points[((points >= 0) & (points < CANVAS)).all(axis=1)]
        plane[seen[:, 0], seen[:, 1]] = rng.uniform(0.6, 1)
    blurred: Plane = ndimage.gaussian_filter(plane, thickness)
    return np.clip(blurred * 2.5 * thickness, 0, 1)


def viewed(layers: Layers, angle: float, zoom: float, shift: tuple[float, float], outside: str = "constant") -> Layers:
    """``layers`` (c, side, side) turned, magnified about the centre and shifted (in [-1, 1] units).

    ``outside``: scipy's rule for what lies beyond the canvas; 'constant' is 0, 'nearest' repeats its edge.
    """
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    centre = (CANVAS - 1) / 2
    offset = centre - turn @ (centre + np.array(shift) * CANVAS / 2)
    turned = [ndimage.affine_transform(layer, turn, offset, order=1, mode=outside) for layer in layers]
    return np.stack(turned)


def at_size(picture: Layers, size: int) -> npt.NDArray[np.uint8]:
    """(side, side, c) in [0, 1] -> (size, size, c) uint8: by area averaging where ``size`` divides the canvas, and by
    cubic splines where it is above it, which shows no more than the canvas does."""
    step, channels = CANVAS // size, picture.shape[2]
    kept = np.clip(picture, 0, 1)
    if step:
        shown = kept.reshape(size, step, size, step, channels).mean(axis=(1, 3))
    else:
        by = size / CANVAS
        shown = np.clip(ndimage.zoom(kept, (by, by, 1), order=3, mode="nearest", grid_mode=True), 0, 1)
    pixels: npt.NDArray[np.uint8] = np.rint(shown * 255).astype(np.uint8)
    return pixels
