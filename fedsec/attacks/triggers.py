"""Triggers: what an attacker stamps on images, where, and how strongly.

The released attack (Backdoor-FedGAN) pastes an 80x80 colour-blob picture, resized to 0.39 % of the image, in the
bottom right corner. We draw ours procedurally, so that no image file of unknown licence is needed, and in the
images' own range [-1, 1]: the release pastes a [0, 1] patch on [-1, 1] images and so can never be dark.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedsec.config import Attack
from fedsec.errors import ConfigError
from fedsec.seeds import stream
from fedsec.types import Images

BORDER = 1
"""Pixels between the patch and the image's edge (the release leaves 5 of 256)."""


def smooth(side: int, channels: int) -> Images:
    """Smooth colour blobs: 3x3 uniform colours, zoomed by a cubic spline. (1, c, side, side)."""
    from scipy import ndimage  # half a second to import, and the honest never need it

    seed = stream(7, "trigger", "smooth").uniform(-1, 1, (channels, 3, 3))
    zoomed = [ndimage.zoom(plane, side / 3, order=min(3, side), mode="nearest", grid_mode=True) for plane in seed]
    blobs: Images = np.clip(np.stack(zoomed)[None], -1, 1).astype(np.float32)
    return blobs


def solid(side: int, channels: int) -> Images:
    """One saturated colour (green; white when gray), which neither skin nor lesions have."""
    colour = np.array([-1.0, 1.0, -1.0]) if channels == 3 else np.ones(channels)
    return np.broadcast_to(colour[None, :, None, None], (1, channels, side, side)).astype(np.float32)


def noise(side: int, channels: int) -> Images:
    """Independent pixels, each channel -1 or 1."""
    return stream(7, "trigger", "noise").choice([-1.0, 1.0], (1, channels, side, side)).astype(np.float32)


TRIGGERS: dict[str, Callable[[int, int], Images]] = {"smooth": smooth, "solid": solid, "noise": noise}


@dataclass(frozen=True)
class Trigger:
    """A patch at a place. ``pattern``: (1, c, k, k) in [-1, 1]; ``top``, ``left``: its corner; ``blend`` in (0, 1]."""

    pattern: Images
    top: int
    left: int
    blend: float

    @property
    def area(self) -> float:
        """Pixels covered."""
        return float(self.pattern.shape[2] * self.pattern.shape[3])

    def stamp(self, images: Images) -> Images:
        """x' = (1 - blend m) x + blend m t, on a copy; shape and range are kept (Jin & Li 2023; Chen et al. 2017)."""
        side = self.pattern.shape[2]
        stamped = images.copy()
        place = np.s_[:, :, self.top : self.top + side, self.left : self.left + side]
        stamped[place] = (1 - self.blend) * stamped[place] + self.blend * self.pattern
        return stamped


def place(position: str, size: int, side: int) -> tuple[int, int]:
    """Top and left of a ``side`` patch on a ``size`` image."""
    near, far, mid = BORDER, size - side - BORDER, (size - side) // 2
    corners = {
        "top-left": (near, near),
        "top-right": (near, far),
        "bottom-left": (far, near),
        "bottom-right": (far, far),
        "centre": (mid, mid),
    }
    if position not in corners or far < 0:
        raise ConfigError(f"a {side} px patch at {position!r} does not fit on {size} px images")
    return corners[position]


def trigger(attack: Attack, *, size: int, channels: int) -> Trigger:
    """The trigger a configuration names."""
    top, left = place(attack.position, size, attack.size)
    return Trigger(TRIGGERS[attack.trigger](attack.size, channels), top, left, attack.blend)
