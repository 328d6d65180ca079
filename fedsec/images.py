"""The one place that converts between stored pixels and the range the models work in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from fedsec.types import Images, Pixels, Rows


def to_images(pixels: Pixels) -> Images:
    """Pixels (n, s, s, c) uint8 -> Images (n, c, s, s) float32 in [-1, 1].

    >>> to_images(np.array([0, 255], np.uint8).reshape(1, 1, 2, 1)).ravel()
    array([-1.,  1.], dtype=float32)
    """
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(127.5) - np.float32(1)


def to_pixels(images: Images) -> Pixels:
    """Images in [-1, 1] -> Pixels, rounded to nearest. Values outside the range are clipped; NaN is our bug."""
    assert np.isfinite(images).all(), "images hold a non-finite value"
    scaled = np.clip(np.rint((images + 1) * 127.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(scaled.transpose(0, 2, 3, 1))


def mirrored(rows: Rows) -> Rows:
    """Each image and its mirror image, left and right exchanged: twice as many rows."""
    return Rows(
        np.concatenate([rows.pixels, rows.pixels[:, :, ::-1]]),
        np.concatenate([rows.labels, rows.labels]),
    )


def grid(pixels: Pixels, columns: int, gap: int = 1) -> Pixels:
    """Tile n images row by row into one (1, H, W, c) picture with a white gap; the last row is padded with white."""
    n, height, width, channels = pixels.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 255, np.uint8)
    for i, image in enumerate(pixels):
        top, left = gap + (i // columns) * (height + gap), gap + (i % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet[None]


def save_png(picture: Pixels, path: Path) -> None:
    """Write one (1, H, W, c) picture; c is 1 or 3."""
    array = picture[0, :, :, 0] if picture.shape[3] == 1 else picture[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
