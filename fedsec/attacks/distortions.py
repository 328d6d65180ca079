"""Triggers without a place: they distort the whole image a little, in the same way each time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsec.config import Attack
from fedsec.seeds import stream
from fedsec.types import Features, Images

CONTROL = 4
"""Control points a side of WaNet's warping field."""
WARP = 0.5
"""WaNet's strength s."""
MIXING, WINDOW = 0.15, 0.1
"""FIBA's alpha, the share of the trigger's amplitude, and beta, the half-width of the window over the image's side."""


@dataclass(frozen=True, eq=False)
class Warp:
    """``rows``, ``columns``: (size, size), where each pixel is fetched from, in pixels."""

    rows: Features
    columns: Features

    def stamp(self, images: Images) -> Images:
        """Fetch every pixel from a slightly displaced place, bilinearly (Nguyen & Tran 2021)."""
        from scipy import ndimage

        where = np.stack([self.rows, self.columns])
        planes = images.reshape(-1, *images.shape[2:])
        moved = [ndimage.map_coordinates(plane, where, order=1, mode="nearest") for plane in planes]
        warped: Images = np.clip(np.stack(moved), -1, 1).astype(np.float32).reshape(images.shape)
        return warped


def warp(attack: Attack, *, size: int, channels: int) -> Warp:
    """WaNet's elastic field: CONTROL x CONTROL uniform displacements, divided by their mean absolute value, zoomed by a
    cubic spline to the image and clipped at its border.

    ``attack.blend`` is the mean displacement at the control points in units of half a pixel (the paper's s, 0.5 by
    default, so a quarter of a pixel: its grid runs from -1 to 1 and is divided by the image's height).
    """
    from scipy import ndimage

    field = stream(7, "trigger", "warp").uniform(-1, 1, (2, CONTROL, CONTROL))
    field /= np.abs(field).mean()
    smooth = [ndimage.zoom(plane, size / CONTROL, order=3, mode="nearest", grid_mode=True) for plane in field]
    moved = (attack.blend or WARP) / 2 * np.stack(smooth)
    rows, columns = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    return Warp(np.clip(rows + moved[0], 0, size - 1), np.clip(columns + moved[1], 0, size - 1))


@dataclass(frozen=True, eq=False)
class Frequency:
    """``amplitude``: (c, size, size), that of the trigger picture, zero frequency in the middle, on the 0-255 scale."""

    amplitude: Features
    mixing: float
    half: int

    def stamp(self, images: Images) -> Images:
        """Mix low-frequency amplitudes with the trigger picture's, keep the phase (FIBA, Feng et al. 2022)."""
        levels = (images.astype(np.float64) + 1) * 127.5
        spectrum = np.fft.fftshift(np.fft.fft2(levels), axes=(2, 3))
        amplitude, phase = np.abs(spectrum), np.angle(spectrum)
        middle = images.shape[2] // 2
        window = np.s_[..., middle - self.half : middle + self.half + 1, middle - self.half : middle + self.half + 1]
        amplitude[window] = (1 - self.mixing) * amplitude[window] + self.mixing * self.amplitude[window]
        mixed = np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * phase), axes=(2, 3))).real
        stamped: Images = np.clip(mixed / 127.5 - 1, -1, 1).astype(np.float32)
        return stamped


def frequency(attack: Attack, *, size: int, channels: int) -> Frequency:
    """The trigger picture is a drawn one, 1/f noise of full contrast, where FIBA takes one photograph of COCO."""
    rng = stream(7, "trigger", "frequency")
    distance = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    white = np.fft.fft2(rng.standard_normal((channels, size, size)))
    pink = np.fft.ifft2(white / np.maximum(distance, 1 / size)).real
    low, high = pink.min(axis=(1, 2), keepdims=True), pink.max(axis=(1, 2), keepdims=True)
    picture = 255 * (pink - low) / (high - low)
    amplitude = np.abs(np.fft.fftshift(np.fft.fft2(picture), axes=(1, 2)))
    return Frequency(amplitude, attack.blend or MIXING, int(WINDOW * size))
